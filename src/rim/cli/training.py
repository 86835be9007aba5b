"""`rim train` and `rim demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common


def train(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe YAML, for example recipes/gsm8k_tiny.yaml.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting: seed=1, or stages.grounding.max_steps=100. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Train a model as a recipe says, stage by stage, into a run folder."""
    with common.clear_errors("The same command with --resume continues."):
        common.quiet_libraries()
        from rim.config.recipe_yaml import load_recipe
        from rim.train.curriculum import train as run_training

        run = run_training(
            load_recipe(recipe, tuple(set_ or ())), resume=resume, console=common.console
        )
        common.say(f'Ask it:      rim ask {run.path} "your question"')
        common.say(f"Evaluate it: rim eval {run.path} DATA")


def demo(
    seed: Annotated[int, typer.Option(min=0, help="Seed of data order, weights and training.")] = 0,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Also write the result JSON here.")] = None,
) -> None:
    """Train a tiny model three ways on a built-in task and compare: direct, chain of thought,
    memory blocks.
    """
    with common.clear_errors("A new demo begins in a folder of its own."):
        common.quiet_libraries()
        from rim.study.demo import run_demo

        result = run_demo(seed, runs_dir, common.console, out)
        sys.stdout.flush()
        typer.echo(json.dumps(result))
