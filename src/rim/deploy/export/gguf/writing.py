"""From an exported folder to a GGUF file: plan, write, read back, and then give it its name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Stored

from rim.config import ConfigError
from rim.deploy.export.gguf.model import (
    Tensor,
    add_sizes,
    architecture,
    check_family,
    planned_tensors,
)
from rim.deploy.export.gguf.vocabulary import Vocabulary, read_vocabulary
from rim.deploy.export.record import check_new, check_unchanged, read_record
from rim.results import read_json

Weights = Literal["f32", "f16", "bf16", "q8_0"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
_AS_EXPORTED: dict[str, Weights] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


@dataclass(frozen=True)
class GgufReport:
    """A file that was read back and compared with the folder."""

    file: Path
    weights: Weights
    pretokenizer: str
    tensors: int
    tokens: int
    total_bytes: int


def write_gguf(
    folder: str | Path,
    out: str | Path,
    *,
    weights: Weights | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> GgufReport:
    """Write an exported folder as one GGUF file and read it back.

    Args:
        folder: what `rim export` wrote.
        out: the new file, named .gguf; it appears only when it reads back as the folder.
        weights: type of the matrices; the exported one if left out. Vectors stay float32.
        progress: called with tensors written and tensors in all.

    Raises:
        ConfigError: not an export or one whose files were changed, an existing target or one
            not named .gguf, or a model that GGUF cannot describe exactly; the message names
            llama.cpp's own converter.
    """
    folder, out = Path(folder), Path(out)
    if weights is not None and weights not in WEIGHTS:
        raise ConfigError(f"weights are one of {', '.join(WEIGHTS)}, got {weights!r}")
    check_new(out, ".gguf")
    check_unchanged(folder, read_record(folder))
    config = read_json(folder / "config.json")
    check_family(config)
    weights = weights or _as_exported(config)
    vocabulary = read_vocabulary(folder, config["vocab_size"])
    tensors = planned_tensors(folder, config, Stored[weights.upper()], vocabulary.copied_rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}-{os.getpid()}")
    try:
        _write(draft, folder.resolve().name, config, vocabulary, tensors, weights, progress)
        _check_file(draft, vocabulary, tensors)
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    return GgufReport(
        out,
        weights,
        vocabulary.pretokenizer,
        len(tensors),
        len(vocabulary.tokens),
        out.stat().st_size,
    )


def _as_exported(config: dict[str, Any]) -> Weights:
    dtype = config.get("dtype")
    if dtype not in _AS_EXPORTED:
        raise ConfigError(
            f"the export's weights are {dtype}, which is not written here; choose the file's type "
            f"with --type (weights=): {', '.join(WEIGHTS)}"
        )
    return _AS_EXPORTED[dtype]


def _write(
    file: Path,
    name: str,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    tensors: Sequence[Tensor],
    weights: Weights,
    progress: Callable[[int, int], None],
) -> None:
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture(config)])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(_FILE_TYPES[weights])
    # The default of a request that names no temperature: greedy, as in training and in the export.
    writer.add_sampling_temp(0.0)
    add_sizes(writer, config)
    _add_vocabulary(writer, vocabulary)
    for tensor in tensors:
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.stored)
        size = int(np.prod(shape))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), size, tensor.stored)
    # One tensor in memory at a time.
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(tensors):
        progress(done, len(tensors))
        writer.write_tensor_data(gguf.quants.quantize(tensor.read(), tensor.stored))
    progress(len(tensors), len(tensors))
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write tokenizer and chat template."""
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pretokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for name, token_id in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token_id)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    # Older versions of llama.cpp do not read this; their requests need a logit_bias.
    writer.add_array("tokenizer.ggml.suppress_tokens", vocabulary.suppressed)
    writer.add_chat_template(vocabulary.chat_template)


# --- the file that was written, read again -------------------------------------------------------


def _check_file(file: Path, vocabulary: Vocabulary, tensors: Sequence[Tensor]) -> None:
    """Compare names, shapes, values and vocabulary with what was to be written.

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
        if not np.all(np.abs(values - expected) <= _rounding(expected, tensor.stored)):
            raise _broken(f"the values of {tensor.name}")
    for key, value in {
        "ggml.tokens": vocabulary.tokens,
        "ggml.token_type": vocabulary.kinds,
        "ggml.merges": vocabulary.merges,
        "ggml.suppress_tokens": vocabulary.suppressed or None,
        **{f"ggml.{_LONG.get(name, name)}_token_id": i for name, i in vocabulary.special.items()},
        "chat_template": vocabulary.chat_template,
    }.items():
        field = reader.get_field(f"tokenizer.{key}")
        if (None if field is None else field.contents()) != value:
            raise _broken(f"tokenizer.{key}")


_LONG = {"unk": "unknown", "pad": "padding"}
#: Half of the last binary place of a stored number, relative to it.
_RELATIVE = {Stored.F32: 0.0, Stored.F16: 2.0**-11, Stored.BF16: 2.0**-8}
#: Below this float16 has fixed steps.
_SMALLEST_F16 = 2.0**-24
_Q8_BLOCK, _Q8_STEPS = 32, 127


def _rounding(expected: np.ndarray, stored: Stored) -> np.ndarray:
    """How far a stored value may lie from the exact one, element by element."""
    if stored != Stored.Q8_0:
        return np.abs(expected) * _RELATIVE[stored] + (_SMALLEST_F16 if stored == Stored.F16 else 0)
    blocks = np.abs(expected).reshape(-1, _Q8_BLOCK)
    # Half a step of the block, and the rounding of its scale to float16.
    step = blocks.max(axis=1, keepdims=True) / _Q8_STEPS
    allowed = step * 0.5 + blocks * 2.0**-10 + _SMALLEST_F16 * _Q8_STEPS
    return np.broadcast_to(allowed, blocks.shape).reshape(expected.shape)


def _broken(what: str) -> ConfigError:
    return ConfigError(f"the GGUF file does not read back as written ({what}); nothing was kept")
