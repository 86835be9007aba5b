"""A base in 4 bits under adapters (QLoRA), by bitsandbytes.

The base's linear layers are rounded to 4 bits while they are loaded and stay as they are; what
trains, the adapters and the memory tokens' rows, and the embeddings and the output head keep
`model.dtype`, in which products are computed too. Source: arXiv 2305.14314 (NF4, double
quantisation); which layers is transformers' choice.

The adapters have learned beside the rounded weights. So where they are merged (answering, export),
the base is first made of these very weights: it is rounded again and written out in `model.dtype`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from rim.config import ConfigError, ModelConfig
from rim.models.families import family_of
from rim.models.folder import has_adapter


def loading_options(config: ModelConfig, folder: Path | None) -> dict[str, Any]:
    """What transformers has to know to load a base as `model.quantize` says.

    Args:
        folder: the base's, if it is here.

    Raises:
        ConfigError: bitsandbytes is not installed; the base is an adapter.
    """
    if config.quantize is None:
        return {}
    if folder and has_adapter(folder):
        raise ConfigError(
            f"model.quantize rounds weights while they are loaded, and {config.base!r} is an "
            "adapter; write it as a model first (rim export) and take that as the base"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.quantize: 4bit needs bitsandbytes (pip install 'reasoning-in-memory[qlora]'); "
            "without it leave quantize out, and set model.dtype: bfloat16 to save half the memory"
        )
    compute = torch.bfloat16 if config.dtype == "auto" else getattr(torch, config.dtype)
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": quantisation}


def refuse_transposed(model: Any, config: ModelConfig) -> None:
    """Refuse families whose weights bitsandbytes would turn around, and not turn back."""
    family = model.config.model_type
    if config.quantize and family_of(family).fan_in_fan_out:
        raise ConfigError(
            f"{family} models keep their weights transposed, and would not come back from 4 bits; "
            "leave model.quantize out, they are small"
        )


def dequantised(model: Any) -> Any:
    """The model with the weights that its 4 bits stand for; others as they are."""
    return model.dequantize() if getattr(model, "is_quantized", False) else model


def weights_of(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; two of 4 bits lie in one byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
