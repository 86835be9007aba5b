"""Laid-out examples as two flat arrays, kept on disk: laid out once for all stages, runs and
workers that share data, tokenizer and settings.

A large data set lies in `$XDG_CACHE_HOME/rim/layouts` (`~/.cache` if unset), a folder for each key:
the hash of all that a layout depends on, the code that makes it included. Written aside and
renamed, checked by a checksum when it is opened, and laid out again if it is torn. It may be
deleted at any time. Training reads an example when its turn comes, so that no process holds the
set, however large it is.

Shape legend: S tokens of all examples in a row, F fields a token, E examples, C columns of `TABLE`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

import rim.config.prompt_format
import rim.core.layout
import rim.core.tokens
import rim.methods
from rim.config import ConfigError, StageConfig
from rim.core.layout import FIELDS, LaidOut, Layout
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import data_hash
from rim.data.streamed import StreamedExamples
from rim.methods import METHODS
from rim.methods.base import Method
from rim.results import cache_folder, read_json

#: Fewer examples are laid out in some seconds, and only held in memory.
KEPT_FROM = 20_000
#: What is known of an example beside its tokens; `end` is where they end in the array of all.
TABLE = ("end", "trunk_length", "num_readouts", "num_step_readouts", "max_position")
FIELDS_FILE, TABLE_FILE = "fields.bin", "table.bin"
#: Rows of a table that are in memory at a time while one of its columns is read.
ROWS = 2**16
#: Settings of a stage that say how it trains, not what: they change no layout.
_TRAINING_ONLY = {
    *("step_weight", "distillation_weight", "blind_readouts", "blind_coin", "weighting"),
    *("reduction", "max_steps", "epochs", "batch_size", "micro_batch_size", "packing"),
    *("learning_rate", "scheduler", "warmup", "weight_decay", "betas", "max_grad_norm"),
    *("dropout", "bf16", "gradient_checkpointing", "evaluate_every", "trainer", "patience"),
    "unused_steps",
}


@dataclass(frozen=True)
class RowsOnDisk:
    """Rows of whole numbers in a file, of which only those asked for are read."""

    file: Path
    dtype: np.dtype
    width: int

    def __len__(self) -> int:
        return self.file.stat().st_size // (self.dtype.itemsize * self.width)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        count, skipped = (stop - start) * self.width, start * self.width * self.dtype.itemsize
        read = np.fromfile(self.file, self.dtype, max(count, 0), offset=skipped)
        return read.reshape(-1, self.width)


class StoredLayouts(Sequence[LaidOut]):
    """Layouts in two arrays, in memory or on disk."""

    def __init__(self, fields_SF: np.ndarray | RowsOnDisk, table_EC: np.ndarray | RowsOnDisk):
        self._fields_SF, self._table_EC = fields_SF, table_EC

    def __len__(self) -> int:
        return len(self._table_EC)

    @overload
    def __getitem__(self, index: int) -> LaidOut: ...
    @overload
    def __getitem__(self, index: slice) -> list[LaidOut]: ...
    def __getitem__(self, index: int | slice) -> LaidOut | list[LaidOut]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        *before, (end, *rest) = self._table_EC[max(0, number - 1) : number + 1].tolist()
        start = before[0][0] if before else 0
        return LaidOut(self._fields_SF[start:end], *rest[:3])

    def column(self, name: str) -> np.ndarray:
        """One number of every example, see `TABLE`."""
        index, rows = TABLE.index(name), range(0, len(self), ROWS)
        return np.concatenate([self._table_EC[i : i + ROWS][:, index] for i in rows])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example."""
        return np.diff(self.column("end"), prepend=0)


def lengths(layouts: Sequence[LaidOut]) -> np.ndarray:
    """Tokens of every example."""
    if isinstance(layouts, StoredLayouts):
        return layouts.lengths
    return np.array([len(x.fields_TF) for x in layouts])


def most_step_readouts(layouts: Sequence[LaidOut]) -> int:
    """The most read-outs of steps that an example has; 0 where there are no examples."""
    if isinstance(layouts, StoredLayouts):
        return int(layouts.column("num_step_readouts").max())
    return max((x.num_step_readouts for x in layouts), default=0)


