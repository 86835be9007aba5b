"""What differs between model families, in ONE table, and what does not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """The differences between architectures; looked up by `config.model_type` only."""

    dropout_fields: tuple[str, ...] = ("attention_dropout",)
    fan_in_fan_out: bool = False  # GPT-2's Conv1D stores its weight transposed
    flex_attention: bool = True


FAMILIES = {
    "gpt2": Family(
        ("attn_pdrop", "embd_pdrop", "resid_pdrop"), fan_in_fan_out=True, flex_attention=False
    ),
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
}


def family_of(model_type: str) -> Family:
    """Facts of a family; an unknown one gets those that most decoders share."""
    return FAMILIES.get(model_type, Family())
