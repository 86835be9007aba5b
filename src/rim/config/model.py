"""Settings of the model: where it comes from and what of it trains."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from rim.config.base import PositiveFloat, PositiveInt, Settings

Attention = Literal["sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"]


class ScratchConfig(Settings):
    """A model built from nothing, with a byte-level BPE tokenizer trained on the training texts."""

    family: Literal["gpt2", "llama", "qwen3"] = "llama"
    layers: PositiveInt = 6
    width: PositiveInt = 96
    heads: PositiveInt = 4
    key_value_heads: PositiveInt | None = None  # as many as heads if left out; not for gpt2
    feed_forward: PositiveInt | None = None
    max_positions: PositiveInt = 512
    vocab_size: PositiveInt = 512
    alphabet: Literal["bytes", "data"] = "bytes"  # see rim.models.scratch.train_tokenizer
    initializer_range: PositiveFloat | None = (
        None  # the family's if left out, see rim.models.scratch
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.family != "gpt2" and self.width // self.heads % 2:
            raise ValueError(
                f"width {self.width} / heads {self.heads} is odd; rotary positions need even heads"
            )
        if self.key_value_heads and (self.family == "gpt2" or self.heads % self.key_value_heads):
            raise ValueError(
                f"key_value_heads {self.key_value_heads} must divide heads {self.heads}, and "
                "gpt2 has none of its own"
            )
        return self


class LoraSettings(Settings):
    """Rank is the paper's; alpha and targets are not given there: 32 and all linear layers are
    ours.
    """

    rank: PositiveInt = 128
    alpha: PositiveInt = 32
    targets: str | tuple[str, ...] = "all-linear"


class ModelConfig(Settings):
    """Either `base` (hub id, folder, run folder, GGUF file, or `package:NAME`: the GGUF file inside
    an installed Python package) or `scratch`.

    revision: the hub's; of a GGUF file the beginning of its SHA-256.
    readouts: "parallel" runs all read-outs of an example in one pass, under our mask; "separate"
    each as a row of its own, which is right for every causal model; "auto" measures on an example
    whether parallel is right, and takes separate where it is not
    (`rim.train.parallel_or_separate`).
    quantize: "4bit" rounds the base's linear layers, and adapters train beside them (QLoRA).
    """

    base: str | None = None
    revision: str | None = None
    scratch: ScratchConfig | None = None
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    attention: Attention = "sdpa"
    readouts: Literal["auto", "parallel", "separate"] = "auto"
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    quantize: Literal["4bit"] | None = None
    trust_remote_code: bool = False

    @property
    def takes_our_mask(self) -> bool:
        """Whether attention can express the mask of parallel read-outs; flash attention cannot."""
        return not self.attention.startswith("flash")

    @model_validator(mode="after")
    def _flash_is_plain(self) -> Self:
        if not self.takes_our_mask and self.readouts == "parallel":
            raise ValueError(
                f"attention {self.attention!r} cannot express the read-out mask; use sdpa, eager "
                "or flex_attention, or readouts: separate"
            )
        if not self.takes_our_mask and self.dtype != "bfloat16":
            raise ValueError(f"attention {self.attention!r} is for dtype: bfloat16 only")
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("give exactly one of 'base' and 'scratch'")
        if self.scratch is not None and self.tuning == "lora":
            raise ValueError("a model from scratch has nothing to adapt: set tuning: full")
        if self.quantize and (self.tuning == "full" or self.scratch is not None):
            raise ValueError(
                "4 bits cannot train: quantize needs a base and tuning: lora, or leave it out"
            )
        return self
