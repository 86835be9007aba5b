"""`rim_export.json`: what an exported folder states about itself, read without loading a model."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rim.config import ConfigError

EXPORT_FILE = "rim_export.json"


@dataclass(frozen=True)
class ExportRecord:
    """Numbers of blocks that the chat template takes, hashes of what went in and came out, and the
    run's prompt format as JSON.
    """

    default_blocks: int
    most_blocks: int
    sha256: dict[str, str]
    source_sha256: dict[str, str]
    prompt_format: dict[str, Any] = field(default_factory=dict)

    def check_blocks(self, blocks: int) -> None:
        """
        Raises:
            ConfigError: a number that the chat template refuses.
        """
        if 0 <= blocks <= self.most_blocks:
            return
        if not self.most_blocks:
            raise ConfigError(f"this model was trained without memory blocks, got {blocks}")
        raise ConfigError(f"this model takes 0 to {self.most_blocks} memory blocks, got {blocks}")


def read_record(folder: str | Path) -> ExportRecord:
    """
    Raises:
        ConfigError: not an exported folder, or one that an earlier version wrote.
    """
    file = Path(folder) / EXPORT_FILE
    if not file.exists():
        raise ConfigError(
            f"{folder} is not an exported folder (no {EXPORT_FILE}); make one with "
            f"`rim export RUN --to {shlex.quote(str(folder))}`"
        )
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    try:
        blocks = content["blocks"]
        return ExportRecord(
            blocks["default"],
            blocks["most"],
            content["sha256"],
            content["source_sha256"],
            content["prompt_format"],
        )
    except KeyError as missing:
        raise ConfigError(
            f"{file} has no {missing}: an earlier version wrote it; export the run again"
        ) from None


def check_unchanged(folder: Path, record: ExportRecord, advice: str = "export again") -> None:
    """Files that came later, a GGUF file for one, do no harm.

    Raises:
        ConfigError: a file of the export is not as it was checked; `advice` ends the message.
    """
    changed = changed_files(folder, record)
    if changed:
        raise ConfigError(f"{folder}: {', '.join(changed[:5])} changed after the export; {advice}")


def changed_files(folder: Path, record: ExportRecord) -> list[str]:
    """Names of the export's files that were removed or changed after the self-check."""
    return [
        name
        for name, expected in sorted(record.sha256.items())
        if not (folder / name).is_file() or _file_hash(folder / name) != expected
    ]


def added_names(folder: Path, record: ExportRecord) -> list[str]:
    """Files and folders that came after the self-check; a folder's name ends with a slash."""
    return [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(folder.iterdir())
        if path.name != EXPORT_FILE and path.name not in record.sha256
    ]


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record itself; a model has no folders in its folder."""
    return {
        file.name: _file_hash(file)
        for file in sorted(folder.iterdir())
        if file.name != EXPORT_FILE and file.is_file()
    }


def _file_hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
