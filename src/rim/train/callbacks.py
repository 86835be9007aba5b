"""What a person sees during training, and the metrics file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from transformers import TrainerCallback

from rim.report.curves import curves_svg
from rim.report.progress import progress_bar
from rim.report.text import duration
from rim.results import write_text
from rim.train.run_folder import RunFolder

#: A picture takes a part of a second.
REDRAW_SECONDS = 60


class StageProgress(TrainerCallback):
    """A bar with the current loss, and a line at every validation. Losses are means per target
    token: the sum over read-outs that is minimised begins near a hundred, as if it diverged.
    """

    def __init__(self, console: Console, title: str):
        self.console = console
        self.title = title
        self.bar: Progress | None = None
        self._began = (time.monotonic(), 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = (time.monotonic(), state.global_step)
        self.bar = progress_bar(self.console)
        self.bar.start()
        self.task = self.bar.add_task(
            self.title, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        logs = logs or {}
        if self.bar and "token_loss" in logs:
            self.bar.update(self.task, note=f"loss {logs['token_loss']:.3f}")
        if "eval_accuracy" in logs:
            self.console.print(
                f"  step {state.global_step}: validation accuracy "
                f"{100 * logs['eval_accuracy']:.1f} %, "
                f"loss {logs['eval_token_loss']:.3f} a token{self._left(state)}",
                highlight=False,
            )

    def _left(self, state: Any) -> str:
        """How long the stage will go on, by its pace so far, validations included."""
        began, first = self._began
        done, left = state.global_step - first, state.max_steps - state.global_step
        if done <= 0 or left <= 0:
            return ""
        return f", about {duration((time.monotonic() - began) * left / done)} left of this stage"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away, also after an error, so that the terminal is left in order."""
        if self.bar:
            self.bar.stop()
            self.bar = None


class Curves(TrainerCallback):
    """Draws the learning curves after a validation, if the last picture is some time old."""

    def __init__(self, run: RunFolder):
        self.run = run
        self._drawn = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and time.monotonic() - self._drawn > REDRAW_SECONDS:
            draw_curves(self.run)
            self._drawn = time.monotonic()


def draw_curves(run: RunFolder) -> None:
    """Write the learning curves of what is done of a run."""
    picture = curves_svg(run.path.name, run.metrics_file)
    if picture is not None:
        write_text(run.curves_file, picture)


class MetricsFile(TrainerCallback):
    """Appends every log record to a JSONL file, with its stage and step."""

    def __init__(self, path: Path, stage: str):
        self.path = path
        self.stage = stage

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut off the torn line that a full disk may have left: the next would go on from it."""
        if state.is_world_process_zero and self.path.exists():
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.write(state.global_step, logs or {})

    def write(self, step: int, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage, "step": step, **record}) + "\n")
