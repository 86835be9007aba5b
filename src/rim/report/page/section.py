"""A section of a report, and how numbers are written in it."""

from __future__ import annotations

import re
import shlex
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


def percent(row: dict[str, Any]) -> str:
    """`97.4 % (96.0-98.3)`; a spread over seeds has `mean`, an accuracy of one run `accuracy`."""
    value = row.get("mean", row.get("accuracy", 0.0))
    return f"{100 * value:.1f} % ({100 * row['low']:.1f}-{100 * row['high']:.1f})"


def command(run: Run, words: str) -> str:
    """A command that a person may paste, `RUN` being the run."""
    return re.sub(r"\bRUN\b", lambda _: shlex.quote(str(run.path)), words)
