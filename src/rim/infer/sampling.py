"""Choosing the next token, greedily or by sampling, independently for every row.

Shape legend: N rows, S steps, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

# Settings of sampling are read without torch; choosing tokens needs it.
if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy. Draws depend on seed, question, block and sample number alone.

    `stop` "forbidden" never picks the stop token, so that every answer has as many tokens as it
    may: for measuring time.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    num_samples: int = 1
    seed: int = 0
    stop: Literal["allowed", "forbidden"] = "allowed"

    def __post_init__(self) -> None:
        if (
            self.temperature < 0
            or not 0 < self.top_p <= 1
            or self.top_k < 0
            or self.num_samples < 1
        ):
            raise ValueError(
                "sampling needs temperature >= 0, 0 < top_p <= 1, top_k >= 0, "
                f"num_samples >= 1, got {self}"
            )
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError(
                "several samples of a greedy answer are all the same: set a temperature"
            )


class TokenChooser:
    """Picks the next token of every row; forbidden tokens are never picked.

    Args:
        row_keys: what a row's draws depend on, besides the seed: rows with equal keys draw equally.
        forbidden_ids: tokens that may not be generated (the memory tokens).
        max_new_tokens: how many draws a row may need.
    """

    def __init__(
        self,
        sampling: Sampling,
        row_keys: Sequence[str],
        forbidden_ids: Sequence[int],
        max_new_tokens: int,
        device: torch.device,
    ):
        import torch
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self.forbidden_ids = torch.tensor(list(forbidden_ids), dtype=torch.long, device=device)
        self.warpers: list[Any] = []
        if sampling.temperature > 0:
            self.warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                self.warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self.warpers.append(TopPLogitsWarper(sampling.top_p))
            draws = [_uniform_draws(f"{sampling.seed}/{key}", max_new_tokens) for key in row_keys]
            self.uniform_NS = torch.stack(draws)

    def __call__(self, logits_NV: Tensor, rows: Sequence[int], step: int) -> tuple[Tensor, Tensor]:
        """Token and log-probability (at temperature 1) of the rows that are still decoded."""
        scores_NV = logits_NV.float().index_fill(1, self.forbidden_ids, float("-inf"))
        logprobs_NV = scores_NV.log_softmax(-1)
        if self.warpers:
            for warper in self.warpers:
                scores_NV = warper(None, scores_NV)
            token_N = self._draw(scores_NV, rows, step)
        else:
            token_N = scores_NV.argmax(-1)
        return token_N, logprobs_NV.gather(1, token_N[:, None])[:, 0]

    def _draw(self, scores_NV: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """Inverse transform with one uniform number a row: a draw does not depend on other rows."""
        import torch

        # float64, which not every device has; only the probabilities' sums need it.
        device = "cpu" if scores_NV.device.type == "mps" else scores_NV.device
        cumulative_NV = scores_NV.softmax(-1).to(device, torch.float64).cumsum(-1)
        uniform_N1 = self.uniform_NS[list(rows), step : step + 1].to(device)
        target_N1 = uniform_N1 * cumulative_NV[:, -1:]
        token_N = torch.searchsorted(cumulative_NV, target_N1, right=True)[:, 0]
        # Rounding may point behind the last token that has any probability.
        last_possible_N = (cumulative_NV < cumulative_NV[:, -1:]).sum(1)
        return torch.minimum(token_N, last_possible_N).to(scores_NV.device)


def _uniform_draws(key: str, count: int) -> Tensor:
    import torch

    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") % 2**63
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)
