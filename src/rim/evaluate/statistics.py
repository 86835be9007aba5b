"""Small exact statistics: Wilson's interval, McNemar's test, intervals over seeds.

scipy.stats takes half a second to import, so that is done where a quantile or a p is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


def share(right: Sequence[bool]) -> dict[str, Any]:
    """Return the share of marks that are right, with its 95 % Wilson interval, as JSON has it."""
    count, total = sum(right), len(right)
    low, high = wilson_interval(count, total)
    accuracy = count / total if total else 0.0
    return {"right": count, "total": total, "accuracy": accuracy, "low": low, "high": high}


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, as shares. An empty sample gives (0, 1)."""
    if total == 0:
        return (0.0, 1.0)
    share, z = successes / total, 1.959964
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of a mean, by drawing the values 2,000 times with replacement."""
    import numpy as np

    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(array), size=(2000, len(array)))
    low, high = np.quantile(array[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


#: With fewer seeds a t interval says little more than that there are few: shown is their range.
SEEDS_FOR_T = 5


@dataclass(frozen=True)
class McNemar:
    """Two models on the same questions; p is exact and two-sided."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: str, second: str) -> McNemar:
    """McNemar's exact test on two strings of 0 and 1, question by question.

    Under the null hypothesis a question that one model alone gets right is as likely to be the
    first's as the second's: p is the two-sided binomial probability of a split this uneven.
    """
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return McNemar(only_first, only_second, p)


def fisher_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Fisher's exact test, two-sided: (hits, total) of two groups that share no question."""
    from scipy.stats import fisher_exact

    table = [[hits, total - hits] for hits, total in (first, second)]
    return float(fisher_exact(table)[1])  # type: ignore[arg-type]


def joint_p(tests: Sequence[McNemar]) -> float:
    """One p for several seeds: the largest, and 1 where they point in different directions.

    Small only if every seed alone shows the same. No correction: that is a bound, not a pooled p.
    """
    directions = {test.only_first > test.only_second for test in tests}
    return max(test.p for test in tests) if len(directions) == 1 else 1.0


def share_spread(right: Sequence[str]) -> dict[str, Any]:
    """Accuracies of several seeds, given as strings of 0 and 1; of one seed ("wilson") with a 95 %
    interval over its questions.
    """
    if len(right) == 1:
        hits, total = right[0].count("1"), len(right[0])
        low, high = wilson_interval(hits, total)
        return {"mean": hits / total, "low": low, "high": high, "kind": "wilson", "seeds": 1}
    spread = value_spread([text.count("1") / len(text) for text in right])
    return spread | {"low": max(0.0, spread["low"]), "high": min(1.0, spread["high"])}


def value_spread(values: Sequence[float]) -> dict[str, Any]:
    """The mean of any number over seeds, with the least and the most ("range"; "none" of one seed)
    or, of enough seeds, with a 95 % interval for the mean, if they are normally distributed ("t").
    """
    mean, count = fmean(values), len(values)
    if count < SEEDS_FOR_T:
        kind, low, high = "none" if count == 1 else "range", min(values), max(values)
    else:
        from scipy.stats import t

        half = float(t.ppf(0.975, count - 1)) * stdev(values) / math.sqrt(count)
        kind, low, high = "t", mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "kind": kind, "seeds": count}
