"""`rim_export.json`: what an exported folder states about itself, read without loading a model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, PromptFormat
from rim.models.folder import WRITTEN_LATER, read_model_config, read_prompt_format
from rim.results import file_sha256, read_json

EXPORT_FILE = "rim_export.json"
#: A request may ask for up to this many blocks (more only where training had more).
MAX_BLOCKS = 64


@dataclass(frozen=True)
class BlockRange:
    """Numbers of blocks that the chat template takes: 0 to `most`, `default` if left out."""

    default: int
    most: int

    @classmethod
    def of(cls, prompt_format: PromptFormat) -> BlockRange:
        trained = prompt_format.trained_blocks
        return cls(trained, max(MAX_BLOCKS, trained) if trained else 0)

    def check(self, blocks: int) -> None:
        """
        Raises:
            ConfigError: a number that the chat template refuses.
        """
        if 0 <= blocks <= self.most:
            return
        if not self.most:
            raise ConfigError(f"this model was trained without memory blocks, got {blocks}")
        raise ConfigError(f"this model takes 0 to {self.most} memory blocks, got {blocks}")


@dataclass(frozen=True)
class ExportRecord:
    """What the template takes, hashes of what went in and came out, and the run's prompt format as
    JSON.
    """

    blocks: BlockRange
    sha256: dict[str, str]
    source_sha256: dict[str, str]
    prompt_format: dict[str, Any]


def check_exportable(source: Path) -> BlockRange:
    """The numbers of blocks that the export of a model folder will take.

    Raises:
        ConfigError: a model that a stock engine cannot serve: it has tokens and a causal mask, and
            what needs more stays here.
    """
    prompt_format = read_prompt_format(source)
    memory, method = prompt_format.memory, prompt_format.method
    obstacles = {
        "feeds hidden states back into its input": prompt_format.feedback != "none",
        "attends in both directions inside a block": memory.attention == "bidirectional",
        "hides the question from its answers": not memory.readouts_see_question,
    }
    for obstacle, present in obstacles.items():
        if present:
            raise ConfigError(
                f"this model ({method}) {obstacle}, which no stock engine does, so it cannot be "
                "exported; use it with `rim ask`"
            )
    if read_model_config(source).trust_remote_code:
        raise ConfigError("a model with code of its own (trust_remote_code) cannot be exported")
    return BlockRange.of(prompt_format)


def check_new(out: Path, suffix: str = "") -> None:
    """
    Raises:
        ConfigError: there is something already, or its name does not end with the suffix.
    """
    if not out.name.endswith(suffix):
        raise ConfigError(f"the name of the file to write ends with {suffix}, got {out}")
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists; choose another name, nothing is overwritten")


def read_record(folder: str | Path) -> ExportRecord:
    """
    Raises:
        ConfigError: not an exported folder, or its record is damaged.
    """
    file = Path(folder) / EXPORT_FILE
    if not file.exists():
        raise ConfigError(
            f"{folder} is not an exported folder (no {EXPORT_FILE}); make one with "
            f"`rim export RUN --out {shlex.quote(str(folder))}`"
        )
    try:
        content = read_json(file)
        blocks = BlockRange(content["blocks"]["default"], content["blocks"]["most"])
        own = {name: content[name] for name in ("sha256", "source_sha256", "prompt_format")}
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{file} is damaged ({error!r}); export the run again") from None
    return ExportRecord(blocks, **own)


def check_unchanged(folder: Path, record: ExportRecord, advice: str = "export again") -> None:
    """Files that came later, a GGUF file for one, do no harm.

    Raises:
        ConfigError: a file of the export is not as it was checked; `advice` ends the message.
    """
    changed = [
        name
        for name, expected in sorted(record.sha256.items())
        if not (folder / name).is_file() or file_sha256(folder / name) != expected
    ]
    if changed:
        raise ConfigError(f"{folder}: {', '.join(changed[:5])} changed after the export; {advice}")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record itself and what was written into a model's folder later;
    a model has no folders in its folder.
    """
    return {
        file.name: file_sha256(file)
        for file in sorted(folder.iterdir())
        if file.name not in WRITTEN_LATER | {EXPORT_FILE} and file.is_file()
    }
