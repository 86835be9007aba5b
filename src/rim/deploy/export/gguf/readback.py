"""The file that was written, read again: names, shapes, values and vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Stored

from rim.config import ConfigError
from rim.deploy.export.gguf.tensors import Tensor
from rim.deploy.export.gguf.vocabulary import Vocabulary

#: Half of the last binary place of a stored number, relative to it.
_RELATIVE = {Stored.F32: 0.0, Stored.F16: 2.0**-11, Stored.BF16: 2.0**-8}
#: Below this float16 has fixed steps.
_SMALLEST_F16 = 2.0**-24
_Q8_BLOCK, _Q8_STEPS = 32, 127


def check_file(file: Path, vocabulary: Vocabulary, tensors: Sequence[Tensor]) -> None:
    """Compare a file with what was to be written.

    Raises:
        ConfigError: the first difference.
    """
    reader = gguf.GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    if list(found) != [tensor.name for tensor in tensors]:
        raise _broken("the names of its tensors")
    for tensor in tensors:
        stored = found[tensor.name]
        if tuple(reversed(stored.shape.tolist())) != tensor.shape:
            raise _broken(f"the shape of {tensor.name}")
        values = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(tensor.shape)
        expected = tensor.read()
        if not np.all(np.abs(values - expected) <= rounding(expected, tensor.stored)):
            raise _broken(f"the values of {tensor.name}")
    for key, value in {
        "tokens": vocabulary.tokens,
        "token_type": vocabulary.kinds,
        "merges": vocabulary.merges,
        "suppress_tokens": vocabulary.suppressed or None,
        **{f"{_LONG[name]}_token_id": i for name, i in vocabulary.special.items()},
    }.items():
        if _field(reader, f"tokenizer.ggml.{key}") != value:
            raise _broken(f"tokenizer.ggml.{key}")
    if _field(reader, "tokenizer.chat_template") != vocabulary.chat_template:
        raise _broken("its chat template")


_LONG = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def rounding(expected: np.ndarray, stored: Stored) -> np.ndarray:
    """How far a stored value may lie from the exact one, element by element."""
    if stored != Stored.Q8_0:
        return np.abs(expected) * _RELATIVE[stored] + (_SMALLEST_F16 if stored == Stored.F16 else 0)
    blocks = np.abs(expected).reshape(-1, _Q8_BLOCK)
    # Half a step of the block, and the rounding of its scale to float16.
    step = blocks.max(axis=1, keepdims=True) / _Q8_STEPS
    allowed = step * 0.5 + blocks * 2.0**-10 + _SMALLEST_F16 * _Q8_STEPS
    return np.broadcast_to(allowed, blocks.shape).reshape(expected.shape)


def _field(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _broken(what: str) -> ConfigError:
    return ConfigError(f"the GGUF file does not read back as written ({what}); nothing was kept")
