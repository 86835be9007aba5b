"""`rim export` and `rim push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common


def export(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    to: Annotated[Path, typer.Option(help="New folder for the exported model.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Data file whose first questions the self-check asks as well."),
    ] = None,
    format_: common.FormatOption = None,
) -> None:
    """Write a trained model as a plain transformers folder that any engine serves, and check it.

    The folder appears only if, in a fresh process without this package, its prompts, greedy answers
    and logits equal the run's.
    """
    with common.clear_errors():
        common.quiet_libraries()
        from rim.data.sources import open_file
        from rim.deploy.export import export_run
        from rim.deploy.export.check import QUESTIONS
        from rim.train.callbacks import progress_bar

        questions = list(QUESTIONS)
        if data is not None:
            questions += [example.question for example in open_file(data, format_, 8)]
        with progress_bar(common.console) as bar:
            task = bar.add_task("export", total=5, note="")
            report = export_run(
                run,
                to,
                questions=questions,
                progress=lambda step: bar.update(task, advance=1, note=step),
            )
            bar.update(task, completed=5, note="")
        check = report.check
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
) -> None:
    """Send an exported folder to the hub, without files that were put into it later."""
    with common.clear_errors():
        from rim.deploy.export.pushing import plan_push
        from rim.deploy.export.pushing import push as send

        plan = plan_push(folder, repo, private=not public)
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
