"""`rim export` and `rim push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rim.cli import common
from rim.cli.columns import reading
from rim.cli.help import refuse_unused


def export(
    run: Path,
    *,
    out: Path,
    data: Path | None = None,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    json_: bool = False,
) -> None:
    """Write a trained model as a plain transformers folder that any engine serves, and check it.

    The folder appears only if, in a fresh process without this package, its prompts, greedy answers
    and logits equal the run's.

    Args:
        out (DIR): New folder for the exported model.
        data (FILE): Data file whose first questions the self-check asks as well.
    """
    with common.clear_errors():
        from rim.data.sources import open_file
        from rim.deploy.export.record import check_exportable, check_new
        from rim.models.folder import find_model_dir

        # What can be told without the heavy libraries is told before they are loaded.
        if data is None:
            refuse_unused("only with --data", "format_", "column", "separator")
        check_exportable(find_model_dir(run))
        check_new(out)
        examples = [] if data is None else open_file(data, format_, 8, reading(column, separator))
        common.quiet_libraries()
        from rim.deploy.export import export_run
        from rim.deploy.export.check import QUESTIONS

        questions = [*QUESTIONS, *(example.question for example in examples)]
        with common.progress("export", 5, common.console_for(json_)) as advance:
            report = export_run(
                run, out, questions=questions, progress=lambda step: advance(1, step)
            )
        check = report.check
        if json_:
            common.print_json(asdict(report))
            return
        common.say(
            f"Self-check passed in a fresh process: {check.prompts} prompts and answers equal, "
            f"logits within {check.max_logit_difference:.1e}, {check.hostile_texts} hostile texts "
            f"and {check.refused_numbers} wrong numbers refused."
        )
        common.say(f"Exported: {report.folder} ({report.total_bytes / 1e6:.1f} MB)")
        common.say(f"Serve it: rim serve {common.quoted(report.folder)}")
        common.say(f"For llama.cpp: rim gguf {common.quoted(report.folder)} --out model.gguf")


def push(
    folder: Path, repo: str, *, dry_run: bool = False, public: bool = False, json_: bool = False
) -> None:
    """Send an exported folder to the hub, without files that were put into it later.

    Args:
        folder (FOLDER): Exported folder.
        repo (REPO): OWNER/NAME on the hub.
        dry_run: Say what would be sent, and send nothing.
        public: Make a new repository public (private otherwise).
    """
    with common.clear_errors():
        from rim.deploy.export.pushing import plan_push
        from rim.deploy.export.pushing import push as send

        plan = plan_push(folder, repo, private=not public)
        if json_:
            address = None if dry_run else send(plan)
            common.print_json(asdict(plan) | {"address": address})
            return
        for name, size in plan.files:
            common.say(f"{size:>14,}  {name}")
        common.say(f"{plan.total_bytes:>14,}  bytes in all")
        if plan.left_out:
            names = ", ".join(plan.left_out)
            common.say(f"Left out, not part of the checked export: {names}")
        if dry_run:
            visibility = "private" if plan.private else "public"
            common.say(f"Dry run: nothing sent. Would go to {plan.repo} (new: {visibility}).")
            return
        common.say(f"Sent: {send(plan)}")
