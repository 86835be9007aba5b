"""A trial: a comparison with so many steps a run, to see that it works before it costs hours."""

from __future__ import annotations

from typing import Any

from rim.config import ConfigError
from rim.config.stages import expand_stages
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
    stages = expand_stages(part.get("stages", []))
    if not stages or isinstance(stages, dict):  # changes to common stages
        raise ConfigError(f"--steps shortens a method's own stages, and {name} has none of its own")
    if not 0 < len(stages) <= steps:
        raise ConfigError(f"{name} has {len(stages)} stages, which need at least a step each")
    lengths = [float(stage.get("max_steps") or stage.get("epochs") or 1) for stage in stages]
    counts = _shared(steps, lengths)
    dropped = ("epochs", "max_steps", "evaluate_every")
    return part | {
        "stages": [
            {key: value for key, value in stage.items() if key not in dropped}
            | {"max_steps": count, "evaluate_every": count}
            for stage, count in zip(stages, counts, strict=True)
        ]
    }


def _shared(steps: int, lengths: list[float]) -> list[int]:
    """Whole numbers of at least 1 that add up to `steps`, as the lengths are to each other."""
    free, total = steps - len(lengths), sum(lengths)
    ends = [round(free * sum(lengths[: i + 1]) / total) for i in range(len(lengths))]
    return [1 + end - before for end, before in zip(ends, [0, *ends], strict=False)]
