"""Coconut: continuous thoughts (Hao et al. 2024, arXiv 2412.06769).

Stage 0 ("solution") is chain of thought. Stage k ("remaining", removed_steps: k) drops the first k
steps and puts k blocks of c latents before the rest; in the last stage ("all") all steps are gone
and all K blocks are there. A latent's input is the last hidden state of the token before
(feedback "chain"). Under `framing: once` the start and end tokens are the paper's
<bot> and <eot>; in stage 0 there is neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rim.methods.base import BenchSetup, Method, Readout

if TYPE_CHECKING:
    from rim.config import MemoryConfig, StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class Coconut(Method):
    name = "coconut"
    summary = "hidden states fed back, one after the other"
    objectives = ("solution", "remaining")
    has_blocks = True
    removes = "steps"
    bench = BenchSetup(blocks=6, memory={"tokens": 1, "framing": "once"})

    def feedback(self, memory: MemoryConfig) -> Literal["chain"]:
        return "chain"

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        return remaining_steps(example, stage, encoder)


METHOD = Coconut()


def remaining_steps(example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Readout]:
    """The solution without its first steps, after as many blocks."""
    if stage.objective == "solution":
        return [Readout(0, encoder.solution_ids(example.steps, example.answer))]
    removed, blocks = stage.removed_steps, encoder.format.memory.blocks
    assert removed is not None, "the recipe's validator wants it"
    if removed == "all":
        return [Readout(blocks, encoder.answer_ids(example.answer))]
    rest = encoder.solution_ids(example.steps[removed:], example.answer)
    return [Readout(min(removed, blocks), rest)]
