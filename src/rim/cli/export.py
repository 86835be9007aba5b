"""`rim export` and `rim push`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common


def export(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the exported model.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Data file whose first questions the self-check asks as well."
        ),
    ] = None,
    format_: common.FormatOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON line instead.")] = False,
) -> None:
    """Write a trained model as a plain transformers folder that any engine serves, and check it.

    The folder appears only if, in a fresh process without this package, its prompts, greedy answers
    and logits equal the run's.
    """
    with common.clear_errors():
        from rim.data.sources import open_file
        from rim.deploy.export.record import check_exportable, check_new
        from rim.models.folder import find_model_dir

        # What can be told without the heavy libraries is told before they are loaded.
        check_exportable(find_model_dir(run))
        check_new(out)
        examples = [] if data is None else open_file(data, format_, 8)
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
            typer.echo(json.dumps(asdict(report), default=str))
            return
        common.say(
            f"Self-check passed in a fresh process: {check.prompts} prompts and answers equal, "
            f"logits within {check.max_logit_difference:.1e}, {check.hostile_texts} hostile texts "
            f"and {check.refused_numbers} wrong numbers refused."
        )
        size = f"{report.total_bytes / 1e6:.1f} MB"
        common.say(f"Exported: {common.escape(str(report.folder))} ({size})")
        common.say(f"Serve it: rim serve {common.quoted(report.folder)}")
        common.say(f"For llama.cpp: rim gguf {common.quoted(report.folder)} --out model.gguf")


def push(
    folder: Annotated[Path, typer.Argument(help="Exported folder.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public (private otherwise).")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON line instead.")] = False,
) -> None:
    """Send an exported folder to the hub, without files that were put into it later."""
    with common.clear_errors():
        from rim.deploy.export.pushing import plan_push
        from rim.deploy.export.pushing import push as send

        plan = plan_push(folder, repo, private=not public)
        if json_:
            address = None if dry_run else send(plan)
            typer.echo(json.dumps(asdict(plan) | {"address": address}, default=str))
            return
        for name, size in plan.files:
            common.say(f"{size:>14,}  {common.escape(name)}")
        common.say(f"{plan.total_bytes:>14,}  bytes in all")
        if plan.left_out:
            names = common.escape(", ".join(plan.left_out))
            common.say(f"Left out, not part of the checked export: {names}")
        if dry_run:
            visibility = "private" if plan.private else "public"
            repo = common.escape(plan.repo)
            common.say(f"Dry run: nothing sent. Would go to {repo} (new: {visibility}).")
            return
        common.say(f"Sent: {common.escape(send(plan))}")
