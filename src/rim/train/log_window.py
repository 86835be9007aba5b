"""What was measured since the last log, and what of it is logged.

Shape legend: B batch, R read-outs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rim.core.losses import ReadoutLoss

#: Losses of micro-batches, each with the weights of its read-outs `[B, R]`.
Window = list[tuple[ReadoutLoss, Tensor]]


def token_loss(window: Window) -> float:
    """Negative log-probability of a target token, mean over those of all read-outs, each weighing
    as its read-out does: a read-out that the schedule has withdrawn does not count.
    """
    nll, tokens = _weighed_sums(window)
    return nll / tokens


def _weighed_sums(window: Window) -> tuple[float, float]:
    nll = sum(float((weights_BR * loss.nll_BR).sum()) for loss, weights_BR in window)
    tokens = sum(float((weights_BR * loss.tokens_BR).sum()) for loss, weights_BR in window)
    return nll, tokens


def readout_metrics(
    window: Window, total: Callable[[Tensor], Tensor], most: Callable[[int], int]
) -> dict[str, float]:
    """Mean negative log-probability per token, of all read-outs by their weights and of the first
    and last; token accuracy.

    Args:
        total: sums a tensor over processes; `most` takes the largest number of all.
    """
    device = window[0][1].device
    exact = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
    weighed = total(torch.tensor(_weighed_sums(window), dtype=exact).to(device))
    losses = [loss for loss, _ in window]
    width = most(max(loss.nll_BR.shape[1] for loss in losses))
    nll, tokens, correct = (
        total(torch.stack([_column_sums(getattr(loss, name), width) for loss in losses]).sum(0))
        for name in ("nll_BR", "tokens_BR", "correct_BR")
    )
    # Examples that do not count may have had more read-outs than all others.
    last = int(tokens.nonzero().max())
    return {
        "token_loss": float(weighed[0] / weighed[1]),
        "readout_first_nll": (nll[0] / tokens[0]).item(),
        "readout_last_nll": (nll[last] / tokens[last]).item(),
        "token_accuracy": (correct.sum() / tokens.sum()).item(),
    }


def _column_sums(values_BR: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values_BR.sum(0), (0, width - values_BR.shape[1]))


def without(loss: ReadoutLoss, counted_B: Tensor) -> ReadoutLoss:
    """The loss with all of the examples that do not count at zero."""
    fields = {}
    for field in dataclasses.fields(loss):
        value: Tensor = getattr(loss, field.name)
        fields[field.name] = value * counted_B.view(-1, *[1] * (value.ndim - 1))
    return ReadoutLoss(**fields)


def window_state(window: Window) -> list[dict[str, Any]]:
    """Tensors alone, for a checkpoint."""
    return [dataclasses.asdict(loss) | {"weights_BR": w} for loss, w in window]


def window_from(state: list[dict[str, Any]], device: torch.device) -> Window:
    moved = [{name: tensor.to(device) for name, tensor in entry.items()} for entry in state]
    weights = [entry.pop("weights_BR") for entry in moved]
    return [(ReadoutLoss(**entry), w) for entry, w in zip(moved, weights, strict=True)]
