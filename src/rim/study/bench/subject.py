"""The model that is timed: random weights of given sizes, or a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from rim.config import ConfigError, MemoryConfig, ModelConfig, PromptFormat, ScratchConfig
from rim.core.layers import unwrap
from rim.infer.reasoner import load
from rim.models.loading import load_base
from rim.models.lora import count_parameters

DTYPES = ("float32", "bfloat16", "float16")
#: Settings of blocks that not every method may have.
_OF_THE_METHOD = ("framing", "passes", "attention", "readouts_see_question")


@dataclass(frozen=True)
class TimedModel:
    """The model that is timed. All methods share it, so they differ in what they do alone.

    `prompt_format` is that of its training; random weights have the default one.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    prompt_format: PromptFormat
    description: dict[str, Any]

    def memory_for(self, method: str) -> MemoryConfig:
        """The model's own blocks; for another method without what its own method alone may have."""
        own = self.prompt_format
        if method == own.method:
            return own.memory
        default = MemoryConfig()
        kept = {name: getattr(default, name) for name in _OF_THE_METHOD}
        return own.memory.model_copy(update=kept)


def scratch_subject(
    name: str, scratch: ScratchConfig, device: str, dtype: str = "float32", seed: int = 0
) -> TimedModel:
    """A model of these sizes with random weights; `vocab_size` is that of its output matrix."""
    prompt_format = PromptFormat()
    config = ModelConfig(scratch=scratch, tuning="full")
    model, tokenizer = load_base(config, prompt_format, (), seed)
    # The tokenizer has bytes alone; the rows that it lacks cost time like any other.
    if scratch.vocab_size > len(tokenizer):
        model.resize_token_embeddings(scratch.vocab_size, mean_resizing=False)
    return _subject(name, "random", model, tokenizer, prompt_format, device, dtype)


def trained_subject(folder: Path, device: str, dtype: str = "float32") -> TimedModel:
    """A trained model: a run folder or a model folder."""
    found = load(folder)
    tokenizer, prompt_format = found.encoder.tokenizer, found.encoder.format
    return _subject(str(folder), "trained", found.model, tokenizer, prompt_format, device, dtype)


def _subject(
    name: str,
    weights: Literal["random", "trained"],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: PromptFormat,
    device: str,
    dtype: str,
) -> TimedModel:
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    try:
        model = model.eval().to(device=device, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"the model cannot be moved to the device {device!r}: {error}; try --device cpu"
        ) from None
    config = unwrap(model).config
    description = {
        "name": name,
        "weights": weights,
        "parameters": count_parameters(model)["total"],
        "vocabulary": model.get_input_embeddings().weight.shape[0],
        "family": config.model_type,
        "attention": config._attn_implementation,
        "dtype": dtype,
        "device": str(model.device),
    }
    return TimedModel(model, tokenizer, prompt_format, description)
