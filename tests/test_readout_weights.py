"""lambda and alpha against tables worked out by hand, and the loss against its formula."""

from __future__ import annotations

import pytest
import torch

from rim.core.losses import readout_loss, token_loss
from rim.core.readout_weights import readout_weights


def weights(kind, readouts, steps, progress=0.0, width=None, max_readouts=4):
    return readout_weights(
        kind,
        torch.tensor(readouts),
        torch.tensor(steps),
        width=width or max(readouts),
        max_readouts=max_readouts,
        progress=progress,
    ).tolist()


def test_alpha_is_two_k_over_k_times_k_plus_one():
    assert weights("later_more", [4], [0])[0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert weights("later_more", [8], [0])[0] == pytest.approx([2 * k / 72 for k in range(1, 9)])
    assert sum(weights("later_more", [8], [0])[0]) == pytest.approx(1)
    assert weights("mean", [4], [0])[0] == [0.25] * 4
    assert weights("last", [3, 2], [0, 0]) == [[0, 0, 1], [0, 1, 0]]


def test_ones_and_missing_readouts():
    assert weights("ones", [3, 1], [2, 0]) == [[1, 1, 1], [1, 0, 0]]


# T = 4 read-outs, three of them steps; w = 1/4, read-out t fades from 3t/16 to 3t/16 + 1/4.
@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, [1, 1, 1, 1]),
        (3 / 16, [1, 1, 1, 1]),
        (5 / 16, [0.5, 1, 1, 1]),
        (7 / 16, [0, 0.75, 1, 1]),
        (0.5, [0, 0.5, 1, 1]),
        (0.75, [0, 0, 0.25, 1]),
        (1.0, [0, 0, 0, 1]),
    ],
)
def test_relative_annealing_withdraws_steps_from_the_front(progress, expected):
    assert weights("anneal_relative", [4], [3], progress)[0] == pytest.approx(expected, abs=1e-6)


def test_linear_annealing_measures_against_the_longest_example():
    # A two-read-out example in data whose longest has four: its one step fades from 3/16, not from
    # 1/4.
    assert weights("anneal_linear", [2], [1], 5 / 16)[0] == pytest.approx([0.5, 1])
    assert weights("anneal_relative", [2], [1], 5 / 16)[0] == pytest.approx([0.875, 1])


def test_uniform_annealing_fades_all_steps_together():
    assert weights("anneal_uniform", [3], [2], 0.25)[0] == pytest.approx([0.75, 0.75, 1])


def test_surplus_answer_readouts_never_fade():
    assert weights("anneal_relative", [5], [2], 1.0)[0] == pytest.approx([0, 0, 1, 1, 1])


def test_progress_out_of_range_is_refused():
    with pytest.raises(ValueError, match="progress"):
        weights("ones", [1], [0], 1.5)


def test_loss_is_the_weighted_sum_of_readout_log_probabilities():
    torch.manual_seed(0)
    target_ids_N = torch.tensor([2, 0, 1, 3, 1])
    cells_N, counts_BR = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([[2, 1], [1, 1]])
    weights_BR = torch.tensor([[0.5, 2.0], [1.0, 0.0]])
    logits_NV = torch.randn(5, 4)
    nll = -logits_NV.log_softmax(-1)[range(5), [2, 0, 1, 3, 1]]
    tokens = token_loss(logits_NV, target_ids_N)
    loss = readout_loss(tokens, cells_N, counts_BR, weights_BR)
    expected = torch.stack([0.5 * (nll[0] + nll[1]) + 2 * nll[2], nll[3]])
    torch.testing.assert_close(loss.per_example_B, expected)
    assert loss.tokens_BR.tolist() == [[2, 1], [1, 1]]
    mean = readout_loss(tokens, cells_N, counts_BR, weights_BR, "mean")
    torch.testing.assert_close(mean.per_example_B[0], 0.5 * (nll[0] + nll[1]) / 2 + 2 * nll[2])
