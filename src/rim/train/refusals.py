"""Examples and settings that a stage's model cannot train with; found before it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rim.config import ConfigError, Recipe, StageConfig
from rim.core.tokens import PromptEncoder
from rim.data.examples import DataError, Example
from rim.infer.decode import position_limit
from rim.train.memory import training_device


def refuse_too_long(
    examples: Sequence[Example], max_positions: Sequence[int] | np.ndarray, model: Any
) -> None:
    """Refuse an example that the model has no positions for."""
    limit = position_limit(model)
    if limit is None or np.max(max_positions, initial=0) < limit:
        return
    for example, position in zip(examples, max_positions, strict=True):
        if position >= limit:
            raise DataError(
                f"{example.origin}: too long, needs {position + 1} positions, "
                f"the model has {limit}; "
                "drop the example or use a model with more positions"
            )


def refuse_flex_without_gpu(recipe: Recipe) -> None:
    """torch computes flex attention on a CPU, but not its gradient."""
    cpu = any(training_device(stage).type == "cpu" for stage in recipe.stages)
    if recipe.model.attention == "flex_attention" and cpu:
        raise ConfigError(
            "model.attention: flex_attention trains on a GPU only, since torch has no gradient of "
            "it for CPUs; set model.attention: sdpa"
        )


def refuse_answers_without_opening(
    stage: StageConfig, encoder: PromptEncoder, example: Example
) -> None:
    """A block's last token sees the question. Where it predicts the answer's first token, blindness
    of the read-out is blindness in name only.
    """
    prompt = encoder.prompt(example.question, encoder.format.trained_blocks)
    if stage.blind_readouts and not encoder.answer_has_opening(prompt):
        raise ConfigError(
            f"stage {stage.name!r}: blind_readouts needs a token of the read-out's own before the "
            "answer, or the last block (which sees the question) says it; set templates.answer to "
            'something like "#{answer}", or use a chat model, whose header opens the answer'
        )
