"""What of a model trains: everything, or LoRA adapters and the memory tokens' rows."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from rim.config import ConfigError, ModelConfig
from rim.models.families import family_of
from rim.models.quantised import weights_of


def prepare_for_training(
    model: PreTrainedModel,
    config: ModelConfig,
    memory_ids: list[int],
    dropout: float,
    modules: Collection[str] = (),
) -> PreTrainedModel | PeftModel:
    """Full fine-tuning returns the model; LoRA wraps it, training the adapters and the three new
    rows only.

    Args:
        modules: a method's own modules: they are new, so they train whole and get no adapter.
    """
    if config.tuning == "full":
        model.requires_grad_(True)  # a merged adapter leaves its base frozen
        set_dropout(model, dropout)
        return model
    set_dropout(model, 0.0)  # the base's own would stay on: a recipe's dropout is the adapters'
    # peft gives two targets "all-linear": every linear layer but the head, Conv1D included.
    targets = (
        config.lora.targets if isinstance(config.lora.targets, str) else list(config.lora.targets)
    )
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=dropout,
        target_modules=targets,
        fan_in_fan_out=family_of(model.config.model_type).fan_in_fan_out,
        trainable_token_indices=list(memory_ids),
        exclude_modules=rf".*({'|'.join(modules)}).*" if modules else None,
        modules_to_save=list(modules) or None,
    )
    try:
        return slim_saving(get_peft_model(model, lora))
    except ValueError as error:
        raise ConfigError(f"model.lora does not fit this model: {error}") from None


def slim_saving(model: Any) -> PeftModel:
    """Leave the embedding matrices out of every save: the adapter has the new rows."""
    model.save_pretrained = functools.partial(model.save_pretrained, save_embedding_layers=False)
    return model


def set_dropout(model: Any, dropout: float) -> None:
    """Set the family's dropouts on a live model: config fields, modules and attributes alike."""
    for field in family_of(model.config.model_type).dropout_fields:
        if hasattr(model.config, field):
            setattr(model.config, field, dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        else:  # a number that the module's forward hands on, OPT's as `dropout`
            for name in ("attention_dropout", "dropout"):
                if isinstance(getattr(module, name, None), int | float):
                    setattr(module, name, dropout)


def set_adapter_dropout(model: Any, dropout: float) -> None:
    """Set the dropout of every LoRA layer (peft puts an Identity where it was created with 0)."""
    for module in model.modules():
        adapters = getattr(module, "lora_dropout", None)
        if isinstance(adapters, torch.nn.ModuleDict):
            for name in adapters:
                new = torch.nn.Dropout(dropout) if dropout else torch.nn.Identity()
                adapters[name] = new.train(module.training)
    for config in model.peft_config.values():
        config.lora_dropout = dropout


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """All parameters and those that train."""
    total = sum(weights_of(p) for p in model.parameters())
    return {
        "total": total,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
