"""Validation during training: answers, as anybody would ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rim.config import Recipe
from rim.core.layout import Layout
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.infer.answers import grade
from rim.infer.decode import generate
from rim.train.trainer import Score


def validation_score(
    recipe: Recipe, encoder: PromptEncoder, examples: Sequence[Example], layouts: Sequence[Layout]
) -> Score:
    """Accuracy after the last block that the stage trains for each example."""
    last_blocks = [layout.trunk.num_blocks for layout in layouts]
    settings = recipe.validation

    def score(model: Any) -> dict[str, float]:
        generated = generate(
            model,
            encoder,
            [example.question for example in examples],
            blocks=last_blocks,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )
        right = sum(
            grade(texts[-1].text, example, encoder, finished=texts[-1].finished)
            for texts, example in zip(generated, examples, strict=True)
        )
        return {"accuracy": right / len(examples)}

    return score


def best_validation(state: Any) -> dict[str, Any]:
    """Accuracy of the step whose weights a stage ends with."""
    step = state.best_global_step
    logs = [log for log in state.log_history if log["step"] == step and "eval_accuracy" in log]
    return {"step": step, "accuracy": logs[-1]["eval_accuracy"] if logs else None}
