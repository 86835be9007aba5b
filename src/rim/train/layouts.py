"""Laid-out examples as two flat arrays, kept on disk: laid out once for all stages, runs and
workers that share data, tokenizer and settings.

A large data set lies in `$XDG_CACHE_HOME/rim/layouts` (`~/.cache` if unset), a folder for each key:
the hash of all that a layout depends on, the code that makes it included. Written aside and
renamed, checked by a checksum when it is opened, and laid out again if it is torn. It may be
deleted at any time. Training maps it: it is no process's own memory.

Shape legend: S tokens of all examples in a row, F fields a token, E examples, C columns of `TABLE`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

import rim.core.layout
import rim.core.prompt
from rim.config import StageConfig
from rim.core.layout import FIELDS, Layout
from rim.core.prompt import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import data_hash
from rim.methods import METHODS
from rim.results import cache_folder

#: Fewer examples are laid out in some seconds, and only held in memory.
KEPT_FROM = 20_000
#: What is known of an example beside its tokens; `end` is where they end in the array of all.
TABLE = ("end", "trunk_length", "num_readouts", "num_step_readouts", "max_position")
#: Settings of a stage that say how it trains, not what: they change no layout.
_TRAINING_ONLY = {
    *("step_weight", "distillation_weight", "blind_readouts", "blind_coin", "weighting"),
    *("reduction", "max_steps", "epochs", "batch_size", "micro_batch_size", "packing"),
    *("learning_rate", "scheduler", "warmup", "weight_decay", "betas", "max_grad_norm"),
    *("dropout", "bf16", "gradient_checkpointing", "evaluate_every", "trainer", "patience"),
}


@dataclass(frozen=True)
class StoredLayout:
    """What training needs of a `Layout`."""

    fields_TF: np.ndarray
    trunk_length: int
    num_readouts: int
    num_step_readouts: int


class StoredLayouts(Sequence[StoredLayout]):
    """Layouts in two arrays, in memory or mapped from a folder."""

    def __init__(self, fields_SF: np.ndarray, table_EC: np.ndarray, folder: Path | None = None):
        self._fields_SF, self.table_EC, self._folder = fields_SF, table_EC, folder

    def __len__(self) -> int:
        return len(self.table_EC)

    @overload
    def __getitem__(self, index: int) -> StoredLayout: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredLayout]: ...
    def __getitem__(self, index: int | slice) -> StoredLayout | list[StoredLayout]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        end, *rest = self.table_EC[number, :4].tolist()
        start = self.table_EC[number - 1, 0] if number else 0
        return StoredLayout(self._fields_SF[start:end], *rest)

    def __reduce__(self) -> Any:
        """A worker that is no fork maps the folder again instead of getting a copy."""
        if self._folder is not None:
            return _open, (self._folder,)
        return StoredLayouts, (self._fields_SF, self.table_EC)

    def column(self, name: str) -> np.ndarray:
        """One number of every example, see `TABLE`."""
        return self.table_EC[:, TABLE.index(name)]


def store_layouts(
    layouts: Iterable[Layout],
    examples: Sequence[Example],
    stage: StageConfig,
    encoder: PromptEncoder,
) -> StoredLayouts:
    """The layouts of a stage's examples: those on disk, or these, which are then kept there.

    Args:
        layouts: those of `examples`, made while they are read; not read if they are on disk.
    """
    key = _key(examples, stage, encoder) if len(examples) >= KEPT_FROM else None
    if key is None:
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
    table, checksum = [], 0
    with (folder / "fields.bin").open("wb") as file:
        for layout in layouts:
            content = layout.fields_TF.tobytes()
            file.write(content)
            checksum = zlib.crc32(content, checksum)
            table.append(_numbers(layout, table[-1][0] if table else 0))
        file.flush()
        os.fsync(file.fileno())
    table_EC = np.array(table)
    np.save(folder / "table.npy", table_EC)
    checksum = zlib.crc32(table_EC.tobytes(), checksum)
    state = {"tokens": int(table_EC[-1, 0]), "checksum": checksum}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _open(folder: Path) -> StoredLayouts:
    fields_SF = np.memmap(folder / "fields.bin", np.int32, "c").reshape(-1, len(FIELDS))
    return StoredLayouts(fields_SF, np.load(folder / "table.npy"), folder)


def _whole(folder: Path) -> bool:
    """Whether a folder holds what was written; one that does not is as good as none."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        checksum = 0
        with (folder / "fields.bin").open("rb") as file:
            while content := file.read(2**24):
                checksum = zlib.crc32(content, checksum)
        checksum = zlib.crc32(np.load(folder / "table.npy").tobytes(), checksum)
    except (OSError, ValueError, EOFError):
        return False
    return checksum == state.get("checksum")


def _key(examples: Sequence[Example], stage: StageConfig, encoder: PromptEncoder) -> str | None:
    """The hash of all that layouts depend on; None where a tokenizer cannot tell what it does."""
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    method = METHODS[encoder.format.method]
    code = [rim.core.layout, rim.core.prompt, importlib.import_module(type(method).__module__)]
    parts = [
        data_hash(examples),
        backend.to_str(),
        json.dumps(encoder.tokenizer.special_tokens_map, default=str, sort_keys=True),
        str(encoder.tokenizer.chat_template),
        encoder.format.model_dump_json(),
        stage.model_dump_json(exclude=_TRAINING_ONLY),
        *(Path(str(module.__file__)).read_text(encoding="utf-8") for module in code),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
