"""`rim_export.json`: what an exported folder states about itself, read without loading a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError

EXPORT_FILE = "rim_export.json"


@dataclass(frozen=True)
class ExportRecord:
    """Numbers of blocks that the chat template takes, and hashes of what went in and came out."""

    default_blocks: int
    most_blocks: int
    sha256: dict[str, str]
    source_sha256: dict[str, str]

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
            f"`rim export RUN --to {folder}`"
        )
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    try:
        blocks = content["memory_blocks"]
        return ExportRecord(
            blocks["default"], blocks["most"], content["sha256"], content["source_sha256"]
        )
    except KeyError as missing:
        raise ConfigError(
            f"{file} has no {missing}: an earlier version wrote it; export the run again"
        ) from None


def changed_files(folder: Path, record: ExportRecord) -> list[str]:
    """Names of files that were added, removed or changed after the self-check."""
    expected, found = record.sha256, file_hashes(folder)
    return sorted(n for n in expected | found if expected.get(n) != found.get(n))


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record itself."""
    hashes = {}
    for file in sorted(folder.iterdir()):
        if file.name != EXPORT_FILE and file.is_file():
            with file.open("rb") as opened:
                hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes
