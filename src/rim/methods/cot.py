"""SFT with chain of thought: question, steps and answer as one read-out."""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class ChainOfThought:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        return [Target(0, encoder.solution_ids(example.steps, example.answer))]
