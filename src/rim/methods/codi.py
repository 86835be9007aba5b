"""CODI: self-distillation of chain of thought into latents (Shen et al. 2025, arXiv 2502.21074).

One pass holds both: the teacher is the read-out after the question (steps, answer), the student the
read-out after the latents (answer). Both are trained by cross-entropy, and the student's hidden
states at the token before the answer, all layers, are drawn to the teacher's, which are not
(`distillation_loss`; it divides by a deviation over the micro-batch, so compare CODI at equal
`micro_batch_size`). Latents are fed back through a projection. As in CODI the last step is left
out of the teacher's solution (`drop_last_step`): it states the answer.

Shape legend: B batch, T flat sequence length, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rim.methods.base import BenchSetup, ExtraLoss, Method, Readout

if TYPE_CHECKING:
    from rim.config import MemoryConfig, StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class LatentProjection(nn.Sequential):
    """Linear, GELU, Linear, LayerNorm between a hidden state and the next latent's input."""

    def __init__(self, width: int):
        super().__init__(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width)
        )


class Codi(Method):
    name = "codi"
    summary = "hidden states fed back, taught by the chain of thought"
    objectives = ("distillation",)
    has_blocks = True
    extra_modules = {"latent_projection": LatentProjection}  # noqa: RUF012
    bench = BenchSetup(blocks=6, memory={"tokens": 1, "framing": "once"})

    def feedback(self, memory: MemoryConfig) -> Literal["chain"]:
        return "chain"

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        steps = example.steps[:-1] if stage.drop_last_step else example.steps
        solution = encoder.solution_ids(steps, example.answer)
        answer = encoder.answer_ids(example.answer)
        before = encoder.tokens_before_answer(solution, answer, example)
        marker = encoder.num_marker_tokens
        return [
            Readout(0, solution, marked=before + marker),
            Readout(encoder.format.memory.blocks, answer, marked=marker),
        ]

    def extra_loss(self, stage: StageConfig) -> ExtraLoss:
        def loss(hidden_states: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
            return stage.distillation_weight * distillation_loss(hidden_states, batch["marks"])

        return loss


METHOD = Codi()


def distillation_loss(hidden_states: Sequence[Tensor], marks_BT: Tensor) -> Tensor:
    """CODI's knowledge distillation for each example, `[B]`, differentiable in the student only.

    Read-out 0 is the teacher, read-out 1 the student; the marked position of each is the token
    before its answer. Smooth L1 between their states, each layer divided by the standard
    deviation of the teacher's states over the batch, mean over features and layers.

    Args:
        hidden_states: `[B, T, D]` of the embeddings and of every layer.

    Source: arXiv 2502.21074; the mean over layers follows its public description.
    """
    marked_2BT = torch.stack([marks_BT == 0, marks_BT == 1])
    if not bool((marked_2BT.sum(2) == 1).all()):
        raise ValueError("distillation needs one marked token in either of two read-outs")
    positions_B2 = marked_2BT.int().argmax(2).T
    rows_B1 = torch.arange(len(positions_B2), device=marks_BT.device)[:, None]
    total_B = torch.zeros(len(positions_B2), device=marks_BT.device)
    for hidden_BTD in hidden_states:
        teacher_BD, student_BD = hidden_BTD[rows_B1, positions_B2].float().unbind(1)
        teacher_BD = teacher_BD.detach()
        distance_BD = F.smooth_l1_loss(student_BD, teacher_BD, reduction="none")
        total_B = total_B + distance_BD.mean(1) / teacher_BD.std()
    return total_B / len(hidden_states)
