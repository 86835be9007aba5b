"""Modules that a method has beside the transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from rim.config import PromptFormat
from rim.methods import METHODS


def add_modules(model: Any, prompt_format: PromptFormat, folder: Path | None = None) -> None:
    """Add the method's modules beside the transformers model; `folder`: where their weights may be
    already.
    """
    width = model.get_input_embeddings().weight.shape[1]
    for name, make in METHODS[prompt_format.method].extra_modules.items():
        if not hasattr(model, name):
            attach_module(model, name, make(width))
            if folder is not None:
                _load(model, name, folder)


def attach_module(model: Any, name: str, module: nn.Module) -> None:
    """Give a transformers model a module as a part of its own: trained and saved with it."""
    weight = model.get_input_embeddings().weight
    setattr(model, name, module.to(weight.device, weight.dtype))


def _load(model: Any, name: str, folder: Path) -> None:
    """Read the weights of a method's module, which transformers leaves out as unknown to the model;
    a base of another method has none, and the new ones stay.
    """
    weights = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (not a dict)
                if key.startswith(f"{name}."):
                    weights[key.removeprefix(f"{name}.")] = tensors.get_tensor(key)
    if weights:
        getattr(model, name).load_state_dict(weights)
