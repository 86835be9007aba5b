"""SIGTERM: what schedulers send before they take a machine away. Training saves, and leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback

from rim.train.processes import any_process, process_count

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
def time_limit(minutes: float | None) -> Iterator[None]:
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
