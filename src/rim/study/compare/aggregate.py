"""Run JSONs to one comparison: means, intervals, tests, controls, costs. Reads files only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from rim.config import ConfigError
from rim.evaluate.statistics import joint_p, mcnemar, share_spread, value_spread
from rim.evaluate.verdicts import control_verdicts, verdict
from rim.results import environment, read_json
from rim.study.compare.plan import PlannedRun, check_tokens
from rim.study.compare.recorded import read_result
from rim.study.compare.selection import selections
from rim.study.compare.settings import Comparison

Record = dict[str, Any]


def read_results(plan: Sequence[PlannedRun], task: str) -> list[Record]:
    """The finished results of a task, in the recipe's order."""
    return [read_result(run) for run in plan if run.task == task and run.result and run.done]


def aggregate(settings: Comparison, plan: Sequence[PlannedRun]) -> dict[str, Any]:
    """The comparison so far; `missing` names the runs that have no result yet.

    Raises:
        ConfigError: results of one task were made on different questions, or with unequal budgets.
    """
    tasks = {}
    for task in settings.tasks:
        records = read_results(plan, task)
        _same_questions(task, records)
        starts = [r for r in plan if r.task == task and r.result is None and r.done]
        _same_training(task, records, starts)
        check_tokens(settings, task, records)
        by_method = {name: [r for r in records if r["method"] == name] for name in settings.methods}
        by_method = {name: rows for name, rows in by_method.items() if rows}
        right = {
            name: {r["seed"]: r["results"]["test"]["right"]["final"] for r in rows}
            for name, rows in by_method.items()
        }
        others = {
            test: {
                name: {r["seed"]: r["results"][test]["right"]["final"] for r in rows}
                for name, rows in by_method.items()
            }
            for test in settings.tasks[task].extra_tests
        }
        tasks[task] = {
            **_origin(starts, records),
            "commonest_answer": _commonest_answer(records),
            "methods": {n: _method(settings, n, by_method) for n in by_method},
            "starts": _starts(settings, starts),
            "controls": _controls(settings, by_method),
            "selection": selections(settings, right, others),
        }
    return {
        "name": settings.name,
        "seeds": list(settings.seeds),
        "reference": settings.reference,
        "budget": settings.budget.model_dump(mode="json"),
        "latency": settings.latency.model_dump(mode="json"),
        "tasks": tasks,
        "missing": [run.name for run in plan if run.result and not run.done],
        "settings": settings.model_dump(mode="json"),
        "summed_up_by": environment(),
    }


def _same_questions(task: str, records: list[Record]) -> None:
    hashes = {json.dumps({n: t["data"] for n, t in r["results"].items()}) for r in records}
    if len(hashes) > 1:
        raise ConfigError(
            f"task {task}: its results were made on different test questions; delete those made on "
            "the old ones"
        )


def _same_training(task: str, records: list[Record], starts: Sequence[PlannedRun]) -> None:
    """One seed's models with one recipe's data, starts among them, trained on the same examples: a
    file that changed in place between two runs is told by its hash alone.
    """
    trained = [(r["method"], r["seed"], r["recipe"]["data"], r["trained"]["data"]) for r in records]
    for run in starts:
        data = run.recipe.data.model_dump(mode="json")
        about = read_json(run.folder.environment_file)
        trained.append((f"the start {run.name}", run.recipe.seed, data, about["data"]))
    found: dict[str, tuple[str, Record]] = {}
    for name, seed, data, hashes in trained:
        key = json.dumps([seed, data], sort_keys=True)
        hashes = {part: hashes[part] for part in ("train", "validation")}
        first, was = found.setdefault(key, (name, hashes))
        if hashes != was:
            both = f"{first} and {name}, seed {seed}"
            raise ConfigError(
                f"task {task}: {both}, were trained on different data though their recipes name "
                "the same: a data file changed in between; delete the run and the result of one of "
                "them and train it again"
            )


def _origin(starts: Sequence[PlannedRun], records: list[Record]) -> Record:
    """Collect the training and test data of a task's models, and the library's commits."""
    trainings = [r["trained"] for r in records]
    trainings += [read_json(run.folder.environment_file) for run in starts]
    runs = [*trainings, *(again for t in trainings for again in t.get("resumed", []))]
    commits = {e["git_commit"] or "unknown" for e in [*runs, *(r["environment"] for r in records)]}
    tests = {name: t["data"] for name, t in records[0]["results"].items()} if records else {}
    parts = ("train", "validation")
    hashes = {part: sorted({t["data"][part] for t in trainings}) for part in parts}
    return {"data": {"tests": tests, **hashes}, "commits": sorted(commits)}


