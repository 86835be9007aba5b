"""`rim compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.cli import common
from rim.cli.help import MinutesOrNone, Positive, PositiveOrNone


def compare(
    recipe: Path,
    *,
    set_: list[str] | None = None,
    seeds: str | None = None,
    only: list[str] | None = None,
    jobs: Positive = 1,
    steps: PositiveOrNone = None,
    minutes: MinutesOrNone = None,
    out: Path | None = None,
    table_only: bool = False,
    json_: bool = False,
) -> None:
    """Train methods side by side, seed by seed, and compare accuracy, cost and latency.

    Interrupt it at any time: the same command continues. Writes one JSON a run, one for the whole,
    and a plot of accuracy against latency beside it.

    Args:
        recipe (RECIPE): Comparison YAML, e.g. recipes/compare_arithmetic.yaml.
        set_ (KEY=VALUE): Change a setting: budget.kind=tokens. Repeatable.
        seeds (N,...): The recipe's if left out.
        only (NAME): Run this method only (with its start). Repeatable.
        jobs (N): Runs at a time, each with its share of the cores.
        steps (N): A trial: so many optimizer steps a run, in a folder of its own.
        minutes (X): Save and stop after so long, with exit code 143; the same command continues.
        out (FILE): Result JSON; comparison.json in its folder if left out.
        table_only: Run nothing: sum up what is finished.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import check_target, comma_separated
        from rim.config import ConfigError
        from rim.study.compare.settings import load_comparison

        if out is not None and out.suffix != ".json":
            raise ConfigError(f"--out {out}: the result is a .json file")
        if table_only and (only or jobs > 1):
            raise ConfigError(
                "--table-only sums up all that is finished; leave out --only and --jobs"
            )
        numbers = comma_separated("--seeds", seeds)
        chosen = [] if numbers is None else [f"seeds={numbers}"]
        settings = load_comparison(recipe, (*(set_ or ()), *chosen))
        if steps is not None:
            from rim.study.compare.trial import trial

            settings = trial(settings, steps)
        target = out or settings.folder / "comparison.json"
        check_target(target)
        if not table_only:
            check_runs(settings, only or ())
        common.quiet_libraries()
        from rim.results import write_json
        from rim.study.compare.runner import run_comparison, sum_up
        from rim.train.stopping import time_limit

        person = common.console_for(json_)
        failures: list[Any] = []
        if table_only:
            result = sum_up(settings)
        else:
            with time_limit(minutes):
                result, failures = run_comparison(settings, person, only=only or (), jobs=jobs)
        write_json(target, result)
        _show(common.printable_tree(result), person)
        plots = _write_plots(result, target)
        written = [f"Result: {target}", *(f"Plot: {plot}" for plot in plots)]
        common.say("\n".join(written), person)
        if json_:
            common.print_json(result)
        fail_for(failures)


def fail_for(failures: Sequence[Any]) -> None:
    """
    Raises:
        ConfigError: there are failures; it names them.
    """
    from rim.config import ConfigError

    if failures:
        reasons = "; ".join(f"{f.run.name}: {f.reason}" for f in failures)
        raise ConfigError(f"{len(failures)} of the runs failed. {reasons}")


def check_runs(settings: Any, only: Sequence[str] = ()) -> None:
    """Whether every run that is asked for could begin (starts of others are made on the way)."""
    from rim.cli.checks import check_recipe
    from rim.study.compare.plan import choose, resolve_runs

    runs = resolve_runs(settings)
    for run in choose(settings, runs, only):
        if not run.done:
            check_recipe(run.recipe, needs_base=run.needs is None)


def _show(result: dict[str, Any], person: Any) -> None:
    from rim.report.comparison import comparison_tables, notes

    for table in comparison_tables(result):
        person.print(table)
    lines = notes(result)
    for task, content in result["tasks"].items():
        lines += [f"Control, {task}: {verdict['line']}" for verdict in content["controls"]]
    for line in lines:
        person.print(line, highlight=False, markup=False)


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
