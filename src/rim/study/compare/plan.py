"""From settings to runs, and what is checked before anything trains: every training recipe, and
equal budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, Recipe
from rim.config.recipe_yaml import merge, recipe_from_dict
from rim.data.training import load_training_data
from rim.study.compare.settings import (
    Comparison,
    MethodSettings,
    StartSettings,
    others_last,
    stage_of,
)
from rim.train.run_folder import RunFolder


@dataclass(frozen=True)
class PlannedRun:
    """One model to train. `method` is its name in the comparison; a start has no result file."""

    task: str
    method: str
    seed: int
    recipe: Recipe
    result: Path | None
    needs: PlannedRun | None = None
    stages_taken: int = 0  # of what it needs: it begins after that many stages, not at the end

    @property
    def name(self) -> str:
        return f"{self.task}/{self.recipe.name}"

    @property
    def starts(self) -> list[PlannedRun]:
        """The run that it starts from, the run that this one starts from, and so on."""
        return [self.needs, *self.needs.starts] if self.needs else []

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.recipe.runs_dir) / self.recipe.name)

    @property
    def log(self) -> Path:
        """The file with what a run in a process of its own printed."""
        return self.folder.path.with_name(f"{self.recipe.name}.log")

    @property
    def start_files(self) -> list[tuple[Path, PlannedRun]]:
        """Where the recipes of the starts stand that this run began with, beside them: the run's
        own recipe names the first one's folder only.
        """
        names = (f"{self.recipe.name}.start{n or ''}.yaml" for n in range(len(self.starts)))
        return [(self.folder.path.with_name(n), s) for n, s in zip(names, self.starts, strict=True)]

    @property
    def done(self) -> bool:
        return self.folder.finished if self.result is None else self.result.exists()


def make_plan(settings: Comparison) -> list[PlannedRun]:
    """Every run of a comparison, each after the one it starts from, with equal budgets.

    Raises:
        ConfigError: a training recipe is wrong, or the budgets differ.
        DataError: training data are wrong (read only where a stage counts in epochs).
    """
    plan = resolve_runs(settings)
    if settings.budget.kind == "steps":
        check_steps(settings, plan)
    return plan


def resolve_runs(settings: Comparison) -> list[PlannedRun]:
    """Every run of a comparison, each after the one it starts from; no data are read.

    Raises:
        ConfigError: a training recipe is wrong.
    """
    return [
        run
        for task in settings.tasks
        for seed in settings.seeds
        for run in _runs_of(settings, task, seed)
    ]


def _runs_of(settings: Comparison, task: str, seed: int) -> list[PlannedRun]:
    runs: dict[str | None, PlannedRun] = {}  # by name: no start is called as a method is
    for name, method in others_last(settings.methods, lambda method: method.start):
        for start in settings.line_of(method.start):
            if start not in runs:
                part = settings.starts[start]
                needs = runs.get(part.start)
                recipe = _resolve(settings, task, start, seed, part, needs)
                runs[start] = PlannedRun(task, start, seed, recipe, None, needs)
        needs, taken = runs.get(method.start), 0
        if begins := stage_of(method.start):
            needs = runs[begins[0]]
            taken = _stages_up_to(needs, begins[1])
        recipe = _resolve(settings, task, name, seed, method, needs, taken)
        result = settings.folder / "results" / task / f"{recipe.name}.json"
        runs[name] = PlannedRun(task, name, seed, recipe, result, needs, taken)
    return list(runs.values())


def _stages_up_to(needs: PlannedRun, name: str) -> int:
    names = [stage.name for stage in needs.recipe.stages]
    if name not in names:
        raise ConfigError(f"methods.{needs.method} has no stage {name!r}: {', '.join(names)}")
    return names.index(name) + 1


def choose(
    settings: Comparison, plan: Sequence[PlannedRun], only: Sequence[str]
) -> list[PlannedRun]:
    """The runs of the methods asked for (all if none), and the starts that those need."""
    for name in only:
        if name not in settings.methods:
            raise ConfigError(
                f"--only: no method {name!r}, there are {', '.join(settings.methods)}"
            )
    methods = [r for r in plan if r.result is not None and (not only or r.method in only)]
    needed = {start.name for run in methods if not run.done for start in run.starts}
    return [run for run in plan if run in methods or run.name in needed]


def _resolve(
    settings: Comparison,
    task: str,
    name: str,
    seed: int,
    own: StartSettings,
    needs: PlannedRun | None,
    stages_taken: int = 0,
) -> Recipe:
    """common < the task < the method or start < what the comparison itself decides."""
    kind = "methods" if isinstance(own, MethodSettings) else "starts"
    content, origin, part = settings.tasks[task], f"{kind}.{name}", own.recipe
    if needs:
        model = part.get("model") or {}
        # A shape in `common` is for those that begin from nothing.
        shape = {} if "scratch" in model else {"scratch": None}
        base = needs.folder.model_dir
        if stages_taken:
            last = stages_taken - 1
            base = needs.folder.stage_dir(last, needs.recipe.stages[last]) / "final"
        part = merge(part, {"model": {"base": str(base)} | shape})
    raw = merge(settings.common, content.recipe)
    raw = merge(raw, {"data": content.data.model_dump(exclude_unset=True)})
    fixed = {"name": f"{name}-seed{seed}", "seed": seed, "runs_dir": str(settings.folder / task)}
    for key in fixed:
        if key in raw or key in part:
            raise ConfigError(f"{origin}: {key!r} is set by the comparison; leave it out")
    recipe = recipe_from_dict(merge(raw, part) | fixed, f"{origin} (task {task})")
    if needs and recipe.model.quantize and needs.recipe.model.tuning == "lora":
        raise ConfigError(
            f"{origin}: model.quantize rounds a base, and it begins with an adapter, "
            f"{needs.method}; leave quantize out, or the method (null)"
        )
    return recipe


# --- equal budgets -------------------------------------------------------------------------------


def training_steps(recipe: Recipe, stages: int | None = None) -> tuple[int, int]:
    """Optimizer steps of a recipe's stages (the first so many), and the examples of as many full
    batches.
    """
    count = 0
    chosen = recipe.stages[:stages]
    if any(stage.max_steps is None for stage in chosen):
        count = len(load_training_data(recipe.data, recipe.seed)[0])
    steps = [stage.optimizer_steps(count) for stage in chosen]
    sizes = [stage.batch_size for stage in chosen]
    return sum(steps), sum(n * size for n, size in zip(steps, sizes, strict=True))


def _all_steps(run: PlannedRun) -> tuple[int, int]:
    """A run's own, and those of the stages that it takes over from another method."""
    steps, examples = training_steps(run.recipe)
    if run.needs is None or not run.stages_taken:
        return steps, examples
    before = training_steps(run.needs.recipe, run.stages_taken)
    return steps + before[0], examples + before[1]