def _commonest_answer(records: Sequence[Record]) -> float | None:
    """The share of the test's most frequent answer; None where all results are older than it."""
    return next((r["commonest_answer"] for r in records if "commonest_answer" in r), None)


def _rights(records: Sequence[Record], test: str = "test", which: str = "final") -> list[str]:
    return [r["results"][test]["right"][which] for r in records]


def _method(settings: Comparison, name: str, by_method: dict[str, list[Record]]) -> Record:
    records = by_method[name]
    tests, reference = records[0]["results"], settings.reference
    row: Record = {
        "seeds": [r["seed"] for r in records],
        "final": share_spread(_rights(records)),
        "per_seed": [r["results"]["test"]["summary"]["final"] for r in records],
        "by_steps": _grouped(records, "by_steps", "steps"),
        "extra_tests": {n: share_spread(_rights(records, n)) for n in tests if n != "test"},
        **_against(records, [] if name == settings.reference else by_method.get(reference, [])),
        "parameters": records[0]["training"]["stages"][-1]["parameters"],
        "control_of": settings.methods[name].control_of,
        "exempt": settings.budget.exempt.get(name),
        "controls_refused": records[0]["controls_refused"],
    }
    if "any_block" in tests["test"]["right"]:
        row["any_block"] = share_spread(_rights(records, which="any_block"))
        row["per_block"] = _grouped(records, "per_block", "block")
    row["unfinished"] = fmean(
        r["results"]["test"]["summary"]["unfinished"] / r["results"]["test"]["summary"]["questions"]
        for r in records
    )
    for key in ("steps", "examples", "tokens", "target_tokens", "seconds"):
        row[key] = value_spread([r["training"]["total"][key] for r in records])
    row["learning"] = [
        {"seed": r["seed"], "points": r["learning"]} for r in records if r["learning"]
    ]
    if timed := [r["latency"] for r in records if "latency" in r]:
        keys = ("ttft_ms", "answer_ms", "tokens")
        latency: Record = {key: value_spread([t[key] for t in timed]) for key in keys}
        # Which runs took turns, how: times of other sessions are not to be divided by these.
        latency["runs"] = [r["latency_settings"] for r in records if "latency" in r]
        row["latency"] = latency
    return row


def _against(records: list[Record], reference: list[Record]) -> Record:
    """McNemar of each seed that both have (the same questions, paired), and their joint p."""
    other = {r["seed"]: r for r in reference}
    tests = {
        r["seed"]: mcnemar(*_rights([r, other[r["seed"]]])) for r in records if r["seed"] in other
    }
    return {
        "against_reference": [{"seed": seed} | asdict(test) for seed, test in tests.items()],
        "p": joint_p(list(tests.values())) if tests else None,
    }


def _grouped(records: list[Record], part: str, key: str) -> list[Record]:
    """The rows of a summary's list, by key, over seeds."""
    found: dict[int, list[Record]] = {}
    for record in records:
        for row in record["results"]["test"]["summary"][part]:
            found.setdefault(row[key], []).append(row)
    return [
        {key: value, "questions": rows[0]["total"]}
        | value_spread([row["accuracy"] for row in rows])
        for value, rows in sorted(found.items())
    ]


def _starts(settings: Comparison, starts: Sequence[PlannedRun]) -> dict[str, Record]:
    """Sum up the cost of the models that others start from, which no method's own budget counts."""
    costs: dict[str, list[Record]] = {}
    for run in starts:
        costs.setdefault(run.method, []).append(read_json(run.folder.training_file)["total"])
    return {
        name: {key: value_spread([c[key] for c in found]) for key in found[0]}
        | {"methods": [n for n, m in settings.methods.items() if name in settings.line_of(m.start)]}
        for name, found in costs.items()
    }


def _controls(settings: Comparison, by_method: dict[str, list[Record]]) -> list[Record]:
    """Verdicts: interventions on trained models first, then methods trained as controls."""
    verdicts = [
        v
        for name, records in by_method.items()
        if settings.wants_controls(name)
        for v in control_verdicts(
            name,
            _rights(records),
            [r["controls"] for r in records],
            [r["test_steps"] for r in records],
        )
    ]
    for name, records in by_method.items():
        controlled = settings.methods[name].control_of
        of = {r["seed"]: r for r in by_method.get(controlled or "", [])}
        both = [(of[r["seed"]], r) for r in records if r["seed"] in of]
        if both:
            before, after = (_rights(side) for side in zip(*both, strict=True))
            verdicts.append(verdict(f"{name} instead of {controlled}", before, after))
    return verdicts
