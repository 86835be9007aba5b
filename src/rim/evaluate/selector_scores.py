"""How good selectors are: accuracy, calibration, risk and coverage, beside the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rim.evaluate.selectors import SELECTORS, Choice, Row, is_sure
from rim.evaluate.statistics import share

BINS = 10


def compare_selectors(
    rows: Sequence[Row],
    names: Sequence[str],
    thresholds: Mapping[str, Any],
    fallback_right: Sequence[bool] | None = None,
) -> dict[str, Any]:
    """Every selector on the same questions, and the oracle.

    Args:
        fallback_right: for every question whether the fall-back answers it rightly.
    """
    chosen = {name: [SELECTORS[name](row, thresholds) for row in rows] for name in names}
    return {
        "oracle": share([any(bool(a.right) for a in row) for row in rows]),
        "thresholds": dict(thresholds),
        "selectors": {
            name: _measure(name, choices, thresholds)
            | _with_fallback(name, choices, thresholds, fallback_right)
            for name, choices in chosen.items()
        },
    }


def _measure(name: str, choices: Sequence[Choice], thresholds: Mapping[str, Any]) -> dict[str, Any]:
    right = [bool(choice.answer.right) for choice in choices]
    confidence = [choice.confidence for choice in choices]
    curve = risk_coverage(confidence, right)
    measured: dict[str, Any] = share(right) | {
        "blocks_used": fmean(choice.blocks_used for choice in choices),
        "ece": calibration_error(confidence, right),
        "bins": calibration_bins(confidence, right),
        "risk_coverage": curve,
        "mean_risk": fmean(point["risk"] for point in curve),
    }
    if name in thresholds["abstain"]:
        kept = [bool(c.answer.right) for c in choices if is_sure(c, name, thresholds)]
        measured["abstain"] = share(kept) | {
            "threshold": thresholds["abstain"][name],
            "coverage": len(kept) / len(right),
        }
    return measured


def _with_fallback(
    name: str,
    choices: Sequence[Choice],
    thresholds: Mapping[str, Any],
    fallback_right: Sequence[bool] | None,
) -> dict[str, Any]:
    if fallback_right is None:
        return {}
    asked = [not is_sure(choice, name, thresholds) for choice in choices]
    right = [
        other if again else bool(choice.answer.right)
        for choice, again, other in zip(choices, asked, fallback_right, strict=True)
    ]
    return {"fallback": share(right) | {"asked_again": fmean(asked)}}


def calibration_bins(confidence: Sequence[float], right: Sequence[bool]) -> list[dict[str, Any]]:
    """Ten bins of equal width; those with answers: how sure they are and how often right."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for sure, is_right in zip(confidence, right, strict=True):
        bins[min(BINS - 1, int(sure * BINS))].append((sure, is_right))
    return [
        {
            "confidence": fmean(c for c, _ in own),
            "accuracy": fmean(r for _, r in own),
            "n": len(own),
        }
        for own in bins
        if own
    ]


def calibration_error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599): the gap between confidence
    and accuracy, averaged over the answers of ten bins.
    """
    bins = calibration_bins(confidence, right)
    return math.fsum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(right)


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> list[dict[str, float]]:
    """Share of wrong answers among the surest 5, 10 ... 100 % (Geifman and El-Yaniv 2017, arXiv
    1705.08500). Among equals in confidence the share is that of all of them.
    """
    order = sorted(zip(confidence, right, strict=True), key=lambda pair: -pair[0])
    groups: dict[float, list[bool]] = {}
    for sure, is_right in order:
        groups.setdefault(sure, []).append(is_right)
    wrong: list[float] = []  # expected number of wrong answers among the first n
    for own in groups.values():
        each = 1 - fmean(own)
        before = wrong[-1] if wrong else 0.0
        wrong += [before + each * i for i in range(1, len(own) + 1)]
    total = len(order)
    counts = sorted({max(1, round(total * i / 20)) for i in range(1, 21)})
    return [{"coverage": n / total, "risk": wrong[n - 1] / n} for n in counts]
