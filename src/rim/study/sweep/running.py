"""Every point of a study's grid, continued where it was stopped, and one result of them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from rim.config import ConfigError
from rim.results import environment
from rim.study.compare.plan import PlannedRun, make_plan, training_steps
from rim.study.compare.runner import Failure, run_comparison, sum_up
from rim.study.compare.settings import Comparison
from rim.study.sweep.settings import Point, Study, point_name

#: What a study keeps of a comparison's row of a method.
_KEPT = ("seeds", "final", "by_steps", "extra_tests", "per_block", "steps", "tokens", "parameters")


def comparisons_of(study: Study) -> list[tuple[Point, Comparison]]:
    """Every point at which something is trained, and its comparison, all checked.

    Raises:
        ConfigError: a setting is wrong somewhere on the grid.
    """
    settings = [(point, study.at(point)) for point in study.points()]
    return [(point, comparison) for point, comparison in settings if comparison is not None]


def run_study(
    study: Study, console: Console, *, jobs: int = 1
) -> tuple[dict[str, Any], list[Failure]]:
    """Train and test what is not done yet, point by point.

    Args:
        jobs: runs at a time within a point, each in a process of its own.

    Raises:
        ConfigError, DataError: a recipe is wrong; found before anything trains.
    """
    points = comparisons_of(study)
    plans = [make_plan(settings) for _, settings in points]
    console.print(f"[bold]{study.name}[/]: {_cost(plans)}", highlight=False)
    failures: list[Failure] = []
    results = []
    for number, (point, settings) in enumerate(points, 1):
        console.rule(f"Point {number} of {len(points)}: {point_name(point)}", align="left")
        result, failed = run_comparison(settings, console, jobs=jobs)
        failures += failed
        results.append((point, result))
    return _result(study, results), failures


def _cost(plans: Sequence[Sequence[PlannedRun]]) -> str:
    """`3 points, 18 runs of 1,500 training steps (18 to do: 27,000 steps)`."""
    runs = [(run, training_steps(run.recipe)[0]) for plan in plans for run in plan]
    least, most = (choose(steps for _, steps in runs) for choose in (min, max))
    each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    to_do = [steps for run, steps in runs if not run.done]
    return (
        f"{len(plans)} points, {len(runs)} runs of {each} training steps "
        f"({len(to_do)} to do: {sum(to_do):,} steps). --steps N makes it a trial"
    )


def sum_up_study(study: Study) -> dict[str, Any]:
    """What is finished; nothing is run.

    Raises:
        ConfigError: there is nothing yet.
    """
    results, missing = [], list[str]()
    for point, settings in comparisons_of(study):
        plan = make_plan(settings)
        if any(run.result and run.done for run in plan):
            results.append((point, sum_up(settings)))
        else:
            missing += [f"{point_name(point)}/{run.name}" for run in plan if run.result]
    if not results:
        raise ConfigError(f"{study.folder} has no results yet; leave out --table-only to run")
    result = _result(study, results)
    return result | {"missing": result["missing"] + missing}


def _result(study: Study, results: list[tuple[Point, dict[str, Any]]]) -> dict[str, Any]:
    cells = [
        {
            "at": point,
            "task": task,
            "method": name,
            **{key: row[key] for key in _KEPT if key in row},
            "reach": reach(row["by_steps"], study.enough),
        }
        for point, result in results
        for task, content in result["tasks"].items()
        for name, row in content["methods"].items()
    ]
    return {
        "name": study.name,
        "question": study.question,
        "enough": study.enough,
        "seeds": list(study.seeds),
        "axes": {key: list(axis.values) for key, axis in study.axes.items()},
        "cells": cells,
        "missing": [
            f"{point_name(point)}/{run}" for point, result in results for run in result["missing"]
        ],
        "commits": sorted(
            {c for _, result in results for t in result["tasks"].values() for c in t["commits"]}
        ),
        "settings": study.model_dump(mode="json"),
        "summed_up_by": environment(),
    }


def reach(by_steps: list[dict[str, Any]], enough: float) -> int:
    """The most steps up to which every number of steps has at least this accuracy, the mean over
    seeds; 0 where not even the fewest have.
    """
    reached = 0
    for row in sorted(by_steps, key=lambda row: row["steps"]):
        if row["mean"] < enough:
            break
        reached = row["steps"]
    return reached
