"""`rim data`: look at a data set before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common

app = typer.Typer(help="Look at a data set before training on it.", no_args_is_help=True)


@app.command()
def stats(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    limit: common.LimitOption = None,
) -> None:
    """Count examples, steps and lengths."""
    with common.clear_errors():
        from rim.data.sources import describe, open_file
        from rim.report.tables import stats_table

        common.console.print(stats_table(file.name, describe(open_file(file, format_, limit))))


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    allow_empty_steps: Annotated[
        bool, typer.Option("--allow-empty-steps", help="For data that is only evaluated on.")
    ] = False,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with common.clear_errors():
        from rim.data.sources import find_problems

        count, problems = find_problems(file, format_, allow_empty_steps)
        for problem in problems[:50]:
            common.console.print(common.escape(problem), highlight=False, soft_wrap=True)
        if len(problems) > 50:
            common.say(f"... and {len(problems) - 50} more")
        if problems:
            common.console.print(f"[red]{len(problems)} problems in {count} records[/]")
            raise typer.Exit(1)
        common.say(f"[green]{count} records, no problems[/]")
