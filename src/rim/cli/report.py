"""`rim report`."""

from __future__ import annotations

from pathlib import Path

from rim.cli import common


def report(
    paths: list[Path],
    *,
    out: Path = Path("report.html"),
    title: str | None = None,
) -> None:
    """Put what is known of runs and comparisons on one page: an HTML file that needs no network.

    What is missing is said, with the command that makes it.

    Args:
        paths (RUN|RESULT...): Run folders, folders of runs (the demo's), and JSONs of rim compare,
            eval, controls, analyze and demo.
        out (FILE): The page.
        title (TEXT): The page's title.
    """
    with common.clear_errors():
        from rim.cli.checks import check_target
        from rim.config import ConfigError
        from rim.config.missing import no_such

        for path in paths:
            if not path.exists():
                raise ConfigError(no_such("run or result", path))
        check_target(out)
        from rim import __version__
        from rim.report.page.build import write_report

        for problem in write_report(paths, out, __version__, title):
            common.say(f"Not read: {problem}")
        common.say(f"Report: {out}")
