"""SFT without chain of thought: question, answer."""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class Direct:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        return [Target(0, encoder.answer_ids(example.answer))]
