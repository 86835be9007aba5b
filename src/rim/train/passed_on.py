"""A stage's `trainer`: settings that go to transformers' TrainingArguments as they are."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from rim.config import ConfigError, StageConfig
from rim.config.stages import TRAINER_OWN


def free_settings(evaluate_every: int) -> dict[str, Any]:
    """Ours, unless a stage's `trainer` says otherwise."""
    return {
        "logging_steps": max(1, min(10, evaluate_every)),
        "save_total_limit": 2,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),  # bf16 asks for a GPU unless told
    }


def check_trainer_settings(stages: Sequence[StageConfig]) -> None:
    """Try every stage's settings before the first one trains.

    Raises:
        ConfigError: a name that this transformers does not know, or a value that it refuses.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments)} - TRAINER_OWN.keys()
    for stage in stages:
        for name in stage.trainer:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise ConfigError(
                    f"stage {stage.name!r}: trainer has {name!r}, which transformers' "
                    f"TrainingArguments does not know{hint}"
                )
        try:
            TrainingArguments(**free_settings(1) | stage.trainer)
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(
                f"stage {stage.name!r}: transformers refuses its trainer settings "
                f"{stage.trainer}: {error}"
            ) from None
