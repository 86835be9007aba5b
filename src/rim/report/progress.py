"""Progress bars: the one look of them, and lines in their place where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from rim.report.text import duration

#: Seconds between two lines of a log.
LINE_SECONDS = 30


def progress_bar(console: Console) -> Progress:
    """Narrow enough for a small terminal; in a log, a line now and then."""
    return _Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextlib.contextmanager
def counted(console: Console, title: str, total: int) -> Generator[Callable[[int], None]]:
    """Yield a callback that advances a bar by so much."""
    with progress_bar(console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda done: bar.update(task, advance=done)


class _Bars(Progress):
    """Rich draws nothing until the end where output is no terminal: a long job would look dead."""

    _told = 0.0

    def start(self) -> None:
        self._told = time.monotonic()
        super().start()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        now = time.monotonic()
        if self.console.is_terminal or now - self._told < LINE_SECONDS:
            return
        self._told, task = now, self.tasks[self.task_ids.index(task_id)]
        if task.finished:
            return
        total = f" of {task.total:,.0f}" if task.total else ""
        left = f", about {duration(task.time_remaining)} left" if task.time_remaining else ""
        note = f" ({task.fields['note']})" if task.fields.get("note") else ""
        self.console.print(f"{task.description}: {task.completed:,.0f}{total}{left}{note}")
