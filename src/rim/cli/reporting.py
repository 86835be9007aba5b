"""`rim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|RESULT...",
            help="Run folders, folders of runs (the demo's), and JSONs of rim compare, eval, "
            "controls, analyze and demo.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The page's title.")] = None,
) -> None:
    """Put what is known of runs and comparisons on one page: an HTML file that needs no network.

    What is missing is said, with the command that makes it.
    """
    with common.clear_errors():
        from rim.cli.checks import check_target
        from rim.config import ConfigError

        for path in paths:
            if not path.exists():
                raise ConfigError(f"no such run or result: {path}")
        check_target(out)
        from rim import __version__
        from rim.report.page import write_report

        for problem in write_report(paths, out, __version__, title):
            common.say(common.escape(f"Not read: {problem}"))
        common.say(common.escape(f"Report: {out}"))
