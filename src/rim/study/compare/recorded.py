"""What finished runs were made with, against what the comparison says now.

Results are never mixed: what another recipe, start or test made is refused, and the message names
all that must be deleted to make it again. Controls and latencies are not refused but measured again
(`rim.study.compare.measure`); a mere summing up refuses those too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rim.config import ConfigError, Recipe
from rim.config.recipe_yaml import load_recipe
from rim.study.compare.plan import Run
from rim.study.compare.settings import Comparison

#: What training depends on; of the rest of `asked` only the measurements do.
_TRAINED_WITH = ("recipe", "start_recipe")

# What a run that was stopped before its first checkpoint can have left behind.
_BEGINNINGS = {"config.yaml", "environment.json", "environment.json.partial", "metrics.jsonl"}


@dataclass(frozen=True)
class Change:
    """Why a run may not be used as it is, and what must go before it can be made again."""

    reason: str
    delete: tuple[Path, ...]


def read_record(run: Run) -> dict[str, Any]:
    """A finished run's result."""
    assert run.result is not None, "starts have no result"
    return json.loads(run.result.read_text(encoding="utf-8"))


def asked(settings: Comparison, run: Run) -> dict[str, Any]:
    """What a result depends on, as it stands in its JSON."""
    sources = settings.tasks[run.task].all_tests
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        "start_recipe": run.needs.recipe.model_dump(mode="json") if run.needs else None,
        "tests": {name: source.model_dump(mode="json") for name, source in sources.items()},
        "evaluation": settings.evaluation.model_dump(mode="json"),
    }


def asked_controls(settings: Comparison, run: Run) -> dict[str, Any] | None:
    """How a run's block states are to be intervened on; None if they are not."""
    wanted = settings.controls.run == "block_methods" or (
        settings.controls.run == "reference" and run.method == settings.reference
    )
    has_blocks = run.recipe.prompt_format.trained_blocks > 0
    return {"questions": settings.controls.questions} if wanted and has_blocks else None


def controls_agree(settings: Comparison, run: Run, record: dict[str, Any]) -> bool:
    """Whether a result's controls are those asked for."""
    wanted = asked_controls(settings, run)
    return record.get("controls_settings") == wanted and bool(record["controls"]) == bool(wanted)


def refuse_changes(settings: Comparison, runs: Sequence[Run]) -> None:
    """Refuse to mix what is there with what the recipe says now.

    Raises:
        ConfigError: recipes, starts, tests or the evaluation changed since a run began.
    """
    changes = [change for run in runs if (change := _change_of(settings, run))]
    if changes:
        more = f", and {len(changes) - 1} more likewise" if len(changes) > 1 else ""
        delete = dict.fromkeys(str(path) for change in changes for path in change.delete)
        raise ConfigError(
            f"{changes[0].reason}{more}; give the comparison another name, or delete "
            f"{' '.join(delete)} and start it again"
        )


def refuse_other_measurements(settings: Comparison, runs: Sequence[Run]) -> None:
    """Refuse finished results whose controls or latencies were measured in another way.

    Raises:
        ConfigError: one of them; running the comparison would measure it again.
    """
    latency = settings.latency.model_dump()
    for run in runs:
        if run.result is None:
            continue
        record = read_record(run)
        timed = record.get("latency_settings")
        kind = "controls" if not controls_agree(settings, run, record) else None
        if timed and any(timed[key] != value for key, value in latency.items()):
            kind = "latency"
        if kind:
            raise ConfigError(
                f"{run.result}: {kind} measured with other settings; leave out --table-only to "
                "measure again (nothing is trained again)"
            )


def is_empty_beginning(run: Run) -> bool:
    """Whether a run was killed before its first stage: nothing of it is worth keeping."""
    folder = run.folder.path
    return folder.exists() and {path.name for path in folder.iterdir()} <= _BEGINNINGS


def _change_of(settings: Comparison, run: Run) -> Change | None:
    if run.result is not None and run.result.exists():
        return _result_change(settings, run, run.result)
    if run.folder.path.exists() and not is_empty_beginning(run):
        return _folder_change(run)
    return None


def _with_new_settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version, with the defaults of settings that it did not have yet."""
    with contextlib.suppress(ValidationError):
        return Recipe.model_validate(recipe).model_dump(mode="json")
    return recipe


def _result_change(settings: Comparison, run: Run, result: Path) -> Change | None:
    record = read_record(run)
    record |= {key: _with_new_settings(record[key]) for key in _TRAINED_WITH if record.get(key)}
    differing = {k: v for k, v in asked(settings, run).items() if record.get(k) != v}
    if not differing:
        return None
    key, value = next(iter(differing.items()))
    reason = (
        f"{result} was made with another {key}{_where(record[key], value)}"
        if key in record
        else f"{result} was made by an earlier version, which did not record its {key}"
    )
    # What the model was not trained with needs the result alone made again.
    retrain = any(key in differing for key in _TRAINED_WITH)
    return Change(reason, (result, run.folder.path) if retrain else (result,))


def _folder_change(run: Run) -> Change | None:
    """A model, or part of one, without a result."""
    folder = run.folder.path
    then = load_recipe(run.folder.config_file)
    if then != run.recipe:
        difference = _difference(then, run.recipe)
        return Change(f"{folder} was trained with another recipe{difference}", (folder,))
    if run.needs is None:
        return None
    if not run.start_file.exists():
        reason = f"{folder} was made by an earlier version, which did not record its start"
        return Change(reason, (folder,))
    start = load_recipe(run.start_file)
    if start != run.needs.recipe:
        difference = _difference(start, run.needs.recipe)
        return Change(f"{folder} was trained from another start{difference}", (folder,))
    return None


def _difference(old: Recipe, new: Recipe) -> str:
    return _where(old.model_dump(mode="json"), new.model_dump(mode="json"))


def _where(old: Any, new: Any, path: str = "") -> str:
    """` (stages.0.max_steps: 2, now 3)`: the first place where two settings differ."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    for key, a, b in pairs:
        if a != b:
            return _where(a, b, f"{path}.{key}".lstrip("."))
    return f" ({path}: {old}, now {new})"
