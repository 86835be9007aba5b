"""Weights of which every process holds a shard, as FSDP2 keeps them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import Trainer

from rim.config import ConfigError, StageConfig


def sharding_settings(trainer: dict[str, Any]) -> dict[str, Any]:
    """A stage's `fsdp_config` with our default, for its training arguments."""
    config = trainer.get("fsdp_config") or {}
    if not trainer.get("fsdp") or not isinstance(config, dict):
        return {}
    return {"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"} | config}


def refuse_stages(stages: Sequence[StageConfig]) -> None:
    """Refuse what the stages' `trainer` settings tell before there is a model.

    Raises:
        ConfigError: FSDP without a launcher, or in some of the stages (accelerate remembers the
            first FSDP of a process).
    """
    with_fsdp = [bool(stage.trainer.get("fsdp")) for stage in stages]
    if any(with_fsdp) and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "trainer: fsdp is for processes that a launcher starts: `torchrun --nproc-per-node N "
            "--no-python rim train ...` (docs/scaling.md)"
        )
    if any(with_fsdp) and not all(with_fsdp):
        raise ConfigError(
            f"stage {stages[with_fsdp.index(False)].name!r}: another stage's trainer has fsdp; set "
            "it in every stage or in none"
        )


def refuse_sharding(trainer: Trainer, feeds_back: bool) -> None:
    """Refuse what would train nothing of the kind, or fail at its end.

    Raises:
        ConfigError: these settings cannot be trained with.
    """
    if not trainer.is_fsdp_enabled:
        if trainer.args.fsdp:
            raise ConfigError(
                "trainer: fsdp shards nothing here (accelerate does so on GPUs alone); leave it "
                "out: each process then keeps the whole model"
            )
        return
    plugin: Any = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigError("trainer: FSDP 1 is not supported; set fsdp_config: {version: 2}")
    if feeds_back:
        raise ConfigError(
            "trainer: fsdp cannot train a method that feeds hidden states back: between its passes "
            "the embeddings are in shards. Leave it out: each process then keeps the whole model"
        )
    if isinstance(trainer.model, PeftModel) and "FULL" in str(plugin.state_dict_type):
        # accelerate would look for a tied matrix's rows under both of its names.
        raise ConfigError(
            "trainer: an adapter's checkpoints stay in shards; set fsdp_config: {state_dict_type: "
            "SHARDED_STATE_DICT}, the default"
        )


def whole_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """All weights by name, in the first process, where each holds a shard; all processes must ask.
    None where the model has them.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


@contextlib.contextmanager
def embedding_with_head(model: Any) -> Generator[None]:
    """While accelerate shards an adapted model, keep embedding and vocabulary head in one group.

    accelerate gives each a group of its own, unless their weights are one object. Those of peft's
    trainable rows are made when asked for, so that a tied matrix would be sharded twice (accelerate
    1.15). With neither to be found, both go into the group of the whole model.
    """
    if not (isinstance(model, PeftModel) and model.config.get_text_config().tie_word_embeddings):
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
