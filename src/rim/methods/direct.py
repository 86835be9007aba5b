"""SFT without chain of thought: question, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rim.methods.base import BenchSetup, Method, Readout

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class Direct(Method):
    name = "direct"
    summary = "answer at once"
    bench = BenchSetup(baseline=True)

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        return [Readout(0, encoder.answer_ids(example.answer))]


METHOD = Direct()
