"""LOTUS: parallel latents, looped through the model (arXiv 2606.31779).

K blocks of c latents run through the model `memory.passes` times; a latent's input is its embedding
plus its last hidden state of the pass before. In the last pass, token i of block k predicts token i
of step k (`in_place`, weighed by `step_weight`, 0.05 in the paper), and the answer follows the
blocks. The first stage ("solution") is chain of thought.

Our reading: a step longer than c tokens is cut off, steps beyond K have no block, blocks beyond T
no target; a step's own stop token is not predicted, because no step is decoded here.
"""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class Lotus:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        if stage.objective == "solution":
            return [Target(0, encoder.solution_ids(example.steps, example.answer))]
        memory = encoder.format.memory
        steps = [encoder.step_ids(step)[:-1] for step in example.steps[: memory.blocks]]
        targets = [
            Target(k, ids[: len(encoder.block_ids)], is_step=True, in_place=True)
            for k, ids in enumerate(steps, 1)
        ]
        return [*targets, Target(memory.blocks, encoder.answer_ids(example.answer))]
