"""Sizes, constants and weights of an exported folder under llama.cpp's names and in its layout.

Shape legend: V tokens, O outputs of a matrix, I inputs of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Stored
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rim.deploy.export.gguf.vocabulary import refusal

Change = Callable[[torch.Tensor], torch.Tensor]

#: What llama.cpp has built in for a family; another value would be computed wrongly, not refused.
_BUILT_IN: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    },
    "llama": {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)},
    "qwen3": {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "use_sliding_window": (False,),
    },
}
_ROPE_TYPES = {"llama": ("default", "llama3"), "qwen3": ("default",)}
#: The writer's names of sizes, and those of the config.
_GPT2_SIZES = {
    "block_count": "n_layer",
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "head_count": "n_head",
    "layer_norm_eps": "layer_norm_epsilon",
}
_ROTARY_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "head_count": "num_attention_heads",
    "head_count_kv": "num_key_value_heads",
    "layer_norm_rms_eps": "rms_norm_eps",
}
#: GPT-2 stores these as I x O.
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_ROWS_ARE_TOKENS = ("token_embd.weight", "output.weight")
_Q8_BLOCK = 32


def check_family(config: dict[str, Any]) -> None:
    """Refuse a model that llama.cpp would compute differently.

    Raises:
        ConfigError: names the family or the setting.
    """
    family = config["model_type"]
    if family not in _BUILT_IN:
        raise refusal(f"only {', '.join(_BUILT_IN)} models are written here, this is {family}")
    for name, allowed in _BUILT_IN[family].items():
        if config[name] not in allowed:
            raise refusal(f"llama.cpp's {family} has {name}={allowed[0]!r}, not {config[name]!r}")
    kind = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if family in _ROPE_TYPES and kind not in _ROPE_TYPES[family]:
        raise refusal(f"rotary positions of type {kind!r} are not written here")


def architecture(config: dict[str, Any]) -> gguf.MODEL_ARCH:
    return gguf.MODEL_ARCH[config["model_type"].upper()]


def add_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    is_gpt2 = config["model_type"] == "gpt2"
    for name, key in (_GPT2_SIZES if is_gpt2 else _ROTARY_SIZES).items():
        getattr(writer, f"add_{name}")(config[key])
    if is_gpt2:
        writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
        return
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for name in ("key_length", "value_length", "rope_dimension_count"):
        getattr(writer, f"add_{name}")(head_size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])


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
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(architecture(config), layers)
    planned = []
    for file in sorted(folder.glob("*.safetensors")):
        # The file is mapped into memory: a tensor is read when its values are wanted.
        for key, weight in load_file(file).items():
            name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise refusal(f"llama.cpp's {family} has no tensor {key!r}")
            if name == "output.weight" and config["tie_word_embeddings"]:
                continue  # the embedding again
            change = _change(family, key, config)
            copied = list(copied_rows) if name in _ROWS_ARE_TOKENS else []
            rows, *rest = change(torch.empty_like(weight, device="meta")).shape
            shape = (rows + len(copied), *rest)
            read = functools.partial(_values, weight, change, copied)
            planned.append(Tensor(name, shape, _stored_type(name, shape, wanted), read))
    return [*planned, *_rope_factors(folder, config)]


def _values(weight: torch.Tensor, change: Change, copied_rows: list[int]) -> np.ndarray:
    values = change(weight.float())
    if copied_rows:
        values = torch.cat([values, values[copied_rows]])
    return values.contiguous().numpy()


def _stored_type(name: str, shape: tuple[int, ...], wanted: Stored) -> Stored:
    """llama.cpp computes with vectors and norms in float32 only; blocks of 32 must fill rows."""
    if len(shape) == 1 or name.endswith("_norm.weight") or name == "position_embd.weight":
        return Stored.F32
    return Stored.F16 if wanted == Stored.Q8_0 and shape[-1] % _Q8_BLOCK else wanted


def _change(family: str, key: str, config: dict[str, Any]) -> Change:
    """Return the function that turns a tensor of the folder into llama.cpp's layout."""
    if family == "gpt2" and key.endswith(_TRANSPOSED):
        return lambda weight_IO: weight_IO.T
    heads = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
    for ending, count in heads.items():
        if family == "llama" and key.endswith(ending):
            return functools.partial(_interleave, heads=config[count])
    return lambda weight: weight


def _interleave(weight_OI: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary pairs side by side, as llama.cpp's Llama rotates them.

    transformers rotates the first half of a head against its second half.
    """
    outputs, inputs = weight_OI.shape
    halves = weight_OI.reshape(heads, 2, outputs // heads // 2, inputs)
    return halves.swapaxes(1, 2).reshape(outputs, inputs)


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
