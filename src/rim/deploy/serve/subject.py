"""What is served: an exported folder, a GGUF file, or a run, which is exported first."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rim.config import ConfigError
from rim.deploy.export.record import (
    EXPORT_FILE,
    ExportRecord,
    check_unchanged,
    file_hashes,
    read_record,
)
from rim.models.folder import find_model_dir

#: The export of a run that is served by its own name stands here.
EXPORTED = "exported"


@dataclass(frozen=True)
class Subject:
    """A model that an engine can load.

    `folder` is the exported folder, None for a GGUF file that stands alone; `gguf` is its GGUF
    file, if it has one; `record` is None where nothing states what the model takes.
    """

    folder: Path | None
    gguf: Path | None
    record: ExportRecord | None
    forbidden_ids: tuple[int, ...] = ()


def needs_export(path: Path) -> bool:
    """Whether serving this loads the model first, to export it."""
    return not any(
        (path.suffix == ".gguf", (path / EXPORT_FILE).exists(), (path / EXPORTED).exists())
    )


def find_subject(path: str | Path, progress: Callable[[str], None] = lambda step: None) -> Subject:
    """The model that a person means by a run, an exported folder or a GGUF file.

    Args:
        progress: called with the name of each step of an export, where one is made.

    Raises:
        ConfigError: none of these, or a run whose earlier export is of another model.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(f"no such file: {path}")
        # Beside its export, a GGUF file is of the same model.
        if (path.parent / EXPORT_FILE).exists():
            return _exported(path.parent, path)
        return Subject(None, path, None)
    if (path / EXPORT_FILE).exists():
        return _exported(path, _only_gguf(path))
    folder = _export_of_run(path, progress)
    return _exported(folder, _only_gguf(folder))


def _exported(folder: Path, gguf: Path | None) -> Subject:
    return Subject(folder, gguf, read_record(folder), _suppressed_ids(folder))


def _only_gguf(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ConfigError(f"{folder} has several GGUF files ({names}); name the one to serve")
    return found[0] if found else None


def _suppressed_ids(folder: Path) -> tuple[int, ...]:
    """The memory tokens, which an answer may not contain."""
    file = folder / "generation_config.json"
    return tuple(json.loads(file.read_text(encoding="utf-8")).get("suppress_tokens") or ())


def _export_of_run(run: Path, progress: Callable[[str], None]) -> Path:
    """RUN/exported, made if it is not there yet."""
    source, target = find_model_dir(run), run / EXPORTED
    if source == run:
        raise ConfigError(
            f"{run} is a model folder; export it first: `rim export {shlex.quote(str(run))} --to "
            "exported`"
        )
    if target.exists():
        _check_fresh(target, source)
        return target
    from rim.deploy.export import export_run

    return export_run(run, target, progress=progress).folder


def _check_fresh(folder: Path, source: Path) -> None:
    """
    Raises:
        ConfigError: the export is not of this model, or its files were changed.
    """
    advice = f"remove {folder} to have it exported again"
    record = read_record(folder)
    if record.source_sha256 != file_hashes(source):
        raise ConfigError(f"{folder} was exported from another model than {source}; {advice}")
    check_unchanged(folder, record, advice)
