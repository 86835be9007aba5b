"""LOTUS: parallel latents, looped through the model (arXiv 2606.31779).

K blocks of c latents run through the model `memory.passes` times; a latent's input is its embedding
plus its last hidden state of the pass before. In the last pass, token i of block k predicts token i
of step k (`in_place`, weighed by `step_weight`, 0.05 in the paper), and the answer follows the
blocks. The first stage ("solution") is chain of thought.

Our reading: a step longer than c tokens is cut off, steps beyond K have no block, blocks beyond T
no target; a step's own stop token is not predicted, because no step is decoded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rim.methods.base import BenchSetup, Method, Readout

if TYPE_CHECKING:
    from rim.config import MemoryConfig, StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class Lotus(Method):
    name = "lotus"
    summary = "parallel latents, looped through the model"
    objectives = ("solution", "steps")
    has_blocks = True
    may_loop = True
    steps_in_place = True
    bench = BenchSetup(blocks=6, memory={"tokens": 13, "framing": "once", "passes": 6})

    def check(self, memory: MemoryConfig) -> None:
        if memory.framing != "once":
            raise ValueError("lotus needs memory.framing: once (its latents stand side by side)")

    def blocks_needed(self, steps: int, stage: StageConfig) -> int:
        return max(1, steps)  # in place; the answer comes behind them

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        if stage.objective == "solution":
            return [Readout(0, encoder.solution_ids(example.steps, example.answer))]
        blocks = encoder.format.memory.blocks
        steps = [encoder.step_ids(step)[:-1] for step in example.steps[:blocks]]
        said = [
            Readout(k, ids[: len(encoder.block_ids)], is_step=True, in_place=True)
            for k, ids in enumerate(steps, 1)
        ]
        return [*said, Readout(blocks, encoder.answer_ids(example.answer))]


METHOD = Lotus()
