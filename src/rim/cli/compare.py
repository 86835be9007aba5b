"""`rim compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rim.cli import common


def compare(
    recipe: Annotated[
        Path, typer.Argument(help="Comparison YAML, e.g. recipes/compare_arithmetic.yaml.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: budget.kind=tokens. Repeatable."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Comma-separated; the recipe's if left out.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this method only (with its start). Repeatable.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time, each with its share of the cores.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Result JSON; RUNS_DIR/NAME/comparison.json if left out."),
    ] = None,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Run nothing: sum up what is finished.")
    ] = False,
) -> None:
    """Train methods side by side, seed by seed, and compare accuracy, cost and latency.

    Interrupt it at any time: the same command continues. Writes one JSON a run, one for the whole,
    and a plot of accuracy against latency beside it.
    """
    with common.clear_errors("The same command continues."):
        common.quiet_libraries()
        from rim.config import ConfigError
        from rim.results import write_json
        from rim.study.compare import load_comparison, run_comparison, sum_up

        if out is not None and out.suffix != ".json":
            raise ConfigError(f"--out {out}: the result is a .json file")
        if table_only and (only or jobs > 1):
            raise ConfigError(
                "--table-only sums up all that is finished; leave out --only and --jobs"
            )
        chosen = [f"seeds=[{seeds}]"] if seeds is not None else []
        settings = load_comparison(recipe, (*(set_ or ()), *chosen))
        failures: list[Any] = []
        if table_only:
            result = sum_up(settings)
        else:
            result, failures = run_comparison(settings, common.console, only=only or (), jobs=jobs)
        target = out or settings.folder / "comparison.json"
        write_json(target, result)
        _show(result)
        plots = _write_plots(result, target)
        common.say("\n".join([f"Result: {target}", *(f"Plot: {plot}" for plot in plots)]))
        if failures:
            reasons = "; ".join(f"{f.run.name}: {f.reason}" for f in failures)
            raise ConfigError(f"{len(failures)} of the runs failed. {reasons}")


def _show(result: dict[str, Any]) -> None:
    from rim.report.comparison import comparison_tables, notes

    for table in comparison_tables(result):
        common.console.print(table)
    for line in notes(result):
        common.console.print(line, highlight=False, markup=False)
    for task, content in result["tasks"].items():
        for verdict in content["controls"]:
            line = f"Control, {task}: {verdict['line']}"
            common.console.print(line, highlight=False, markup=False)


def _write_plots(result: dict[str, Any], target: Path) -> list[Path]:
    """One SVG a task that was timed."""
    from rim.report.plot import accuracy_latency_svg

    written = []
    for task, content in result["tasks"].items():
        points = {name: row for name, row in content["methods"].items() if "latency" in row}
        if points:
            suffix = f"-{task}" if len(result["tasks"]) > 1 else ""
            path = target.with_name(f"{target.stem}{suffix}.svg")
            path.write_text(accuracy_latency_svg(task, points), encoding="utf-8")
            written.append(path)
    return written
