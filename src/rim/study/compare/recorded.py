"""What runs were made with, against what the comparison says now.

Nothing is ever mixed: what another recipe, start, test or evaluation made is refused, and the
message names what differs and what must be deleted to make it again. Controls and latencies are not
refused but measured again (`rim.study.compare.measure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.config import ConfigError
from rim.config.differences import difference
from rim.config.recipe_yaml import load_recipe
from rim.results import read_json
from rim.study.compare.plan import PlannedRun
from rim.study.compare.settings import Comparison

#: What training depends on; on the rest of `asked` only the measurements do.
TRAINED_WITH = ("recipe", "start_recipe", "earlier_starts")  # a start, and what it started from

# What a run that was stopped before its first checkpoint can have left behind.
_BEGINNINGS = {
    "config.yaml",
    "environment.json",
    "environment.json.partial",
    "metrics.jsonl",
    "micro_batches.json",
    "readouts.json",
}


def read_result(run: PlannedRun) -> dict[str, Any]:
    """A finished run's result."""
    assert run.result is not None, "starts have no result"
    return read_json(run.result)


def asked(settings: Comparison, run: PlannedRun) -> dict[str, Any]:
    """Return all settings that a result depends on, as they stand in its JSON."""
    sources = settings.tasks[run.task].all_tests
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        "start_recipe": run.needs.recipe.model_dump(mode="json") if run.needs else None,
        "earlier_starts": [s.recipe.model_dump(mode="json") for s in run.starts[1:]],
        "tests": {name: source.model_dump(mode="json") for name, source in sources.items()},
        "evaluation": settings.evaluation.model_dump(mode="json"),
    }


def refuse_changes(settings: Comparison, runs: Sequence[PlannedRun]) -> None:
    """Refuse to mix what is there with what the comparison says now.

    Raises:
        ConfigError: recipes, starts, tests or the evaluation changed since a run began.
    """
    reasons: list[str] = []
    delete: dict[str, None] = {}  # in order, each once
    for run in runs:
        now = asked(settings, run)
        made = _made_with(run, tuple(now))
        changed = [key for key in now if key in made and made[key] != now[key]]
        if not changed:
            continue
        # Tests and the evaluation cost the result alone; the trained model stays.
        there = [run.result] if run.result and run.result.exists() else []
        there += [run.folder.path] if set(changed) & set(TRAINED_WITH) else []
        delete |= dict.fromkeys(map(str, there))
        where = difference(made[changed[0]], now[changed[0]])
        reasons.append(f"{there[0]} was made with another {changed[0]} ({where})")
    if reasons:
        more = f", and {len(reasons) - 1} more likewise" if len(reasons) > 1 else ""
        raise ConfigError(
            f"{reasons[0]}{more}; give the comparison another name (--set name=other; `rim demo`: "
            "another --runs-dir), or delete "
            f"{' '.join(delete)} and start it again"
        )


def _made_with(run: PlannedRun, keys: Sequence[str]) -> dict[str, Any]:
    """The part of `asked` that is known of what is there: a result, a model or a part of one."""
    if run.result is not None and run.result.exists():
        record = read_result(run)
        return {key: record.get(key) for key in keys}
    if not run.folder.path.exists() or is_empty_beginning(run):
        return {}
    starts = [_recipe_in(file) for file, _ in run.start_files]
    first = starts[0] if starts else None
    recipe = _recipe_in(run.folder.config_file)
    return {"recipe": recipe, "start_recipe": first, "earlier_starts": starts[1:]}


def _recipe_in(file: Path) -> dict[str, Any] | None:
    return load_recipe(file).model_dump(mode="json") if file.exists() else None


def is_empty_beginning(run: PlannedRun) -> bool:
    """Whether a run was killed before its first stage: nothing of it is worth keeping."""
    folder = run.folder.path
    return folder.exists() and {path.name for path in folder.iterdir()} <= _BEGINNINGS
