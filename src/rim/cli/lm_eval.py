"""`rim lm-eval`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import typer

from rim.cli import common


def lm_eval(
    exported: Path,
    *,
    out: Path,
    data: list[str] | None = None,
    blocks: str | None = None,
    scoring: Literal["rim", "regex"] = "rim",
    overwrite: bool = False,
    json_: bool = False,
) -> None:
    """Write tasks for lm-evaluation-harness and print the commands that run them.

    Tasks: rim_arithmetic (generated), rim_gsm8k, rim_gsm_hard, rim_svamp. Those without a local
    file are downloaded from the hub when they run. With our parser the scores are those of rim eval
    on the same questions.

    Args:
        exported (EXPORTED): Exported folder (rim export).
        out (DIR): Folder for the task files, new or not.
        data (NAME=FILE): A local data file for a task, any that rim eval reads; repeatable. A new
            name makes a new task.
        blocks (K[,K...]): Memory blocks; several numbers give the commands for each. As in training
            if left out.
        scoring (NAME): rim: our answer parser; regex: lm_eval alone, the last number counts.
        overwrite: Replace tasks of the same names.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts
        from rim.config import ConfigError
        from rim.deploy.export.record import read_record
        from rim.deploy.harness.writing import model_command, server_command, write_tasks

        files: dict[str, Path] = {}
        for entry in data or []:
            name, _, file = entry.partition("=")
            if not file:
                raise ConfigError(f"--data wants NAME=FILE, got {entry!r}")
            files[name] = Path(file)
        counts = block_counts(blocks)
        for count in counts:
            if count is not None:
                read_record(exported).blocks.check(count)
        tasks = write_tasks(exported, out, files, scoring=scoring, overwrite=overwrite)
        here = [model_command(tasks, count) for count in counts]
        served = [server_command(tasks, count) for count in counts]
        if json_:
            commands = {"model_commands": here, "server_commands": served}
            common.print_json(asdict(tasks) | commands)
            return
        common.say(f"Tasks in {out}: {', '.join(tasks.names)}")
        if tasks.left_out:
            common.say(f"Left out, no --data given: {', '.join(tasks.left_out)}")
        common.say("Run them here (pip install lm_eval):")
        typer.echo("\n".join(here))
        common.say(f"or against a server (transformers serve {exported}):")
        typer.echo("\n".join(served))
