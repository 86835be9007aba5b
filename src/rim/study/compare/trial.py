"""Few steps for a whole comparison: a trial, to see that it works before it costs hours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from rim.config.stages import trial_stages, written_length
from rim.study.compare.settings import Comparison, StartSettings, others_last, stage_of

Part = TypeVar("Part", bound=StartSettings)
Divide = Callable[[Any, int, str], list[dict[str, Any]]]


def trial(settings: Comparison, steps: int) -> Comparison:
    """The comparison with `steps` optimizer steps for every start and method (`share_steps`), one
    validation a stage. It has a folder of its own.

    Raises:
        ConfigError: a recipe has more stages than that, or none of its own (stages of `common` or
            of a task are no one recipe's).
    """
    starts = {n: (None, part.recipe.get("stages", [])) for n, part in settings.starts.items()}
    written = {n: (m.start, m.recipe.get("stages", [])) for n, m in settings.methods.items()}
    methods = share_steps(written, steps, trial_stages, settings.budget.exempt)
    changes = {
        "name": f"{settings.name}-{steps}steps",
        "starts": _with(settings.starts, share_steps(starts, steps, trial_stages)),
        "methods": _with(settings.methods, methods),
    }
    return settings.model_copy(update=changes)


def share_steps(
    parts: Mapping[str, tuple[str | None, Any]],
    steps: int,
    divide: Divide,
    exempt: Collection[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Stages of every part with so many steps in all, in the proportion that is written; those that
    it takes over from a stage of another part are among them.

    Args:
        parts: of each its `from` and its stages as written.
        divide: `divide_steps` or `trial_stages`.
        exempt: parts that may be longer: where one begins with no other's stage and is written with
            more than the shortest of the rest, it keeps that proportion.
    """
    longer = _longer(parts, exempt)
    shared: dict[str, list[dict[str, Any]]] = {}
    for name, (start, stages) in others_last(parts, lambda part: part[0]):
        other, last = stage_of(start) or ("", "")
        taken = 0
        for stage in shared.get(other, []):
            taken += stage["max_steps"]
            if stage.get("name") == last:
                break
        shared[name] = divide(stages, round(longer.get(name, 1) * steps) - taken, name)
    return shared


def _longer(
    parts: Mapping[str, tuple[str | None, Any]], exempt: Collection[str]
) -> dict[str, float]:
    """How many times the shortest of the other parts an exempt part is written to train for, where
    both count in steps, or both in epochs.
    """
    alone = {name: stages for name, (start, stages) in parts.items() if not stage_of(start)}
    times = {}
    for unit in ("max_steps", "epochs"):
        lengths = {name: written_length(stages, unit) for name, stages in alone.items()}
        least = min((n for name, n in lengths.items() if n and name not in exempt), default=0)
        times |= {n: max(1.0, lengths[n] / least) for n in exempt if least and lengths.get(n)}
    return times


def _with(parts: Mapping[str, Part], stages: Mapping[str, Any]) -> dict[str, Part]:
    return {
        name: part.model_copy(update={"recipe": part.recipe | {"stages": stages[name]}})
        for name, part in parts.items()
    }
