"""SFT with chain of thought: question, steps and answer as one read-out."""

from rim.config import StageConfig
from rim.data.examples import Example
from rim.methods.base import Target
from rim.tokens import PromptEncoder


class ChainOfThought:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        return [Target(0, encoder.solution_ids(example.steps, example.answer))]
