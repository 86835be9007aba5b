"""Checkpoints that are whole or not there: written aside, with checksums, and then renamed.

transformers writes into the folder that is resumed from, file by file, and drops old checkpoints
before the new one has its name. Here a process may be killed, or the disk be full, at any moment:
the last whole checkpoint stays. `ReadoutTrainer.train_from` continues from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from rim.results import file_sha256, read_json, write_json
from rim.train.processes import is_first, wait

CHECKSUMS = "checksums.json"
ASIDE = "checkpoints.partial"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


class SafeTrainer(Trainer):
    """transformers' Trainer, but for how it saves."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(self.args.output_dir or ""), self.state.global_step
        aside, name = folder / ASIDE, f"{PREFIX_CHECKPOINT_DIR}-{step}"
        try:
            if is_first():
                shutil.rmtree(aside, ignore_errors=True)
            wait()
            self.args.output_dir = str(aside)
            super()._save_checkpoint(model, trial)
            if self.state.best_global_step == step:
                # Where it will be, not where it is written.
                self.state.best_model_checkpoint = str(folder / name)
                if is_first():
                    self.state.save_to_json(str(aside / name / TRAINER_STATE_NAME))
            wait()
            if is_first():
                _seal(aside / name, folder / name)
                rotate_checkpoints(
                    str(folder),
                    self.args.save_total_limit,
                    self.state.best_model_checkpoint,
                    use_mtime=True,
                )
            wait()
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            # What was begun takes the room that is needed.
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {folder}: {error}"
            ) from error
        finally:
            self.args.output_dir = str(folder)


class BestIsHere(TrainerCallback):
    """On resuming, lets the trainer's state name the best checkpoint where it is now: the run may
    have been moved, or go on from another working directory. transformers would forget it.
    """

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.best_model_checkpoint = saved_state(self.checkpoint).best_model_checkpoint


def saved_state(checkpoint: Path) -> TrainerState:
    """The trainer's state in a checkpoint; the best one that it names is beside it."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.best_model_checkpoint:
        state.best_model_checkpoint = str(
            checkpoint.parent / Path(state.best_model_checkpoint).name
        )
    return state


def _seal(written: Path, target: Path) -> None:
    """Note what every file of a checkpoint holds, and give it its name."""
    files = sorted(file for file in written.rglob("*") if file.is_file())
    sums = {str(file.relative_to(written)): file_sha256(file) for file in files}
    write_json(written / CHECKSUMS, sums)
    if target.exists():
        shutil.rmtree(target)
    written.replace(target)
    written.parent.rmdir()


def what_is_torn(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if they are as they were written."""
    try:
        sums = read_json(checkpoint / CHECKSUMS)
        for name, checksum in sums.items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if file_sha256(checkpoint / name) != checksum:
                return f"{name} is not as it was written"
    except (FileNotFoundError, ValueError, AttributeError):
        return f"{CHECKSUMS} cannot be read"
    return None


def last_whole_checkpoint(stage_dir: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that training can go on from: it and the best one so far, which it
    names, are whole.

    Args:
        tell: hears of every one that is not.
    """
    found = sorted(
        stage_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: -int(path.name.split("-")[1])
    )
    for place, checkpoint in enumerate(found, start=1):
        reason = what_is_torn(checkpoint)
        if reason is None:
            named = saved_state(checkpoint).best_model_checkpoint
            best = Path(named) if named else None
            torn = what_is_torn(best) if best else None
            reason = f"its best, {best.name}, is: {torn}" if best and torn else None
        if reason is None:
            return checkpoint
        next_one = "the one before it is taken" if place < len(found) else "the stage begins anew"
        tell(f"{checkpoint} is torn ({reason}); {next_one}")
    return None
