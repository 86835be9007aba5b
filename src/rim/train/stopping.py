"""What ends a stage before its last step: Ctrl-C, and SIGTERM, which schedulers send before they
take a machine away (training saves, and leaves), and a validation that rises no more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
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

    def __init__(self, message: str, exit_code: int = TERMINATED):
        super().__init__(message)
        self.exit_code = exit_code


class Termination(TrainerCallback):
    """While it is open, SIGTERM and Ctrl-C let a training step end, save, and raise
    `TerminatedError`; a second one raises at once, and so does one outside of a stage's steps,
    where there is nothing to save. Of several processes Ctrl-C stops each at once: their launcher
    hears it, too, and ends them.
    """

    def __init__(self) -> None:
        self._asked, self._training, self._saving = 0, False, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Termination:
        # Only a main thread may listen to signals.
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._hear)
            now = signal.getsignal(signal.SIGINT)
            if now is signal.default_int_handler or isinstance(
                getattr(now, "__self__", None), Termination
            ):  # nobody else listens, nor wants it ignored
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: Any) -> None:
        interrupted = number == signal.SIGINT
        # A comparison that was interrupted sends its workers SIGTERM: they have begun to save.
        again = self._asked and (interrupted or number == self._asked)
        if again or not self._training or (interrupted and process_count() > 1):
            raise KeyboardInterrupt if interrupted else TerminatedError("Terminated.")
        if self._asked:
            return
        self._asked = number
        if interrupted:
            print("Ending this step to save it; Ctrl-C again stops at once.", file=sys.stderr)

    def _ended(self, state: Any) -> TerminatedError:
        word = "Interrupted" if self._asked == signal.SIGINT else "Terminated"
        number = self._asked or signal.SIGTERM  # another process may have been the one that heard
        return TerminatedError(f"{word}; step {state.global_step} is saved.", 128 + number)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Several processes must agree, and asking costs a step time: not on every one.
        if process_count() > 1 and state.global_step % max(1, int(args.logging_steps)):
            return
        if any_process(bool(self._asked)):
            self._saving = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._saving:
            raise self._ended(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = False
        if process_count() == 1 and self._asked:  # the last step has been saved
            raise self._ended(state)


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
