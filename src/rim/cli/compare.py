"""`rim compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.cli import common
from rim.cli.columns import reading
from rim.cli.help import MinutesOrNone, Positive, PositiveOrNone, refuse_unused


def compare(
    recipe: Path | None = None,
    *,
    data: Path | None = None,
    base: str | None = None,
    test: Path | None = None,
    steps: PositiveOrNone = None,
    blocks: PositiveOrNone = None,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    set_: list[str] | None = None,
    seeds: str | None = None,
    only: list[str] | None = None,
    jobs: Positive = 1,
    minutes: MinutesOrNone = None,
    out: Path | None = None,
    table_only: bool = False,
    json_: bool = False,
) -> None:
    """Train methods side by side, seed by seed, and compare accuracy, cost and latency.

    Is it worth it for my data? `rim compare --data my.jsonl --base MODEL` says so in words: direct
    answers, chain of thought, RiM, and direct answers after RiM's first stage, the same steps of
    the same examples, and direct answers with twice the steps, on questions of your file that none
    of them was trained on.

    Interrupt it at any time: the same command continues. Writes one JSON a run, one for the whole,
    and a plot of accuracy against latency beside it; with --data a page, too.

    Args:
        recipe (RECIPE): Comparison YAML, e.g. recipes/compare_arithmetic.yaml; with --data our own
            if left out.
        data (DATA): Your questions, steps and answers: JSONL, CSV, Parquet, hub:OWNER/NAME:SPLIT. A
            fifth of the questions is the test.
        base (MODEL): With --data: the model all begin with; folder, GGUF file, package:NAME or hub
            id.
        test (DATA): With --data: test questions of their own.
        steps (N): Optimizer steps of each method, in a folder of its own (NAME-Nsteps). With --data
            five epochs if left out; a recipe's own become a trial of so many.
        blocks (K): With --data: memory blocks; the steps of 95 % of the examples and one if left
            out.
        set_ (KEY=VALUE): Change a setting: budget.kind=tokens. Repeatable.
        seeds (N,...): The recipe's if left out.
        only (NAME): Run this method only (with its start). Repeatable.
        jobs (N): Runs at a time, each with its share of the cores.
        minutes (X): Save and stop after so long, with exit code 143; the same command continues.
        out (FILE): Result JSON; comparison.json in its folder if left out.
        table_only: Run nothing: sum up what is finished.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import check_target, comma_separated
        from rim.cli.hub import check_base
        from rim.config import ConfigError
        from rim.data.sources import file_source
        from rim.study import COMPARE_MY_DATA
        from rim.study.compare.my_data import compare_my_data
        from rim.study.compare.settings import load_comparison
        from rim.study.compare.trial import trial

        if out is not None and out.suffix != ".json":
            raise ConfigError(f"--out {out}: the result is a .json file")
        if table_only and (only or jobs > 1):
            raise ConfigError(
                "--table-only sums up all that is finished; leave out --only and --jobs"
            )
        numbers = comma_separated("--seeds", seeds)
        chosen = [] if numbers is None else [f"seeds={numbers}"]
        overrides, person = (*(set_ or ()), *chosen), common.console_for(json_)
        if data is not None:
            if base is None:
                raise ConfigError("--data needs --base, the model that every method begins with")
            check_base(base)
            read = (format_, reading(column, separator))
            mine = compare_my_data(
                recipe or COMPARE_MY_DATA,
                file_source(data, *read),
                base,
                test=None if test is None else file_source(test, *read),
                steps=steps,
                blocks=blocks,
                overrides=overrides,
            )
            settings = mine.settings
            for line in mine.told:
                common.say(line, person)
        elif recipe is not None:
            own = ("base", "test", "blocks", "column", "format_", "separator")
            refuse_unused("only with --data; a recipe says it itself", *own)
            settings = load_comparison(recipe, overrides)
            if steps is not None:
                settings = trial(settings, steps)
        else:
            raise ConfigError("give a comparison's YAML, or --data FILE --base MODEL")
        target = out or settings.folder / "comparison.json"
        check_target(target)
        if not table_only:
            check_runs(settings, only or ())
        common.quiet_libraries()
        from rim import __version__
        from rim.report.page.build import write_report
        from rim.report.verdict import verdict
        from rim.results import write_json
        from rim.study.compare.runner import run_comparison, sum_up
        from rim.train.stopping import time_limit

        failures: list[Any] = []
        if table_only:
            result = sum_up(settings)
        else:
            with time_limit(minutes):
                result, failures = run_comparison(settings, person, only=only or (), jobs=jobs)
        result["verdict"] = verdict(result)
        write_json(target, result)
        _show(common.printable_tree(result), person)
        plots = _write_plots(result, target)
        written = [f"Result: {target}", *(f"Plot: {plot}" for plot in plots)]
        if data is not None:
            page = target.with_suffix(".html")
            write_report([target], page, __version__, f"Is it worth it for {data.name}?")
            written.append(f"All of it on one page: {page}")
        common.say("\n".join(written), person)
        for line in (line for lines in result["verdict"].values() for line in lines):
            common.say(line, person, style="bold")
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
    from rim.report.learned import told_controls

    for table in comparison_tables(result):
        person.print(table)
    lines = notes(result)
    for task, content in result["tasks"].items():
        told, left_out = told_controls(content, result["reference"])
        found = [*(verdict["line"] for verdict in told), *left_out]
        lines += [f"Control, {task}: {line}" for line in found]
    for line in lines:
        person.print(line, highlight=False, markup=False)


def _write_plots(result: dict[str, Any], target: Path) -> list[Path]:
    """Write plots of every task: accuracy against latency, if timed, and the learning curves."""
    from rim.report.charts import standalone
    from rim.report.curves import learning_chart
    from rim.report.plot import accuracy_latency_svg

    written = []
    for task, content in result["tasks"].items():
        suffix = f"-{task}" if len(result["tasks"]) > 1 else ""
        pictures = {}
        if timed := {name: row for name, row in content["methods"].items() if "latency" in row}:
            pictures[f"{target.stem}{suffix}.svg"] = accuracy_latency_svg(task, timed)
        if learning := learning_chart(task, content["methods"]):
            pictures[f"{target.stem}{suffix}-learning.svg"] = standalone(learning)
        for name, picture in pictures.items():
            target.with_name(name).write_text(picture, encoding="utf-8")
            written.append(target.with_name(name))
    return written
