"""iCoT, "stepwise internalisation": chain of thought that is removed token by token (Deng et al.
2024, arXiv 2405.14838).

A stage removes the first `removed_tokens` tokens of the steps, plus a random offset per example
("removal smoothing", P(o) proportional to exp(-4 o)); under "all", everything but the answer.
Optimizer and schedule start afresh with each stage. Our reading: the offset is drawn once for each
example and stage, not at every visit.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from rim.methods.base import Method, Readout

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class ImplicitChainOfThought(Method):
    name = "icot"
    summary = "chain of thought, its tokens removed one after the other"
    objectives = ("solution", "remaining")
    removes = "tokens"

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        solution = encoder.solution_ids(example.steps, example.answer)
        if stage.objective == "solution":
            return [Readout(0, solution)]
        answer = encoder.answer_ids(example.answer)
        removed = stage.removed_tokens
        assert removed is not None, "the recipe's validator wants it"
        num_step_tokens = encoder.tokens_before_answer(solution, answer, example)
        if removed != "all":
            removed += _offset(stage.removal_smoothing, f"{stage.name}/{example.question}")
        if removed == "all" or removed >= num_step_tokens:
            return [Readout(0, answer)]
        return [Readout(0, solution[removed:])]


METHOD = ImplicitChainOfThought()


def _offset(smoothing: float, seed: str) -> int:
    """A draw from P(o) proportional to exp(-smoothing * o), o = 0, 1, 2 ..."""
    if smoothing == 0:
        return 0
    uniform = random.Random(seed).random()
    return int(math.log(1 - uniform) / -smoothing)