def store_layouts(
    layouts: Iterable[Layout],
    examples: Sequence[Example],
    stage: StageConfig,
    encoder: PromptEncoder,
) -> StoredLayouts:
    """The layouts of a stage's examples: those on disk, or these, which are then kept there.

    Args:
        layouts: those of `examples`, made while they are read; not read if they are on disk.

    Raises:
        ConfigError: examples that are not to be in memory, with a tokenizer whose work cannot be
            found again on disk.
    """
    streamed = isinstance(examples, StreamedExamples)
    key = _key(examples, stage, encoder) if streamed or len(examples) >= KEPT_FROM else None
    if key is None:
        if streamed:
            raise ConfigError(
                "data.train.streaming needs a tokenizer of the tokenizers library (a "
                "tokenizer.json beside the base); leave streaming out, or convert the tokenizer"
            )
        fields, table = [], []
        for layout in layouts:
            fields.append(layout.fields_TF)
            table.append(_numbers(layout, table[-1][0] if table else 0))
        return StoredLayouts(np.concatenate(fields), np.array(table))
    folder = cache_folder("layouts") / key
    if _whole(folder):
        return _open(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".partial", dir=folder.parent))
    try:
        _write(layouts, partial)
        if folder.exists() and not _whole(folder):
            shutil.rmtree(folder)
        if not folder.exists():  # another process may have been faster
            partial.rename(folder)
        return _open(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _numbers(layout: Layout, start: int) -> list[int]:
    return [
        start + len(layout.fields_TF),
        layout.trunk_length,
        layout.num_readouts,
        layout.num_step_readouts,
        layout.max_position,
    ]


def _write(layouts: Iterable[Layout], folder: Path) -> None:
    tokens = 0
    with (folder / FIELDS_FILE).open("wb") as fields, (folder / TABLE_FILE).open("wb") as table:
        for layout in layouts:
            numbers = _numbers(layout, tokens)
            tokens = numbers[0]
            fields.write(layout.fields_TF.tobytes())
            table.write(np.array(numbers, np.int64).tobytes())
        for file in (fields, table):
            file.flush()
            os.fsync(file.fileno())
    state = {"tokens": tokens, "checksum": _checksum(folder)}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _open(folder: Path) -> StoredLayouts:
    fields_SF = RowsOnDisk(folder / FIELDS_FILE, np.dtype(np.int32), len(FIELDS))
    return StoredLayouts(fields_SF, RowsOnDisk(folder / TABLE_FILE, np.dtype(np.int64), len(TABLE)))


def _whole(folder: Path) -> bool:
    """Whether a folder holds what was written; one that does not is as good as none."""
    try:
        state = read_json(folder / "state.json")
        return _checksum(folder) == state.get("checksum")
    except (OSError, ValueError):
        return False


def _checksum(folder: Path) -> int:
    checksum = 0
    for name in (FIELDS_FILE, TABLE_FILE):
        with (folder / name).open("rb") as file:
            while content := file.read(2**16):
                checksum = zlib.crc32(content, checksum)
    return checksum


def _key(examples: Sequence[Example], stage: StageConfig, encoder: PromptEncoder) -> str | None:
    """The hash of all that layouts depend on; None where a tokenizer cannot tell what it does."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = [
        data_hash(examples),
        backend.to_str(),
        json.dumps(encoder.tokenizer.special_tokens_map, default=str, sort_keys=True),
        str(encoder.tokenizer.chat_template),
        encoder.format.model_dump_json(),
        stage.model_dump_json(exclude=_TRAINING_ONLY),
        *(file.read_text(encoding="utf-8") for file in _code_of(METHODS[encoder.format.method])),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _code_of(method: Method) -> list[Path]:
    """The files whose code lays out: methods of ours lend each other read-outs."""
    modules = [rim.core.layout, rim.core.tokens, rim.config.prompt_format]
    modules += [inspect.getmodule(kind) for kind in type(method).__mro__ if kind is not object]
    files = {Path(str(module.__file__)) for module in modules if module is not None}
    return sorted(files | set(Path(rim.methods.__file__).parent.glob("*.py")))
