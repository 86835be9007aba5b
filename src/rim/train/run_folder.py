"""The run folder: what a training run leaves behind, and how it is found again.

runs/NAME/
  config.yaml         the resolved recipe
  environment.json    versions, commit, machine, data hashes
  readouts.json       how the read-outs of each stage run (`rim.train.parallel_or_separate`)
  micro_batches.json  how many examples entered the model at a time (`rim.train.memory`)
  metrics.jsonl       every log record of every stage
  curves.svg          learning curves
  training.json       what training cost: steps, tokens and seconds of every stage
  stages/01-NAME/     checkpoints of a stage; `final/` is its best, there once the stage is done
  model/              the finished model: weights, tokenizer, rim.json
  evaluations/        written by `rim eval`
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from rim.config import ConfigError, Recipe, StageConfig
from rim.config.differences import difference
from rim.config.recipe_yaml import dump_yaml, load_recipe
from rim.data.examples import Example
from rim.data.sources import data_hash
from rim.locks import alone
from rim.results import environment, read_json, write_json, write_text


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.config_file = path / "config.yaml"
        self.environment_file = path / "environment.json"
        self.readouts_file = path / "readouts.json"
        self.micro_batches_file = path / "micro_batches.json"
        self.metrics_file = path / "metrics.jsonl"
        self.curves_file = path / "curves.svg"
        self.training_file = path / "training.json"
        self.model_dir = path / "model"

    @property
    def finished(self) -> bool:
        return self.model_dir.exists()

    def stage_dir(self, index: int, stage: StageConfig) -> Path:
        return self.path / "stages" / f"{index + 1:02d}-{stage.name}"

    def stage_result(self, index: int, stage: StageConfig) -> Path:
        """Best model of a finished stage; does not exist before."""
        return self.stage_dir(index, stage) / "final"

    def stage_cost(self, index: int, stage: StageConfig) -> Path:
        """What a finished stage cost; written before its result."""
        return self.stage_dir(index, stage) / "training.json"


def open_run_folder(recipe: Recipe, resume: bool) -> RunFolder:
    """Create the folder of a new run, or reopen that of an interrupted one.

    Raises:
        ConfigError: see `check_run_folder`.
    """
    run = check_run_folder(recipe, resume)
    if not resume:
        write_text(run.config_file, dump_yaml(recipe))
    return run


@contextlib.contextmanager
def one_writer(run: RunFolder) -> Generator[None]:
    """Keep other processes from training the same run, by a lock on its recipe.

    Raises:
        ConfigError: one does.
    """
    otherwise = f"another process is training {run.path}; let it end, or stop it first"
    with run.config_file.open("rb") as file, alone(file, otherwise):
        yield


def check_run_folder(recipe: Recipe, resume: bool) -> RunFolder:
    """The folder of a run, which `open_run_folder` may open; nothing is made yet.

    Raises:
        ConfigError: the folder exists and `resume` was not asked for, there is nothing to resume,
            the run is finished, or its recipe was another one. Nothing is ever overwritten.
    """
    run = RunFolder(Path(recipe.runs_dir) / recipe.name)
    if not resume:
        # A folder without its recipe was left by a process that was killed as it made it.
        if run.path.exists() and {path.name for path in run.path.iterdir()} - {
            "config.yaml.partial"
        }:
            otherwise = f"is finished: its model is in {run.model_dir}"
            if not run.finished:
                otherwise = "exists; continue it with --resume"
            raise ConfigError(f"{run.path} {otherwise}, or choose another name with --set name=...")
        return run
    if not run.config_file.exists():
        raise ConfigError(f"nothing to resume: {run.path} has no config.yaml")
    if run.finished:
        raise ConfigError(f"{run.path} is finished: its model is in {run.model_dir}")
    if changed := changed_since(run, recipe):
        raise ConfigError(
            f"{run.config_file} differs from this recipe ({changed}); "
            "resume with the recipe the run began with"
        )
    return run


def changed_since(run: RunFolder, recipe: Recipe) -> str | None:
    """What this recipe trains otherwise than the one that a run began with; None if nothing."""
    began, now = (_what_is_trained(each) for each in (load_recipe(run.config_file), recipe))
    return difference(began, now) if began != now else None


def _what_is_trained(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings without those that may change when a run is resumed: sizes that change
    losses by rounding, and where the run is, which may have been moved.
    """
    stages = (stage.model_copy(update={"micro_batch_size": "auto"}) for stage in recipe.stages)
    validation = recipe.validation.model_copy(update={"batch_size": 1})
    same = {"stages": tuple(stages), "validation": validation, "runs_dir": "", "name": ""}
    return recipe.model_copy(update=same).model_dump(mode="json")


def record_environment(
    recipe: Recipe, run: RunFolder, train_set: Sequence[Example], validation_set: Sequence[Example]
) -> None:
    """Write what the run began with; a resumed run needs the same data and is noted beside it."""
    data = {"train": data_hash(train_set), "validation": data_hash(validation_set)}
    record = environment() | {"seed": recipe.seed, "data": data}
    if run.environment_file.exists():
        first = read_json(run.environment_file)
        if first["data"] != data:
            raise ConfigError(f"the data changed since {run.path} began; resume with the old data")
        record = first | {"resumed": [*first.get("resumed", []), record]}
    write_json(run.environment_file, record)


def remove_checkpoints(stage_dir: Path) -> None:
    """Drop the optimizer checkpoints of a finished stage; its best model stays."""
    for folder in stage_dir.glob("checkpoint-*"):
        shutil.rmtree(folder)
