"""SFT with chain of thought: question, steps and answer as one read-out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rim.methods.base import BenchSetup, Method, Readout

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class ChainOfThought(Method):
    name = "cot"
    summary = "write the steps, then the answer"
    objectives = ("solution",)
    bench = BenchSetup(writes_steps=True)

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        return [Readout(0, encoder.solution_ids(example.steps, example.answer))]


METHOD = ChainOfThought()
