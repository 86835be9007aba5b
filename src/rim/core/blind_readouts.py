"""Blind drop-out: in training, some read-outs do not see the question.

A read-out that sees the blocks alone can be right only if the blocks carry what the answer needs.
The model is served with the question in sight, as any stock engine does; so both views are trained,
by a coin. Ours, not the paper's.

Shape legend: B batch, R read-outs.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor

Coin = Literal["batch", "example", "readout"]


def blind_coins(
    share: float, coin: Coin, batch_size: int, width: int, *, seed: int, step: int, first: int = 0
) -> Tensor:
    """Which read-outs are blind, `[B, R]`.

    A draw depends on the seed, the optimizer step, the example's number in that step's batch and
    (for "readout") the read-out alone: an interrupted run draws as one that never stopped, and a
    batch in parts as a whole one.

    Args:
        share: probability of blindness.
        coin: one for all read-outs of the step, one an example, or one a read-out.
        first: number of the first example within the step's batch.
    """
    if coin == "batch":
        return _draws(f"{seed} {step}", 1)[None].expand(batch_size, width) < share
    count = width if coin == "readout" else 1
    rows = [_draws(f"{seed} {step} {first + b}", count) for b in range(batch_size)]
    return torch.stack(rows).expand(batch_size, width) < share


def _draws(key: str, count: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
