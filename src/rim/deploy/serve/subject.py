"""What is served: an exported folder, a GGUF file, or a run, which is exported first."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from rim.config import ConfigError
from rim.config.missing import no_such
from rim.deploy.export.record import (
    EXPORT_FILE,
    BlockRange,
    check_exportable,
    check_unchanged,
    file_hashes,
    read_record,
)
from rim.models.folder import find_model_dir
from rim.results import read_json

#: The export of a run that is served by its own name stands here.
EXPORTED = "exported"


@dataclass(frozen=True)
class Subject:
    """A model that an engine can load.

    `folder` is the exported folder, None where a GGUF file alone is meant; `gguf` is its GGUF file,
    if it has one; `blocks` is None where nothing states what the model takes. `run` is the
    run to export into `folder` before that exists, None where nothing is to be exported. `several`
    are the GGUF files of a folder that has more than one, so that one must be named.
    """

    folder: Path | None
    gguf: Path | None
    blocks: BlockRange | None
    forbidden_ids: tuple[int, ...] = ()
    run: Path | None = None
    several: tuple[Path, ...] = ()


def find_subject(path: str | Path) -> Subject:
    """The model that a person means by a run, an exported folder or a GGUF file.

    Raises:
        ConfigError: none of these, a run that cannot be exported, or one whose earlier export is of
            another model.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ConfigError(no_such("file", path))
        # Beside its export, a GGUF file is of the same model; who names the file means the file.
        if (path.parent / EXPORT_FILE).exists():
            return replace(_exported(path.parent, path), folder=None)
        return Subject(None, path, None)
    if (path / EXPORT_FILE).exists():
        return _exported(path)
    source, target = find_model_dir(path), path / EXPORTED
    if source == path:
        raise ConfigError(
            f"{path} is a model folder; export it first: `rim export {shlex.quote(str(path))} "
            "--out exported`"
        )
    if not target.exists():
        return Subject(target, None, check_exportable(source), run=path)
    record, advice = read_record(target), f"remove {target} to have it exported again"
    if record.source_sha256 != file_hashes(source):
        raise ConfigError(f"{target} was exported from another model than {source}; {advice}")
    check_unchanged(target, record, advice)
    return _exported(target)


def _exported(folder: Path, gguf: Path | None = None) -> Subject:
    found = tuple(sorted(folder.glob("*.gguf"))) if gguf is None else (gguf,)
    record = read_record(folder)
    # The memory tokens, which an answer may not contain.
    forbidden = read_json(folder / "generation_config.json").get("suppress_tokens") or ()
    one = found[0] if len(found) == 1 else None
    several = found if len(found) > 1 else ()
    return Subject(folder, one, record.blocks, tuple(forbidden), several=several)
