"""A trial: a comparison with so many steps a run, to see that it works before it costs hours."""

from __future__ import annotations

from typing import TypeVar

from rim.config.stages import trial_stages
from rim.study.compare.settings import Comparison, StartSettings

Part = TypeVar("Part", bound=StartSettings)


def trial(settings: Comparison, steps: int) -> Comparison:
    """The comparison with `steps` optimizer steps for every start and method, shared among their
    stages as in the recipe; one validation a stage. It has a folder of its own.

    Raises:
        ConfigError: a recipe has more stages than that, or none of its own (stages of `common` or
            of a task are no one recipe's).
    """
    lines = {name: settings.line_of(method.start) for name, method in settings.methods.items()}
    longer = {
        name: f"a trial: {steps} steps for each of its starts, too"
        for name, line in lines.items()
        if any(start not in other for start in line for other in lines.values())
    }
    changes = {
        "budget": settings.budget.model_copy(update={"exempt": longer | settings.budget.exempt}),
        "name": f"{settings.name}-{steps}steps",
        "starts": {n: _shortened(part, steps, n) for n, part in settings.starts.items()},
        "methods": {n: _shortened(part, steps, n) for n, part in settings.methods.items()},
    }
    return settings.model_copy(update=changes)


def _shortened(part: Part, steps: int, name: str) -> Part:
    stages = trial_stages(part.recipe.get("stages", []), steps, name)
    return part.model_copy(update={"recipe": part.recipe | {"stages": stages}})
