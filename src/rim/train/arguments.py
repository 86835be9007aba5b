"""A stage's settings in transformers' terms, and those that its `trainer` passes on as they are."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from rim.config import ConfigError, Recipe, StageConfig
from rim.config.stages import TRAINER_OWN
from rim.core.layers import unwrap
from rim.train.processes import micro_batch, process_count
from rim.train.seeds import stage_seed
from rim.train.sharded_weights import refuse_stages, with_sharding

_FIELDS = {field.name for field in dataclasses.fields(TrainingArguments)}
#: The name of gradient checkpointing in this transformers (renamed in 5.23).
CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in _FIELDS
)


def _free_settings(evaluate_every: int) -> dict[str, Any]:
    """Return the settings that are ours unless a stage's `trainer` says otherwise."""
    return {
        "logging_steps": max(1, min(10, evaluate_every)),
        "save_total_limit": 2,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "accelerator_config": {"non_blocking": torch.cuda.is_available()},  # from pinned memory
        # A parameter that a batch leaves out is an error here, not a reason to search every step.
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.accelerator.is_available(),  # bf16 asks for a GPU unless told
    }


def check_trainer_settings(stages: Sequence[StageConfig]) -> None:
    """Try every stage's settings before the first one trains.

    Raises:
        ConfigError: a name that this transformers does not know, a value that it refuses, or a
            batch that the processes cannot share.
    """
    refuse_stages(stages)
    known = _FIELDS - TRAINER_OWN.keys()
    for stage in stages:
        micro_batch(stage, process_count())
        for name in stage.trainer:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise ConfigError(
                    f"stage {stage.name!r}: trainer has {name!r}, which transformers' "
                    f"TrainingArguments does not know{hint}"
                )
        try:
            # A copy: it writes defaults into what it gets.
            settings = _free_settings(1) | copy.deepcopy(stage.trainer)
            arguments = TrainingArguments(**with_sharding(settings))
            if "optim" in stage.trainer:  # an optimizer's own package is looked for only there
                Trainer.get_optimizer_cls_and_kwargs(arguments, torch.nn.Linear(2, 2))  # type: ignore[arg-type]
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(
                f"stage {stage.name!r}: transformers refuses its trainer settings "
                f"{stage.trainer}: {error}"
            ) from None


def training_arguments(
    recipe: Recipe,
    stage: StageConfig,
    index: int,
    folder: Path,
    num_examples: int,
    *,
    weights: str | None = None,
) -> TrainingArguments:
    """A stage's settings in transformers' terms.

    Args:
        weights: the type that the loaded model has; `model.dtype` if left out.
    """
    weights = weights or recipe.model.dtype
    if stage.bf16 is True and weights == "bfloat16":
        raise ConfigError(
            f"stage {stage.name!r}: bf16 mixed precision wants float32 weights, "
            f"but they are bfloat16 (model.dtype: {recipe.model.dtype})"
        )
    every = stage.validation_interval(num_examples)
    transformers_logging.disable_progress_bar()
    processes = process_count()
    micro = micro_batch(stage, processes)
    checkpointing: dict[str, Any] = {CHECKPOINTING: True} if stage.gradient_checkpointing else {}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.max_steps or -1,
        num_train_epochs=stage.epochs or 1.0,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=recipe.validation.batch_size,
        gradient_accumulation_steps=stage.batch_size // (micro * processes),
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        lr_scheduler_kwargs={"min_lr_rate": 0.1} if stage.scheduler == "cosine_with_min_lr" else {},
        warmup_steps=stage.warmup,
        weight_decay=stage.weight_decay,
        adam_beta1=stage.betas[0],
        adam_beta2=stage.betas[1],
        max_grad_norm=stage.max_grad_norm,
        bf16=mixed_precision(stage, weights),
        **checkpointing,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model="eval_selection",
        greater_is_better=True,
        logging_nan_inf_filter=False,
        label_names=["targets"],
        prediction_loss_only=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=list(recipe.report_to) or "none",
        run_name=f"{recipe.name}-{stage.name}",
        seed=stage_seed(recipe.seed, index),
        data_seed=stage_seed(recipe.seed, index),
        **with_sharding(_free_settings(every) | copy.deepcopy(stage.trainer)),
    )
    if arguments.n_gpu > 1:
        # transformers would split every batch among the GPUs in one process (nn.DataParallel),
        # which knows nothing of our batches. Several GPUs want a process each.
        arguments._n_gpu = 1
    return arguments


def multiplies_bfloat16() -> bool:
    """Whether this machine has instructions for bfloat16 products.

    Without them (x86 processors before AVX512-BF16, GPUs before Ampere) they are emulated, far
    slower than products in float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.accelerator.is_available():
        return True
    return any(
        present for feature, present in torch.cpu.get_capabilities().items() if "bf16" in feature
    )


def weights_type(model: Any) -> str:
    """The type of a loaded model's weights, as `model.dtype` names it."""
    return str(unwrap(model).dtype).removeprefix("torch.")


def mixed_precision(stage: StageConfig, weights: str) -> bool:
    """Whether a stage computes in bfloat16 over weights of this type."""
    if stage.bf16 == "auto":
        return weights == "float32" and multiplies_bfloat16()
    return stage.bf16
