"""Coconut: continuous thoughts (Hao et al. 2024, arXiv 2412.06769).

Stage 0 ("solution") is chain of thought. Stage k ("remaining", removed_steps: k) drops the first k
steps and puts k blocks of c latents before the rest; in the last stage ("all") all steps are gone
and all K blocks are there. A latent's input is the last hidden state of the token before
(`PromptFormat.feedback` "chain"). Under `framing: once` the start and end tokens are the paper's
<bot> and <eot>; in stage 0 there is neither.
"""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class Coconut:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        if stage.objective == "solution":
            return [Target(0, encoder.solution_ids(example.steps, example.answer))]
        removed, blocks = stage.removed_steps, encoder.format.memory.blocks
        assert removed is not None, "the recipe's validator wants it"
        if removed == "all":
            return [Target(blocks, encoder.answer_ids(example.answer))]
        rest = encoder.solution_ids(example.steps[removed:], example.answer)
        return [Target(min(removed, blocks), rest)]
