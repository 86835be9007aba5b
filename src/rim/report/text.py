"""Texts of others as a screen may have them, files of theirs, and how numbers are written."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any


def printable(text: str, keep: str = "\n\t") -> str:
    """No character can command a terminal (Cc) or stand there unseen (Cf), and none is beyond
    UTF-8 (Cs). They are shown as in JSON, so that JSON still says the same.

    Args:
        keep: characters that stay nevertheless.
    """
    return "".join(
        json.dumps(character)[1:-1]
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in keep
        else character
        for character in text
    )


def json_lines(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The records of a JSONL; none where there is no file.

    Args:
        problems: is told of every broken line, such as a half-written last one.
    """
    if not file.exists():
        return []
    rows = []
    # Other line breaks of Unicode may stand in a line of JSON.
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            problems.append(f"{file} has a broken line")
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def duration(seconds: float) -> str:
    """`80 s`, `25 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def percent(row: dict[str, Any], digits: int = 1, unit: str = " %") -> str:
    """`97.4 % (96.0-98.3)`: a share with the interval from `low` to `high`. A spread over seeds has
    `mean`, the accuracy of one run `accuracy`.
    """
    share = "mean" if "mean" in row else "accuracy"
    value, low, high = (f"{100 * row[key]:.{digits}f}" for key in (share, "low", "high"))
    return f"{value}{unit} ({low}-{high})"


def p_cell(p: float | None) -> str:
    """`0.012`, `< 0.001`, or `-` where there is none."""
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_text(p: float) -> str:
    """`p = 0.012` or `p < 0.001`."""
    return f"p {'= ' if p >= 0.001 else ''}{p_cell(p)}"
