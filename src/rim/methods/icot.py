"""iCoT, "stepwise internalisation": chain of thought that is removed token by token (Deng et al.
2024, arXiv 2405.14838).

A stage removes the first `removed_tokens` tokens of the steps, plus a random offset per example
("removal smoothing", P(o) proportional to exp(-4 o)); under "all", everything but the answer.
Optimizer and schedule start afresh with each stage. Our reading: the offset is drawn once for each
example and stage, not at every visit.
"""

import math
import random

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class ImplicitChainOfThought:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        solution = encoder.solution_ids(example.steps, example.answer)
        if stage.objective == "solution":
            return [Target(0, solution)]
        answer = encoder.answer_ids(example.answer)
        removed = stage.removed_tokens
        assert removed is not None, "the recipe's validator wants it"
        num_step_tokens = max(0, len(solution) - len(answer))
        if removed != "all":
            removed += _offset(stage.removal_smoothing, f"{stage.name}/{example.question}")
        if removed == "all" or removed >= num_step_tokens:
            return [Target(0, answer)]
        return [Target(0, solution[removed:])]


def _offset(smoothing: float, seed: str) -> int:
    """A draw from P(o) proportional to exp(-smoothing * o), o = 0, 1, 2 ..."""
    if smoothing == 0:
        return 0
    uniform = random.Random(seed).random()
    return int(math.log(1 - uniform) / -smoothing)
