"""The weighted read-out loss: the paper's L1 and L2 as one pure function.

Shape legend: N target positions of the batch in row-major order, V vocabulary, B batch, R
read-outs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rim.config.stages import Reduction


@dataclass(frozen=True)
class ReadoutLoss:
    """`per_example_B` is differentiable; the rest is detached, for logging."""

    per_example_B: Tensor
    nll_BR: Tensor  # negative log-probability of each read-out's whole target
    tokens_BR: Tensor  # target tokens of each read-out
    correct_BR: Tensor  # target tokens predicted greedily


def readout_loss(
    logits_NV: Tensor,
    targets_BT: Tensor,
    readout_ids_BT: Tensor,
    weights_BR: Tensor,
    reduction: Reduction = "sum",
    row_examples: Tensor | None = None,
) -> ReadoutLoss:
    """L = - sum_r weight_r log p(target_r | question, blocks 1..k_r) for every example.

    Args:
        logits_NV: logits of the positions where `targets_BT >= 0`, in that order.
        weights_BR: lambda or alpha, `rim.core.schedules.readout_weights`.
        reduction: "sum" is the formula; "mean" divides each read-out's log-probability by its
            length.
        row_examples: the example of each row, where an example has several (separate read-outs).
    """
    has_target_BT = targets_BT >= 0
    targets_N = targets_BT[has_target_BT].long()
    nll_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    batch_size, width = weights_BR.shape
    row_N = torch.nonzero(has_target_BT)[:, 0]
    example_N = row_N if row_examples is None else row_examples[row_N]
    cell_N = example_N * width + readout_ids_BT[has_target_BT].long()

    def per_readout(values_N: Tensor) -> Tensor:
        flat = torch.zeros(batch_size * width, dtype=values_N.dtype, device=values_N.device)
        return flat.index_add(0, cell_N, values_N).view(batch_size, width)

    nll_BR = per_readout(nll_N)
    tokens_BR = per_readout(torch.ones_like(nll_N))
    scaled_BR = nll_BR if reduction == "sum" else nll_BR / tokens_BR.clamp(min=1)
    with torch.no_grad():
        correct_BR = per_readout((logits_NV.argmax(-1) == targets_N).float())
    return ReadoutLoss((weights_BR * scaled_BR).sum(1), nll_BR.detach(), tokens_BR, correct_BR)
