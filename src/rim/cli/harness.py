"""`rim lm-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rim.cli import common


def lm_eval(
    exported: Annotated[Path, typer.Argument(help="Exported folder (rim export).")],
    to: Annotated[Path, typer.Option(help="Folder for the task files.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A local data file for a task, any that rim eval reads; repeatable. A new name "
            "makes a new task.",
        ),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Memory blocks; as in training if left out.")
    ] = None,
    scoring: Annotated[
        Literal["rim", "regex"],
        typer.Option(help="Our answer parser, or lm_eval alone: the last number counts."),
    ] = "rim",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tasks of the same names.")
    ] = False,
) -> None:
    """Write tasks for lm-evaluation-harness and print the commands that run them.

    Tasks: rim_arithmetic (generated), rim_gsm8k, rim_gsm_hard, rim_svamp. Those without a local
    file are downloaded from the hub when they run. With our parser the scores are those of rim eval
    on the same questions.
    """
    with common.clear_errors():
        common.quiet_libraries()
        from rim.config import ConfigError
        from rim.deploy.harness import model_command, server_command, write_tasks

        files: dict[str, Path] = {}
        for entry in data or []:
            name, _, file = entry.partition("=")
            if not file:
                raise ConfigError(f"--data wants NAME=FILE, got {entry!r}")
            files[name] = Path(file)
        tasks = write_tasks(exported, to, files, scoring=scoring, overwrite=overwrite)
        commands = model_command(tasks, blocks), server_command(tasks, blocks)
        common.say(f"Tasks in {common.escape(str(to))}: {', '.join(tasks.names)}")
        if tasks.left_out:
            common.say(f"Left out, no --data given: {', '.join(tasks.left_out)}")
        common.say("Run them here (pip install lm_eval):")
        typer.echo(commands[0])
        common.say(f"or against a server (transformers serve {common.escape(str(exported))}):")
        typer.echo(commands[1])
