"""By how much one method is better than another, and whether that is sure.

A difference is called sure if McNemar's test says so in every seed (p < 0.05), as in the tables.
Which way it goes, and how far, is said of the seeds that both methods have.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

#: A chance below this is called sure.
LEVEL = 0.05


def lead(methods: dict[str, Any], name: str, reference: str) -> float | None:
    """By how much the reference is better than a method (a share), over the seeds that both have;
    None without such a seed. Means of all seeds may differ for want of a seed alone.
    """
    own, other = (by_seed(methods[n]) for n in (reference, name))
    shared = [seed for seed in own if seed in other]
    # Rounded: differences that cancel out are none.
    return round(fmean(own[s] - other[s] for s in shared), 9) if shared else None


def against(methods: dict[str, Any], name: str, reference: str) -> int:
    """1 if the reference is surely better than a method, -1 if surely worse, else 0."""
    p, by = methods[name].get("p"), lead(methods, name, reference)
    if p is None or p >= LEVEL or not by:
        return 0
    return 1 if by > 0 else -1


def by_seed(row: dict[str, Any]) -> dict[int, float]:
    return {seed: own["accuracy"] for seed, own in zip(row["seeds"], row["per_seed"], strict=True)}
