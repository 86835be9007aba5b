"""From a run folder to an exported one: load and merge, write, check, and only then give it its
name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, PromptFormat
from rim.core.prompt import PromptEncoder
from rim.deploy.export.card import write_card
from rim.deploy.export.check import QUESTIONS, CheckResult, check_export
from rim.deploy.export.files import write_model
from rim.deploy.export.record import EXPORT_FILE, file_hashes
from rim.deploy.export.template import most_blocks
from rim.models.folder import find_model_dir, read_model_config, read_prompt_format
from rim.models.loading import load_trained
from rim.results import environment, write_json


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
        write_json(draft / EXPORT_FILE, _record(draft, Path(run), source, encoder, check))
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


def _record(
    folder: Path, run: Path, source: Path, encoder: PromptEncoder, check: CheckResult
) -> dict[str, Any]:
    return {
        "run": run.resolve().name,
        "prompt_format": encoder.format.model_dump(mode="json"),
        "blocks": {
            "default": encoder.format.trained_blocks,
            "most": most_blocks(encoder),
        },
        "check": asdict(check),
        "environment": environment(),
        "sha256": file_hashes(folder),
        "source_sha256": file_hashes(source),
    }
