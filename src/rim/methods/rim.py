"""Reasoning in Memory: a read-out after every block (arXiv 2605.30343).

Stage 1 ("steps"): with steps r_1..r_T and answer y,
- `next_step`, the paper's alignment: T blocks, block t says r_{t+1} and block T says y;
- `own_step`: T + 1 blocks, block t says r_t and block T + 1 says y.
With `surplus_blocks: answer` (ours) the blocks up to K that are left over say y as well, so stage 1
already runs with K blocks. Stage 2 ("answer"): all K blocks say y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rim.methods.base import BenchSetup, Method, Readout

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example


class ReasoningInMemory(Method):
    name = "rim"
    summary = "memory blocks, a read-out after each"
    objectives = ("steps", "answer")
    has_blocks = True
    may_loop = True
    bench = BenchSetup(blocks="swept")

    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> list[Readout]:
        blocks = encoder.format.memory.blocks
        answer_ids = encoder.answer_ids(example.answer)
        if stage.objective == "answer":
            return [Readout(k, answer_ids) for k in range(1, blocks + 1)]
        steps = example.steps[1:] if stage.alignment == "next_step" else example.steps
        said = [Readout(k, encoder.step_ids(step), is_step=True) for k, step in enumerate(steps, 1)]
        last = len(steps) + 1
        if stage.surplus_blocks == "answer":
            last = max(last, blocks)
        return [*said, *(Readout(k, answer_ids) for k in range(len(steps) + 1, last + 1))]


METHOD = ReasoningInMemory()
