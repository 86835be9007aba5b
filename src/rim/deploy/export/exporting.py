"""From a run folder to an exported one: load and merge, write, check, and only then give it its
name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rim.core.tokens import PromptEncoder
from rim.deploy.export.check import QUESTIONS, CheckResult, check_export
from rim.deploy.export.files import write_model
from rim.deploy.export.record import (
    EXPORT_FILE,
    BlockRange,
    check_exportable,
    check_new,
    file_hashes,
)
from rim.deploy.export.template import fill
from rim.models.folder import find_model_dir, read_model_config, read_prompt_format
from rim.models.loading import load_trained
from rim.results import environment, read_json, write_json
from rim.train.run_folder import RunFolder


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
    out: str | Path,
    *,
    questions: Sequence[str] = QUESTIONS,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write a trained model as a plain transformers folder and check it in a fresh process.

    Args:
        run: run folder or model folder.
        out: the new folder; it appears only when the self-check has passed.
        questions: what the self-check asks.
        progress: called with the name of each of the four steps as it begins.

    Raises:
        ConfigError: a model that a stock engine cannot serve, an existing target, or a self-check
            that found a difference.
    """
    source, target, run = find_model_dir(run), Path(out), Path(run)
    blocks = check_exportable(source)
    check_new(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        progress("loading")
        # On the CPU: there the check's numbers are the same everywhere.
        # Not every family has sdpa, which is a stock engine's first choice where it is.
        trained = read_model_config(source).attention
        attention = "eager" if trained == "eager" else "sdpa"
        model, tokenizer = load_trained(source, merge=True, attention=attention, device="cpu")
        encoder = PromptEncoder(tokenizer, read_prompt_format(source))
        progress("writing")
        write_model(model, encoder, draft)
        progress("checking")
        check = check_export(draft, model, encoder, questions)
        progress("describing")
        card = _card(target.name, run, source, encoder, check)
        (draft / "README.md").write_text(card, encoding="utf-8")
        record = {
            "run": run.resolve().name,
            "prompt_format": encoder.format.model_dump(mode="json"),
            "blocks": asdict(blocks),
            "check": asdict(check),
            "environment": environment(),
            "sha256": file_hashes(draft),
            "source_sha256": file_hashes(source),
        }
        write_json(draft / EXPORT_FILE, record)
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    total = sum(file.stat().st_size for file in target.iterdir())
    return ExportReport(target, encoder.format.trained_blocks, encoder.is_chat, check, total)


def _card(name: str, run: Path, source: Path, encoder: PromptEncoder, check: CheckResult) -> str:
    """The model card, with the evaluations that stand in the run folder as they were measured."""
    base, trained = read_model_config(source).base, RunFolder(run).environment_file
    named = base is not None and not base.startswith("package:") and base.count("/") == 1
    is_hub_name = named and not Path(base or "").exists()
    evaluations = [read_json(file) for file in sorted((run / "evaluations").glob("*.json"))]
    return fill(
        "model_card.md",
        name=name,
        method=encoder.format.method,
        base=base if is_hub_name else None,
        evaluations=[e for e in evaluations if "final" in e.get("summary", {})],
        commit=read_json(trained)["git_commit"] if trained.exists() else None,
        check=check,
        is_chat=encoder.is_chat,
        **asdict(BlockRange.of(encoder.format)),
    )
