"""What ends a stage before its last step: SIGTERM, which schedulers send before they take a machine
away (training saves, and leaves), and a validation that rises no more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Generator, Sequence
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from rim.config import StageConfig
from rim.results import read_json
from rim.train.processes import any_process, process_count
from rim.train.run_folder import RunFolder

#: A shell's number for a process that SIGTERM ended.
TERMINATED = 143


class TerminatedError(KeyboardInterrupt):
    """Somebody asked the process to end; a checkpoint has been saved where there was work."""

    exit_code = TERMINATED


class Termination(TrainerCallback):
    """While it is open, SIGTERM lets a training step end, saves, and raises `TerminatedError`; a
    second one raises at once, and so does one outside of a stage's steps, where there is nothing
    to save.
    """

    def __init__(self) -> None:
        self._asked = self._training = self._saving = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        # Only a main thread may listen to signals.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, *_: Any) -> None:
        if self._asked or not self._training:
            raise TerminatedError("Terminated.")
        self._asked = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Several processes must agree, and asking costs a step time: not on every one.
        if process_count() > 1 and state.global_step % max(1, int(args.logging_steps)):
            return
        if any_process(self._asked):
            self._saving = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._saving:
            raise TerminatedError(f"Terminated; step {state.global_step} is saved.")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = False
        if process_count() == 1 and self._asked:  # the last step has been saved
            raise TerminatedError(f"Terminated; step {state.global_step} is saved.")


@contextlib.contextmanager
def time_limit(minutes: float | None) -> Generator[None]:
    """After so many minutes this process is sent the SIGTERM of a scheduler: a training step ends
    and is saved; anything else stops at once. Ctrl-C and SIGTERM from outside work as ever.

    Raises:
        TerminatedError: it was sent, and what was in progress did not catch it.
    """
    with Termination():
        timer = threading.Timer(60 * (minutes or 0), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        if minutes is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


class Patience(EarlyStoppingCallback):
    """Ends a stage after so many validations in a row without a better checkpoint: none with a
    higher accuracy, nor with the same and a lower loss. A stage whose accuracy still stands at zero
    while its loss falls so goes on. The count travels in checkpoints.
    """

    @property
    def is_out(self) -> bool:
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def continue_from(self, state: Any) -> None:
        """Take up the count of a checkpoint."""
        stored = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.early_stopping_patience_counter = stored["early_stopping_patience_counter"]

    def ending(self, state: Any) -> str | None:
        """Say that a stage ended before its last step; None if it did not."""
        if not self.is_out or state.global_step >= state.max_steps:
            return None
        count = self.early_stopping_patience
        return (
            f"ended after {state.global_step} of {state.max_steps} steps: "
            f"{count} validation{'s' * (count > 1)} in a row brought no better checkpoint"
        )


def with_steps_left(
    stages: Sequence[StageConfig], index: int, run: RunFolder, num_examples: int
) -> StageConfig:
    """A stage of a run, with the steps that the one before it was to take and did not, if it hands
    them on (`unused_steps`).
    """
    stage, before = stages[index], stages[index - 1] if index else None
    if before is None or before.unused_steps == "drop":
        return stage
    cost = read_json(run.stage_cost(index - 1, before))
    left = cost["planned_steps"] - cost["steps"]
    if not left:
        return stage
    steps = stage.optimizer_steps(num_examples) + left
    return stage.model_copy(update={"max_steps": steps, "epochs": None})
