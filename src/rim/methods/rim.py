"""Reasoning in Memory: a read-out after every block (arXiv 2605.30343).

Stage 1 ("steps"): with steps r_1..r_T and answer y,
- `next_step`, the paper's alignment: T blocks, block t says r_{t+1} and block T says y;
- `own_step`: T + 1 blocks, block t says r_t and block T + 1 says y.
With `surplus_blocks: answer` (ours) the blocks up to K that are left over say y as well, so stage 1
already runs with K blocks. Stage 2 ("answer"): all K blocks say y.
"""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class ReasoningInMemory:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        blocks = encoder.format.memory.blocks
        answer_ids = encoder.answer_ids(example.answer)
        if stage.objective == "answer":
            return [Target(k, answer_ids) for k in range(1, blocks + 1)]
        steps = example.steps[1:] if stage.alignment == "next_step" else example.steps
        targets = [
            Target(k, encoder.step_ids(step), is_step=True) for k, step in enumerate(steps, 1)
        ]
        last = len(steps) + 1
        if stage.surplus_blocks == "answer":
            last = max(last, blocks)
        return [*targets, *(Target(k, answer_ids) for k in range(len(steps) + 1, last + 1))]
