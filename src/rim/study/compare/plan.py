"""From settings to runs, and what is checked before anything trains: every training recipe, equal
budgets, test questions that occur in the training data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, Recipe
from rim.config.recipe_yaml import merge, recipe_from_dict
from rim.data.examples import DataError, Example
from rim.data.sources import data_hash, load_examples
from rim.data.training import load_training_data
from rim.results import read_json
from rim.study.compare.settings import (
    Comparison,
    MethodSettings,
    StartSettings,
    others_last,
)
from rim.train.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """One model to train. `method` is its name in the comparison; a start has no result file."""

    task: str
    method: str
    seed: int
    recipe: Recipe
    result: Path | None
    needs: Run | None = None
    stages_taken: int = 0  # of what it needs: it begins after that many stages, not at the end

    @property
    def name(self) -> str:
        return f"{self.task}/{self.recipe.name}"

    @property
    def starts(self) -> list[Run]:
        """What it starts from, what that starts from, and so on."""
        return [self.needs, *self.needs.starts] if self.needs else []

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.recipe.runs_dir) / self.recipe.name)

    @property
    def log(self) -> Path:
        """What a run in a process of its own printed."""
        return self.folder.path.with_name(f"{self.recipe.name}.log")

    @property
    def start_files(self) -> list[tuple[Path, Run]]:
        """Where the recipes of the starts stand that this run began with, beside them: the run's
        own recipe names the first one's folder only.
        """
        names = (f"{self.recipe.name}.start{n or ''}.yaml" for n in range(len(self.starts)))
        return [(self.folder.path.with_name(n), s) for n, s in zip(names, self.starts, strict=True)]

    @property
    def done(self) -> bool:
        return self.folder.finished if self.result is None else self.result.exists()


def make_plan(settings: Comparison) -> list[Run]:
    """Every run of a comparison, each after the one it starts from, with equal budgets.

    Raises:
        ConfigError: a training recipe is wrong, or the budgets differ.
        DataError: training data are wrong (read only where a stage counts in epochs).
    """
    plan = resolve_runs(settings)
    if settings.budget.kind == "steps":
        check_steps(settings, plan)
    return plan


def resolve_runs(settings: Comparison) -> list[Run]:
    """Every run of a comparison, each after the one it starts from; no data are read.

    Raises:
        ConfigError: a training recipe is wrong.
    """
    plan: list[Run] = []
    for task in settings.tasks:
        for seed in settings.seeds:
            starts: dict[str | None, Run] = {}
            methods: dict[str, Run] = {}
            for name, method in others_last(settings.methods, lambda method: method.start):
                for start in settings.line_of(method.start):
                    if start not in starts:
                        part = settings.starts[start]
                        needs = starts.get(part.start)
                        recipe = _resolve(settings, task, start, seed, part, needs)
                        plan.append(Run(task, start, seed, recipe, None, needs))
                        starts[start] = plan[-1]
                other, _, stage = (method.start or "").partition("/")
                needs = methods[other] if stage else starts.get(method.start)
                taken = _stages_up_to(needs, stage) if needs and stage else 0
                recipe = _resolve(settings, task, name, seed, method, needs, taken)
                result = settings.folder / "results" / task / f"{recipe.name}.json"
                plan.append(Run(task, name, seed, recipe, result, needs, taken))
                methods[name] = plan[-1]
    return plan


def _stages_up_to(needs: Run, name: str) -> int:
    names = [stage.name for stage in needs.recipe.stages]
    if name not in names:
        raise ConfigError(f"methods.{needs.method} has no stage {name!r}: {', '.join(names)}")
    return names.index(name) + 1


def choose(settings: Comparison, plan: Sequence[Run], only: Sequence[str]) -> list[Run]:
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
    needs: Run | None,
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


def _all_steps(run: Run) -> tuple[int, int]:
    """A run's own, and those of the stages that it takes over from another method."""
    steps, examples = training_steps(run.recipe)
    if run.needs is None or not run.stages_taken:
        return steps, examples
    before = training_steps(run.needs.recipe, run.stages_taken)
    return steps + before[0], examples + before[1]


def check_steps(settings: Comparison, plan: list[Run]) -> None:
    """Refuse methods of one task that train for different steps or examples, unless exempt; with a
    stage that may end early nobody knows them before.
    """
    for run in plan:
        if run.result is None or run.method in settings.budget.exempt:
            continue
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
            r.method: _all_steps(r)
            for r in plan
            if r.task == task and r.result and r.seed == settings.seeds[0]
            if r.method not in settings.budget.exempt
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
    other, _, last = (start or "").partition("/")
    for stage in trainings.get(other, {}).get("stages", []) if last else []:
        parts.append(stage)
        if stage["stage"] == last:
            break
    return {key: sum(part[key] for part in parts) for key in ("steps", "tokens")}


# --- test questions ------------------------------------------------------------------------------


def check_questions(settings: Comparison, runs: Sequence[Run], done: Sequence[Run] = ()) -> None:
    """Load all test sets, and the training data of the runs that are to be trained.

    Args:
        done: finished ones, which were scored on the questions that are there now or are refused.

    Raises:
        ConfigError: the selection protocol leaves no question to score, or a test file has changed
            since a run was scored.
        DataError: data are missing or wrong, or a test question is also one of training or
            validation.
    """
    for task, content in settings.tasks.items():
        tests = {name: load_examples(source) for name, source in content.all_tests.items()}
        if settings.selection and settings.selection.held_out >= len(tests["test"]):
            raise ConfigError(
                f"task {task}: selection.held_out {settings.selection.held_out} leaves nothing to "
                f"score of {len(tests['test'])} test questions"
            )
        hashes = {name: data_hash(examples) for name, examples in tests.items()}
        for run in done:
            if run.task == task and run.result is not None:
                _refuse_other_tests(run.result, hashes)
        # Most runs of a task share their data.
        by_data = {run.recipe.data.model_dump_json(): run for run in runs if run.task == task}
        for run in by_data.values():
            _refuse_known(run, tests)


def _refuse_other_tests(result: Path, hashes: Mapping[str, str]) -> None:
    """A test file may change in place, which no recipe shows."""
    scored = read_json(result)["results"]
    for name, content in scored.items():
        if name in hashes and content["data"]["hash"] != hashes[name]:
            raise ConfigError(
                f"{result} was made on other questions than {name} has now: the file changed in "
                "between. Give the comparison another name (--set name=other), or delete its "
                "results (and its runs, if the training data changed, too)"
            )


def _refuse_known(run: Run, tests: Mapping[str, Sequence[Example]]) -> None:
    kinds = ("training", "validation")
    data = dict(zip(kinds, load_training_data(run.recipe.data, run.recipe.seed), strict=True))
    # Of the training data, which may be larger than memory, nothing is kept.
    asked = {e.same_question: (name, e.origin) for name, es in tests.items() for e in es}
    for kind in kinds:
        for example in data[kind]:
            if example.same_question in asked:
                name, origin = asked[example.same_question]
                raise DataError(
                    f"task {run.task}: {origin} (of {name}) is also the {kind} question "
                    f"{example.origin} of {run.method}; keep it out of the training data, for "
                    "files with data.train.exclude: [TEST FILE]"
                )
