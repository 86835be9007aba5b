"""The weighted read-out loss: the paper's L1 and L2 as pure functions.

Shape legend: N target positions of the batch in row-major order, V vocabulary, D width, B examples,
R read-outs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rim.config.stages import Reduction


@dataclass(frozen=True)
class ReadoutLoss:
    """`per_example_B` is differentiable; the rest is detached, for logging."""

    per_example_B: Tensor
    nll_BR: Tensor  # negative log-probability of each read-out's whole target
    tokens_BR: Tensor  # target tokens of each read-out
    correct_BR: Tensor  # target tokens predicted greedily


@dataclass(frozen=True)
class TokenLoss:
    """How likely the model finds every target token."""

    nll_N: Tensor  # negative log-probability, differentiable
    correct_N: Tensor  # 1.0 where the target is the likeliest token


def token_loss(logits_NV: Tensor, target_ids_N: Tensor) -> TokenLoss:
    nll_N = F.cross_entropy(logits_NV.float(), target_ids_N, reduction="none")
    with torch.no_grad():
        correct_N = (logits_NV.argmax(-1) == target_ids_N).float()
    return TokenLoss(nll_N, correct_N)


def chunked_token_loss(
    head: Callable[[Tensor], Tensor], states_ND: Tensor, target_ids_N: Tensor, chunk: int
) -> TokenLoss:
    """`token_loss(head(states_ND), ...)`, never holding more than `chunk` rows of logits: each
    chunk's logits are thrown away and made again for its gradient.

    Args:
        head: from states to logits, a linear map over the vocabulary.
    """

    def part(states_ND: Tensor, target_ids_N: Tensor) -> tuple[Tensor, Tensor]:
        loss = token_loss(head(states_ND), target_ids_N)
        return loss.nll_N, loss.correct_N

    parts = [
        checkpoint(part, states, targets, use_reentrant=False, preserve_rng_state=False)
        for states, targets in zip(states_ND.split(chunk), target_ids_N.split(chunk), strict=True)
    ]
    nll, correct = zip(*parts, strict=True)
    return TokenLoss(torch.cat(nll), torch.cat(correct))


def readout_loss(
    tokens: TokenLoss,
    target_cells_N: Tensor,
    target_counts_BR: Tensor,
    weights_BR: Tensor,
    reduction: Reduction = "sum",
) -> ReadoutLoss:
    """L = - sum_r weight_r log p(target_r | question, blocks 1..k_r) for every example.

    Args:
        target_cells_N: the read-out that each target token belongs to, a flat index into B x R.
        target_counts_BR: target tokens of each read-out.
        weights_BR: lambda or alpha, `rim.core.readout_weights.readout_weights`.
        reduction: "sum" is the formula; "mean" divides each read-out's log-probability by its
            length.
    """

    def per_readout(values_N: Tensor) -> Tensor:
        flat = torch.zeros(weights_BR.numel(), dtype=values_N.dtype, device=values_N.device)
        return flat.index_add(0, target_cells_N, values_N).view(weights_BR.shape)

    nll_BR = per_readout(tokens.nll_N)
    tokens_BR = target_counts_BR.to(nll_BR.dtype)
    scaled_BR = nll_BR if reduction == "sum" else nll_BR / tokens_BR.clamp(min=1)
    correct_BR = per_readout(tokens.correct_N)
    return ReadoutLoss((weights_BR * scaled_BR).sum(1), nll_BR.detach(), tokens_BR, correct_BR)
