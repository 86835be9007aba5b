"""Numbers of `results/` as the documents' tables have them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(ROOT.glob(pattern))]


def listed(runs: list[dict[str, Any]], key: str) -> str:
    return ", ".join(str(run[key]) for run in runs)


def span(values: list[float], digits: int = 1) -> str:
    """`mean (least-most)` over seeds; one seed's have no brackets."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, high = min(values), max(values)
    return f"{statistics.fmean(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def quartiles(values: dict[str, float] | None, digits: int) -> str:
    if values is None:
        return "-"
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def spread(values: dict[str, float], digits: int = 1, scale: float = 1) -> str:
    """`mean (low-high)` of a comparison's numbers; one seed's have no brackets."""
    mean, low, high = (f"{scale * values[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}-{high})" if low != high else mean


def short_commit(commit: str) -> str:
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")
