"""Few steps for a whole comparison: a trial, to see that it works before it costs hours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rim.config.stages import trial_stages
from rim.study.compare.settings import Comparison, StartSettings, others_last, stage_of

Part = TypeVar("Part", bound=StartSettings)
Divide = Callable[[Any, int, str], list[dict[str, Any]]]


def trial(settings: Comparison, steps: int) -> Comparison:
    """The comparison with `steps` optimizer steps for every start and method, shared among their
    stages as in the recipe; one validation a stage. It has a folder of its own.

    Raises:
        ConfigError: a recipe has more stages than that, or none of its own (stages of `common` or
            of a task are no one recipe's).
    """
    starts = {n: (None, part.recipe.get("stages", [])) for n, part in settings.starts.items()}
    methods = {n: (m.start, m.recipe.get("stages", [])) for n, m in settings.methods.items()}
    changes = {
        "name": f"{settings.name}-{steps}steps",
        "starts": _with(settings.starts, share_steps(starts, steps, trial_stages)),
        "methods": _with(settings.methods, share_steps(methods, steps, trial_stages)),
    }
    return settings.model_copy(update=changes)


def share_steps(
    parts: Mapping[str, tuple[str | None, Any]], steps: int, divide: Divide
) -> dict[str, list[dict[str, Any]]]:
    """Stages of every part with so many steps in all, those that it takes over from a stage of
    another part among them.

    Args:
        parts: of each its `from` and its stages as written.
        divide: `divide_steps` or `trial_stages`.
    """
    shared: dict[str, list[dict[str, Any]]] = {}
    for name, (start, stages) in others_last(parts, lambda part: part[0]):
        other, last = stage_of(start) or ("", "")
        taken = 0
        for stage in shared.get(other, []):
            taken += stage["max_steps"]
            if stage.get("name") == last:
                break
        shared[name] = divide(stages, steps - taken, name)
    return shared


def _with(parts: Mapping[str, Part], stages: Mapping[str, Any]) -> dict[str, Part]:
    return {
        name: part.model_copy(update={"recipe": part.recipe | {"stages": stages[name]}})
        for name, part in parts.items()
    }
