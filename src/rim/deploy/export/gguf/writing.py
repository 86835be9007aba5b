"""From an exported folder to a GGUF file: plan, write, read back, and then give it its name."""

from __future__ import annotations

import json
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
from rim.deploy.export.gguf.metadata import add_model, add_vocabulary, check_family
from rim.deploy.export.gguf.readback import check_file
from rim.deploy.export.gguf.tensors import Tensor, planned_tensors
from rim.deploy.export.gguf.vocabulary import Vocabulary, read_vocabulary
from rim.deploy.export.record import check_new, check_unchanged, read_record

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
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_family(config)
    weights = weights or _as_exported(config)
    vocabulary = read_vocabulary(folder, config["vocab_size"])
    tensors = planned_tensors(
        folder,
        config,
        Stored[weights.upper()],
        vocabulary.copied_rows,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}-{os.getpid()}")
    try:
        _write(draft, folder.resolve().name, config, vocabulary, tensors, weights, progress)
        check_file(draft, vocabulary, tensors)
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
    writer = gguf.GGUFWriter(
        file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[config["model_type"].upper()]]
    )
    add_model(writer, config, name)
    writer.add_file_type(_FILE_TYPES[weights])
    add_vocabulary(writer, vocabulary)
    for tensor in tensors:
        _announce(writer, tensor)
    # One tensor in memory at a time.
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(tensors):
        progress(done, len(tensors))
        writer.write_tensor_data(gguf.quants.quantize(tensor.read(), tensor.stored))
    progress(len(tensors), len(tensors))
    writer.close()


def _announce(writer: gguf.GGUFWriter, tensor: Tensor) -> None:
    if tensor.stored in (Stored.F32, Stored.F16):
        dtype = np.dtype(np.float32 if tensor.stored == Stored.F32 else np.float16)
        shape = tensor.shape
    else:
        dtype = np.dtype(np.uint8)
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.stored)
    size = int(np.prod(shape)) * dtype.itemsize
    writer.add_tensor_info(tensor.name, shape, dtype, size, raw_dtype=tensor.stored)
