"""The weights of an exported folder under llama.cpp's names and in its layout.

Shape legend: V tokens, O outputs of a matrix, I inputs of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Stored
from safetensors import safe_open
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rim.deploy.export.gguf.vocabulary import refusal

#: GPT-2 stores these as I x O.
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_ROWS_ARE_TOKENS = ("token_embd.weight", "output.weight")
_Q8_BLOCK = 32


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: `read` gives its float32 values in llama.cpp's layout."""

    name: str
    shape: tuple[int, ...]
    stored: Stored
    read: Callable[[], np.ndarray]


def planned_tensors(
    folder: Path, config: dict[str, Any], wanted: Stored, copied_rows: Sequence[int]
) -> list[Tensor]:
    """All tensors, in the order in which the file has them; nothing is read yet.

    Args:
        wanted: the type of matrices; vectors, norms and position tables stay float32.
        copied_rows: rows to repeat at the end of the embedding, for tokens beyond the model's own.

    Raises:
        ConfigError: a tensor that the family has not.
    """
    family = config["model_type"]
    names = gguf.get_tensor_name_map(_architecture(family), _layers(config))
    planned = []
    for file, key in _stored_keys(folder):
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise refusal(f"llama.cpp's {family} has no tensor {key!r}")
        if name == "output.weight" and config["tie_word_embeddings"]:
            continue  # the embedding again
        change = _change(family, key, config)
        copied = copied_rows if name in _ROWS_ARE_TOKENS else ()
        read = _reader(file, key, change, copied)
        shape = _shape(file, key, change, len(copied))
        planned.append(Tensor(name, shape, stored_type(name, shape, wanted), read))
    return [*planned, *_rope_factors(folder, config)]


def stored_type(name: str, shape: tuple[int, ...], wanted: Stored) -> Stored:
    """llama.cpp computes with vectors and norms in float32 only; blocks of 32 must fill rows."""
    if len(shape) == 1 or name.endswith("_norm.weight") or name == "position_embd.weight":
        return Stored.F32
    if wanted == Stored.Q8_0 and shape[-1] % _Q8_BLOCK:
        return Stored.F16
    return wanted


def _architecture(family: str) -> gguf.MODEL_ARCH:
    return gguf.MODEL_ARCH[family.upper()]


def _layers(config: dict[str, Any]) -> int:
    return config.get("num_hidden_layers") or config["n_layer"]


def _stored_keys(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            keys = opened.keys()
        yield from ((file, key) for key in keys)


def _change(
    family: str, key: str, config: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What turns a tensor of the folder into llama.cpp's layout, if anything."""
    if family == "gpt2" and key.endswith(_TRANSPOSED):
        return lambda weight_IO: weight_IO.T
    if family == "llama" and key.endswith("q_proj.weight"):
        return lambda weight_OI: _interleave(weight_OI, config["num_attention_heads"])
    if family == "llama" and key.endswith("k_proj.weight"):
        return lambda weight_OI: _interleave(weight_OI, config["num_key_value_heads"])
    return None


def _interleave(weight_OI: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary pairs side by side, as llama.cpp's Llama rotates them.

    transformers rotates the first half of a head against its second half.
    """
    outputs, inputs = weight_OI.shape
    halves = weight_OI.reshape(heads, 2, outputs // heads // 2, inputs)
    return halves.swapaxes(1, 2).reshape(outputs, inputs)


def _shape(
    file: Path, key: str, change: Callable[[torch.Tensor], torch.Tensor] | None, added: int
) -> tuple[int, ...]:
    with safe_open(file, framework="pt") as opened:
        empty = torch.empty(opened.get_slice(key).get_shape(), device="meta")
    rows, *rest = (change(empty) if change else empty).shape
    return (rows + added, *rest)


def _reader(
    file: Path,
    key: str,
    change: Callable[[torch.Tensor], torch.Tensor] | None,
    copied_rows: Sequence[int],
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with safe_open(file, framework="pt") as opened:
            values = opened.get_tensor(key).float()
        values = change(values) if change else values
        if copied_rows:
            values = torch.cat([values, values[list(copied_rows)]])
        return values.contiguous().numpy()

    return read


def _rope_factors(folder: Path, config: dict[str, Any]) -> list[Tensor]:
    """Llama 3 stretches slow rotations; llama.cpp wants the factor of each as a tensor."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "llama3":
        return []
    loaded = AutoConfig.from_pretrained(folder)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](loaded, torch.device("cpu"))
    size = 2 * len(scaled)
    plain = rope["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    factors = (plain / scaled).numpy()
    return [Tensor("rope_freqs.weight", factors.shape, Stored.F32, lambda: factors)]
