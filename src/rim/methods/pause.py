"""Pause tokens: learned tokens of no meaning after the question, which only give time.

Plain ("answer"; Goyal et al. 2023, arXiv 2310.02226): all K blocks, then the answer. With the
curriculum of Coconut ("remaining"), the control "pause as thought" of that paper: the same stages,
the latents replaced by tokens.
"""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target
from rim.methods.coconut import Coconut


class Pause:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        if stage.objective == "answer":
            return [Target(encoder.format.memory.blocks, encoder.answer_ids(example.answer))]
        return Coconut().targets(example, stage, encoder)
