"""Weights of the read-outs, as pure functions of index and training progress.

lambda (stage 1, grounding) withdraws the supervision of steps from the front; alpha (stage 2,
refinement) weighs later blocks more. The answer's read-outs keep weight 1 under every lambda.

Shape legend: B batch, R read-outs (padded to the largest example).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rim.config.stages import Weighting


def fade(progress: float, start: Tensor, width: Tensor) -> Tensor:
    """1 until `start`, then linearly down to 0 within `width` (both as shares of the stage)."""
    return (1 - (progress - start) / width).clamp(0, 1)


def lambda_weights(
    kind: str, step_BR: Tensor, num_readouts_B1: Tensor, max_readouts: int, progress: float
) -> Tensor:
    """Stage-1 weights of the step read-outs, `[B, R]`.

    Our reading of the paper's three schedules: read-out t of T is fully on until its own point
    t / T * (1 - w) and fades during the next w of the stage, w = 1 / T. "linear" measures t against
    the longest example of the data instead of the example's own T; "uniform" fades all from the
    start.
    """
    if kind == "anneal_uniform":
        return torch.full_like(step_BR, 1 - progress)
    total = (
        num_readouts_B1
        if kind == "anneal_relative"
        else torch.full_like(num_readouts_B1, float(max_readouts))
    )
    width = 1 / total
    return fade(progress, step_BR / total * (1 - width), width)


def alpha_weights(kind: str, step_BR: Tensor, num_readouts_B1: Tensor) -> Tensor:
    """Stage-2 weights, `[B, R]`; each row sums to 1."""
    if kind == "later_more":
        return 2 * step_BR / (num_readouts_B1 * (num_readouts_B1 + 1))
    if kind == "mean":
        return (1 / num_readouts_B1).expand_as(step_BR)
    return (step_BR == num_readouts_B1).float()


def readout_weights(
    kind: Weighting,
    num_readouts_B: Tensor,
    num_step_readouts_B: Tensor,
    *,
    width: int,
    max_readouts: int,
    progress: float,
    step_weight: float = 1.0,
) -> Tensor:
    """Weights `[B, R]` of every read-out, 0 where an example has fewer than R.

    Args:
        num_readouts_B: read-outs of each example.
        num_step_readouts_B: how many of them, from the first on, say a step; only those anneal.
        width: R, the columns of the result.
        max_readouts: the most *annealable* read-outs plus one in the data set ("anneal_linear").
        progress: share of the stage done, 0..1.
        step_weight: a factor on the read-outs that say a step.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in 0..1, got {progress}")
    t_1R = torch.arange(1, width + 1, device=num_readouts_B.device, dtype=torch.float32)[None]
    t_BR = t_1R.expand(len(num_readouts_B), -1)
    total_B1 = num_readouts_B[:, None].float()
    exists_BR = t_BR <= total_B1
    if kind == "ones":
        weights_BR = torch.ones_like(t_BR)
    elif kind.startswith("anneal_"):
        steps_B1 = num_step_readouts_B[:, None].float()
        annealed_BR = lambda_weights(kind, t_BR, steps_B1 + 1, max_readouts, progress)
        weights_BR = torch.where(t_BR <= steps_B1, annealed_BR, torch.ones_like(t_BR))
    else:
        weights_BR = alpha_weights(kind, t_BR, total_B1)
    if step_weight != 1:
        is_step_BR = t_BR <= num_step_readouts_B[:, None].float()
        weights_BR = torch.where(is_step_BR, step_weight * weights_BR, weights_BR)
    return weights_BR * exists_BR