def check_steps(settings: Comparison, plan: list[PlannedRun]) -> None:
    """Refuse methods of one task that train for different steps or examples, unless exempt; with a
    stage that may end early nobody knows them before.
    """
    bound = [r for r in plan if r.result is not None and r.method not in settings.budget.exempt]
    for run in bound:
        ends_early = (s for s in run.recipe.stages if s.patience and s.unused_steps == "drop")
        if early := next((stage.name for stage in ends_early), None):
            raise ConfigError(
                f"task {run.task}: {run.method} has patience in stage {early!r}, so how many steps "
                "it will take is not known. Hand them to the next stage, if there is one "
                "(unused_steps: next_stage), leave patience out, compare what was trained "
                "(budget.kind: tokens), or name the method under budget.exempt with the reason"
            )
    for task in settings.tasks:
        counted = {
            r.method: _all_steps(r) for r in bound if (r.task, r.seed) == (task, settings.seeds[0])
        }
        if len(set(counted.values())) > 1:
            listed = ", ".join(
                f"{name} {steps} steps and {examples} examples"
                for name, (steps, examples) in counted.items()
            )
            raise ConfigError(
                f"task {task}: the training budgets differ ({listed}). Make them equal, or name a "
                "method under budget.exempt with the reason"
            )


def check_tokens(settings: Comparison, task: str, results: list[dict[str, Any]]) -> None:
    """Refuse methods of one seed whose measured training tokens differ by more than the tolerance,
    unless exempt: the most against the least.

    Tokens are known only once a run is done, so this is asked after every run. Nothing is refused
    where budgets are counted in steps.
    """
    if settings.budget.kind == "steps":
        return
    starts = {name: method.start for name, method in settings.methods.items()}
    for seed in settings.seeds:
        trainings = {r["method"]: r["training"] for r in results if r["seed"] == seed}
        trained = {
            name: _with_taken(starts.get(name), training, trainings)
            for name, training in trainings.items()
            if name not in settings.budget.exempt
        }
        if not trained:
            continue
        order = sorted(trained, key=lambda name: trained[name]["tokens"])
        least, most = order[0], order[-1]
        low, high = (trained[name]["tokens"] for name in (least, most))
        if high > low * (1 + settings.budget.tolerance):
            steps = trained[most]["steps"]
            raise ConfigError(
                f"task {task}, seed {seed}: {most} trained on {high:.0f} tokens, {least} on "
                f"{low:.0f}. About {round(steps * low / high)} steps instead of {steps:.0f} would "
                "make them equal (then delete that run and its result), or name a method under "
                "budget.exempt with the reason"
            )


def _with_taken(
    start: str | None, training: Mapping[str, Any], trainings: Mapping[str, Any]
) -> dict[str, float]:
    """Steps and tokens of a training, with those of stages taken over from another method."""
    parts = [training["total"]]
    other, last = stage_of(start) or ("", "")
    for stage in trainings.get(other, {}).get("stages", []):
        parts.append(stage)
        if stage["stage"] == last:
            break
    return {key: sum(part[key] for part in parts) for key in ("steps", "tokens")}
