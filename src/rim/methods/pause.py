"""Pause tokens: learned tokens of no meaning after the question, which only give time.

Plain ("answer"; Goyal et al. 2023, arXiv 2310.02226): all K blocks, then the answer. With the
curriculum of Coconut ("remaining"), the control "pause as thought" of that paper: the same stages,
the latents replaced by tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rim.methods.base import BenchSetup, Method, Readout
from rim.methods.coconut import remaining_steps

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class Pause(Method):
    name = "pause"
    summary = "learned tokens that only give time"
    objectives = ("answer", "solution", "remaining")
    has_blocks = True
    removes = "steps"
    bench = BenchSetup(blocks="swept", memory={"framing": "none"})

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        if stage.objective == "answer":
            return [Readout(encoder.format.memory.blocks, encoder.answer_ids(example.answer))]
        return remaining_steps(example, stage, encoder)


METHOD = Pause()
