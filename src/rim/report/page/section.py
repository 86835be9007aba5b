"""A section of a report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from rim.report.page.gather import Run


@dataclass
class Section:
    """One part of the page. `missing`: a command that would make what is not there.
    figures: (SVG, caption). table: heading row, then rows.
    """

    id: str
    title: str
    lines: list[str] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def figure(self, svg: str, caption: str) -> None:
        self.figures.append((svg, caption))


def accuracy_points(rows: Collection[dict[str, Any]]) -> dict[str, list[float]]:
    """The accuracies of a chart's series and their intervals, in per cent."""
    names = {"y": "accuracy", "low": "low", "high": "high"}
    return {ours: [100 * row[theirs] for row in rows] for ours, theirs in names.items()}


def command(run: Run, words: str) -> str:
    """A command that a person may paste, `RUN` being the run."""
    return re.sub(r"\bRUN\b", lambda _: shlex.quote(str(run.path)), words)
