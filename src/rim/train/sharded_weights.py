"""Weights of which every process holds a shard, as FSDP2 keeps them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Generator, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Trainer

from rim.config import ConfigError, StageConfig

#: How accelerate hears of FSDP; it sets this itself, too.
_SWITCH = "ACCELERATE_USE_FSDP"
#: What an `fsdp_config` may not hold, and why.
_REFUSED = {
    "activation_checkpointing": "it draws dropout anew; set gradient_checkpointing: true",
    "cpu_offload": "gradients are clipped on the GPU",
    "cpu_ram_efficient_loading": "every process loads the weights that it shards",
    "state_dict_type": "checkpoints stay in shards",
    "xla": "only torch's own FSDP2 is supported",
}


def with_sharding(settings: dict[str, Any]) -> dict[str, Any]:
    """Training arguments with what FSDP2 needs, if they have `fsdp`: checkpoints in shards, and
    gradients in shards between the parts of an accumulated batch, too.
    """
    if not settings.get("fsdp"):
        return settings
    shards = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
    parts = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return settings | {
        "fsdp_config": (settings.get("fsdp_config") or {}) | shards,
        "accelerator_config": settings["accelerator_config"] | parts,
    }


def refuse_stages(stages: Sequence[StageConfig]) -> None:
    """Refuse what the stages' settings tell before there is a model.

    Raises:
        ConfigError: FSDP without a launcher, or in some of the stages (accelerate remembers the
            first FSDP of a process), or with settings that fail.
    """
    sharded = [stage for stage in stages if stage.trainer.get("fsdp")]
    if not sharded:
        return
    if os.environ.get(_SWITCH, "").lower() == "true":
        raise ConfigError(
            "FSDP is a setting of the recipe's stages, not of the launcher: leave out --use_fsdp"
        )
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "trainer: fsdp is for processes that a launcher starts: `torchrun --nproc-per-node N "
            "--no-python rim train ...` (docs/scaling.md)"
        )
    for stage in stages:
        if stage not in sharded:
            problem = "another stage's trainer has fsdp; set it in every stage or in none"
        elif stage.trainer["fsdp"] is not True:
            problem = "write fsdp: true; what else there is stands in fsdp_config"
        elif stage.micro_batch_size == "auto":
            problem = "with fsdp, state micro_batch_size; it is found by trial in one process alone"
        elif stage.trainer.get("eval_on_start"):
            problem = "fsdp cannot validate before it trains; leave eval_on_start out"
        elif (problem := _of_config(stage.trainer.get("fsdp_config"))) is None:
            continue
        raise ConfigError(f"stage {stage.name!r}: {problem}")


def _of_config(config: Any) -> str | None:
    if not isinstance(config, dict | None):
        return "write fsdp_config into the recipe, so that the run folder has it"
    given = {name.removeprefix("fsdp_"): value for name, value in (config or {}).items()}
    if given.get("version", 2) != 2:
        return "fsdp_config: version 2 alone is supported"
    for name, reason in _REFUSED.items():
        if given.get(name):
            return f"leave {name} out of fsdp_config: {reason}"
    return None


def settle_sharding(trainer: Trainer, feeds_back: bool) -> None:
    """Refuse what would not shard, or fail at its end; let gradients be summed in float32.

    Raises:
        ConfigError: this model or machine cannot be trained so.
    """
    asked, shards = bool(trainer.args.fsdp), trainer.is_fsdp_enabled
    if asked and not shards:
        raise ConfigError(
            "trainer: fsdp shards nothing here (accelerate does so on GPUs alone); leave it out: "
            "each process then keeps the whole model"
        )
    if shards and not asked:
        raise ConfigError(
            "FSDP is a setting of the recipe's stages (trainer: {fsdp: true}), not of the launcher"
        )
    if trainer.is_deepspeed_enabled:
        zero = trainer.accelerator.deepspeed_config.get("zero_optimization", {}).get("stage", 0)
        if zero == 3:
            raise ConfigError(
                "trainer: DeepSpeed's stage 3 is not supported; take stage 2, or fsdp"
            )
    if not shards:
        return
    if feeds_back:
        raise ConfigError(
            "trainer: fsdp cannot train a method that feeds hidden states back: between its passes "
            "the embeddings are in shards. Leave it out: each process then keeps the whole model"
        )
    if getattr(trainer.model, "is_quantized", False):
        raise ConfigError("trainer: fsdp does not shard weights in 4 bits; leave fsdp out")
    plugin: Any = trainer.accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32
        )


@contextlib.contextmanager
def forgetting_sharding() -> Generator[None]:
    """Restore the environment afterwards, or this process's next training would be sharded too."""
    before = os.environ.get(_SWITCH)
    try:
        yield
    finally:
        os.environ.pop(_SWITCH, None)
        if before is not None:
            os.environ[_SWITCH] = before


def whole_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """All weights by name, in the first process, where each holds a shard; all processes must ask.
    None where the model has them.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


@contextlib.contextmanager
def embedding_with_head(trainer: Trainer) -> Generator[None]:
    """While accelerate shards an adapted model, keep embedding and vocabulary head in one group.

    accelerate gives each a group of its own, unless their weights are one object. Those of peft's
    trainable rows are made when asked for, so that a tied matrix would be sharded twice (accelerate
    1.15). With neither to be found, both go into the group of the whole model.
    """
    model: Any = trainer.model
    adapted = trainer.is_fsdp_enabled and isinstance(model, PeftModel)
    if not (adapted and model.config.get_text_config().tie_word_embeddings):
        yield
        return
    names = ("get_input_embeddings", "get_output_embeddings")
    for name in names:
        setattr(model, name, lambda: None)
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)
