"""CODI: self-distillation of chain of thought into latents (Shen et al. 2025, arXiv 2502.21074).

One pass holds both: the teacher is the read-out after the question (steps, answer), the student the
read-out after the latents (answer). Both are trained by cross-entropy, and the student's hidden
states at the token before the answer, all layers, are drawn to the teacher's, which are not
(`rim.core.losses.distillation_loss`). Latents are fed back through a projection. As in CODI the last
step is left out of the teacher's solution (`drop_last_step`): it states the answer.
"""

from rim.config import StageConfig
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.methods.base import Target


class Codi:
    def targets(self, example: Example, stage: StageConfig, encoder: PromptEncoder) -> list[Target]:
        steps = example.steps[:-1] if stage.drop_last_step else example.steps
        solution = encoder.solution_ids(steps, example.answer)
        answer = encoder.answer_ids(example.answer)
        marker = encoder.num_marker_tokens
        return [
            Target(0, solution, marked=len(solution) - len(answer) + marker),
            Target(encoder.format.memory.blocks, answer, marked=marker),
        ]
