"""A trial: a comparison with so many steps a run, to see that it works before it costs hours."""

from __future__ import annotations

from typing import Any

from rim.config.stages import trial_stages
from rim.study.compare.settings import Comparison


def trial(settings: Comparison, steps: int) -> Comparison:
    """The comparison with `steps` optimizer steps for every start and method, shared among their
    stages as in the recipe; one validation a stage. It has a folder of its own.

    Raises:
        ConfigError: a recipe has more stages than that, or none of its own (stages of `common` or
            of a task are no one recipe's).
    """
    starts = {name: _shortened(part, steps, name) for name, part in settings.starts.items()}
    methods = {
        name: method.model_copy(update={"recipe": _shortened(method.recipe, steps, name)})
        for name, method in settings.methods.items()
    }
    changes = {"name": f"{settings.name}-{steps}steps", "starts": starts, "methods": methods}
    return settings.model_copy(update=changes)


def _shortened(part: dict[str, Any], steps: int, name: str) -> dict[str, Any]:
    return part | {"stages": trial_stages(part.get("stages", []), steps, name)}
