"""A reproduction as a comparison of one method, and its figures beside those expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rim.config import ConfigError
from rim.config.recipe_yaml import (
    apply_override,
    read_recipe,
    recipe_from_dict,
    settings_from_dict,
)
from rim.study.compare.plan import resolve_runs
from rim.study.compare.settings import Comparison
from rim.study.reproduce.catalogue import Entry, Figure, expected, interval, start_of
from rim.study.reproduce.cost import cost_of

#: The only task of the comparison, and its first test set.
TASK, TEST = "gsm8k_aug", "gsm8k"
#: What the comparison decides for all its runs.
_OF_THE_COMPARISON = ("name", "seed", "runs_dir", "data")
_KEYS = tuple(key for key in Comparison.model_fields if key not in ("seeds", "common"))
_ONE = "a reproduction has one method; nothing to be equal to"


def comparison_of(entry: Entry, seeds: Sequence[int], overrides: Sequence[str] = ()) -> Comparison:
    """The comparison that a reproduction is.

    Args:
        overrides: `KEY=VALUE` of the recipe (data: of the start's recipe too), `start.KEY=VALUE` of
            the recipe that it starts from, or one of the comparison (selection.held_out=100).

    Raises:
        ConfigError: a setting is wrong, or does not exist.
    """
    of_start = [o.removeprefix("start.") for o in overrides if o.startswith("start.")]
    outer = [o for o in overrides if _first_key(o) in _KEYS]
    own = [o for o in overrides if not o.startswith("start.") and o not in outer]
    for override in overrides:
        if _first_key(override) == "seed":
            raise ConfigError(f"{override}: --seeds says which seeds there are")
    raw = read_recipe(entry.file, tuple(own))
    recipe = recipe_from_dict(raw, entry.name)
    start, starts, method = start_of(recipe), {}, _without_what_is_shared(raw)
    if start is not None:
        content = _start_recipe(entry, start, of_start)
        starts = {"start": _without_what_is_shared(content)}
        model = {key: value for key, value in method["model"].items() if key != "base"}
        method |= {"from": "start", "model": model}
    elif declared := start_of(entry.recipe()):
        raise ConfigError(
            f"{entry.name} starts from {declared.name}, so its base is that of the start: set "
            f"start.model.base={raw['model']['base']}"
        )
    elif of_start:
        raise ConfigError(f"{entry.name} starts from the base itself: there is no start to set")
    tests = expected().tests
    written = {
        "name": f"paper_{entry.base}",
        "seeds": list(seeds),
        "reference": entry.method,
        "tasks": {
            TASK: {
                "data": raw["data"],
                "test": tests[TEST],
                "extra_tests": {name: tests[name] for name in tests if name != TEST},
            }
        },
        "starts": starts,
        "methods": {entry.method: method},
        "budget": {"exempt": {entry.method: _ONE}},
        "evaluation": {
            "batch_size": recipe.validation.batch_size,
            "max_new_tokens": recipe.validation.max_new_tokens,
        },
        "controls": {"run": "none"},
        "selection": {},  # 16 splits of 264 questions, the paper's
    }
    for override in outer:
        key = override.partition("=")[0]
        if key == "selection" or key.startswith("selection.candidates"):
            raise ConfigError(
                f"{override}: the paper's protocol chooses among the seeds of {entry.method}; its "
                "other settings are selection.held_out, selection.splits and the like"
            )
        apply_override(written, override)
    return settings_from_dict(Comparison, written, entry.name)


def _first_key(override: str) -> str:
    return override.partition("=")[0].partition(".")[0]


def _without_what_is_shared(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in _OF_THE_COMPARISON}


def _start_recipe(entry: Entry, start: Entry, overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        if _first_key(override) in _OF_THE_COMPARISON:
            raise ConfigError(f"start.{override}: this is set for the start and the method alike")
    content = read_recipe(start.file, tuple(overrides))
    recipe_from_dict(content, f"start of {entry.name}")
    return content


def planned(entry: Entry, settings: Comparison) -> dict[str, Any]:
    """Describe a reproduction before anything runs; costs are computed."""
    run = next(run for run in resolve_runs(settings) if run.method == entry.method)
    recipe, first = run.recipe, (run.needs or run).recipe
    cost = cost_of(recipe, entry.sizes)
    start = start_of(entry.recipe()) if run.needs else None
    before = cost_of(first, entry.sizes) if run.needs else None
    sources = {"training": recipe.data.train, **settings.tasks[TASK].all_tests}
    return {
        "name": entry.name,
        "base": first.model.base,
        "method": entry.method,
        "start": start and start.name,
        "seeds": list(settings.seeds),
        "data": {name: f"{s.path}, {s.split}" for name, s in sources.items()},
        "folder": str(settings.folder),
        "stages": [asdict(stage) for stage in cost.stages],
        "hours_a_seed": cost.hours,
        "hours_of_the_start": before.hours if before else 0.0,
        "hours": len(settings.seeds) * (cost.hours + (before.hours if before else 0.0)),
        "memory_gib": max(cost.memory_gib, before.memory_gib if before else 0.0),
        "figures": [expected_figure(figure) for figure in entry.figures],
    }


def expected_figure(figure: Figure) -> dict[str, Any]:
    low, high = interval(figure)
    return figure.model_dump(mode="json") | {"low": low, "high": high}


def judged(entry: Entry, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every test set by both protocols, and where each lies against each expected interval.

    paper_protocol: chosen and scored on splits of the test questions. validation_only: the
    checkpoint was chosen on held-out training questions, and every seed counts.
    """
    content = result["tasks"][TASK]
    if entry.method not in content["methods"]:
        return []
    row, selection = content["methods"][entry.method], content["selection"][entry.method]
    chosen = {TEST: selection, **selection["others"]}
    every = {TEST: row["final"], **row["extra_tests"]}
    wanted = [expected_figure(figure) for figure in entry.figures]
    rows = []
    for test, which in [*((test, "final") for test in every), (TEST, "any_block")]:
        if which == "any_block" and which not in row:
            continue
        found = every[test] if which == "final" else row[which]
        protocols = {"validation_only": _percent(found)}
        if which == "final":
            protocols["paper_protocol"] = _percent(chosen[test])
        same = [f for f in wanted if (f["test"], f["which"]) == (test, which)]
        rows.append(
            {
                "test": test,
                "which": which,
                **protocols,
                "expected": [
                    f | {name: _place(p["mean"], f) for name, p in protocols.items()} for f in same
                ],
            }
        )
    return rows


def _percent(spread: dict[str, Any]) -> dict[str, Any]:
    shares = ("mean", "low", "high", "standard_error")
    kept = {key: 100 * spread[key] for key in shares if key in spread}
    return kept | {key: spread[key] for key in ("kind", "seeds") if key in spread}


def _place(value: float, figure: dict[str, Any]) -> str:
    if value < figure["low"]:
        return "below"
    return "above" if value > figure["high"] else "in"


def reproduction(
    entry: Entry, plan: dict[str, Any], result: dict[str, Any], steps: int | None
) -> dict[str, Any]:
    """The record that is written: the figures first, then all that they come from."""
    return {
        "reproduction": entry.name,
        "trial_steps": steps,
        "figures": judged(entry, result),
        "plan": plan,
        "comparison": result,
    }
