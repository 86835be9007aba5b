"""From a run folder to an exported one: load and merge, write, check, and only then give it its
name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, PromptFormat
from rim.export.card import write_card
from rim.export.check import QUESTIONS, CheckResult, check_export
from rim.export.files import write_model
from rim.modeling import load_trained, read_model_config, read_prompt_format
from rim.results import environment, write_json
from rim.runs import find_model_dir
from rim.tokens import PromptEncoder

EXPORT_FILE = "rim_export.json"


@dataclass(frozen=True)
class ExportReport:
    """An export that passed its self-check."""

    folder: Path
    trained_blocks: int
    is_chat: bool
    check: CheckResult
    total_bytes: int


def export_run(
    run: str | Path,
    to: str | Path,
    *,
    questions: Sequence[str] = QUESTIONS,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write a trained model as a plain transformers folder and check it in a fresh process.

    Args:
        run: run folder or model folder.
        to: the new folder; it appears only when the self-check has passed.
        questions: what the self-check asks.
        progress: called with the name of each of the four steps as it begins.

    Raises:
        ConfigError: a model that a stock engine cannot serve, an existing target, or a self-check
            that found a difference.
    """
    source, target = find_model_dir(run), Path(to)
    prompt_format = read_prompt_format(source)
    refuse_unservable(prompt_format)
    if read_model_config(source).trust_remote_code:
        raise ConfigError("a model with code of its own (trust_remote_code) cannot be exported")
    if target.exists():
        raise ConfigError(f"{target} exists; choose another folder, nothing is overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        progress("loading")
        # On the CPU: there the check's numbers are the same everywhere.
        model, tokenizer = load_trained(source, merge=True, attention="sdpa", device="cpu")
        encoder = PromptEncoder(tokenizer, prompt_format)
        progress("writing")
        write_model(model, encoder, draft)
        progress("checking")
        check = check_export(draft, model, encoder, questions)
        progress("describing")
        write_card(draft, Path(run), source, target.name, encoder, check)
        write_json(draft / EXPORT_FILE, _record(draft, Path(run), prompt_format, check))
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    total = sum(file.stat().st_size for file in target.iterdir())
    return ExportReport(target, prompt_format.trained_blocks, encoder.is_chat, check, total)


def refuse_unservable(prompt_format: PromptFormat) -> None:
    """A stock engine has tokens and a causal mask; what needs more stays here.

    Raises:
        ConfigError: says what the engine would have to do.
    """
    blocks, method = prompt_format.blocks, prompt_format.method
    obstacles = {
        "feeds hidden states back into its input": prompt_format.feedback != "none",
        "attends in both directions inside a block": blocks.attention == "bidirectional",
        "hides the question from its answers": not blocks.readouts_see_question,
    }
    for obstacle, present in obstacles.items():
        if present:
            raise ConfigError(
                f"this model ({method}) {obstacle}, which no stock engine does, so it cannot be "
                "exported; use it with `rim ask`"
            )


def read_record(folder: Path) -> dict[str, Any]:
    """What an exported folder says of itself.

    Raises:
        ConfigError: not an exported folder.
    """
    file = folder / EXPORT_FILE
    if not file.exists():
        raise ConfigError(
            f"{folder} is not an exported folder (no {EXPORT_FILE}); make one with "
            f"`rim export RUN --to {folder}`"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def read_exported_format(folder: Path) -> PromptFormat:
    """The prompt format of the run that a folder was exported from; `read_record`'s errors."""
    return PromptFormat.model_validate(read_record(folder)["prompt_format"])


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record itself."""
    hashes = {}
    for file in sorted(folder.iterdir()):
        if file.name != EXPORT_FILE:
            with file.open("rb") as opened:
                hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes


def _record(
    folder: Path, run: Path, prompt_format: PromptFormat, check: CheckResult
) -> dict[str, Any]:
    return {
        "run": run.resolve().name,
        "prompt_format": prompt_format.model_dump(mode="json"),
        "check": asdict(check),
        "environment": environment(),
        "sha256": file_hashes(folder),
    }
