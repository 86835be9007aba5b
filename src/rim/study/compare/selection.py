"""The paper's selection protocol: random splits of the TEST questions, one part to choose the
candidate, the rest to score it.

The protocol of arXiv 2605.30343: 16 splits, 264 held-out questions, mean and
standard error. That candidates are the seeds and variants of a method is our reading.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rim.config import ConfigError
from rim.study.compare.settings import Comparison


def selections(
    settings: Comparison,
    right: Mapping[str, Mapping[int, str]],
    others: Mapping[str, Mapping[str, Mapping[int, str]]] | None = None,
) -> dict[str, dict[str, Any]]:
    """`select` for every group of candidates, if the comparison asks for it.

    Args:
        right: right-or-wrong on the test questions, by method and seed.
        others: the same on each further test set, which is only scored.
    """
    chosen = settings.selection
    if chosen is None:
        return {}
    grouped = {name for names in chosen.candidates.values() for name in names}
    groups = dict(chosen.candidates) | {name: (name,) for name in right if name not in grouped}

    def candidates(names: Sequence[str], right: Mapping[str, Mapping[int, str]]) -> dict[str, str]:
        return {f"{n}-seed{seed}": m for n in names for seed, m in right.get(n, {}).items()}

    options = {"splits": chosen.splits, "held_out": chosen.held_out, "seed": chosen.seed}
    found = {}
    for group, names in groups.items():
        if marks := candidates(names, right):
            further = {test: candidates(names, content) for test, content in (others or {}).items()}
            found[group] = select(marks, others=further, **options)
    return found


def select(
    candidates: Mapping[str, str],
    *,
    splits: int,
    held_out: int,
    seed: int,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Choose on the held-out part of each split, score on the rest.

    Args:
        candidates: right-or-wrong of each candidate, strings of 0 and 1 over the same questions. Of
            equally good ones the first is chosen.
        others: the candidates' marks on further test sets, all of which score the chosen one.

    Returns:
        `mean` and `standard_error` over the splits (they share questions, so this is no interval
        for another test set), how often each candidate was `chosen`, and `mean` and
        `standard_error` on the `others`.

    Raises:
        ConfigError: held_out leaves no question to score.
    """
    total = len(next(iter(candidates.values())))
    if held_out >= total:
        raise ConfigError(
            f"selection.held_out {held_out} leaves nothing to score of {total} test questions"
        )
    stream = random.Random(seed)
    scores, chosen = [], Counter[str]()
    for _ in range(splits):
        held = set(stream.sample(range(total), held_out))
        on_held = {name: sum(right[i] == "1" for i in held) for name, right in candidates.items()}
        best = max(on_held, key=lambda name: on_held[name])
        chosen[best] += 1
        scores.append((candidates[best].count("1") - on_held[best]) / (total - held_out))
    further = {
        test: _over_splits([share for n, c in chosen.items() for share in [_share(marks[n])] * c])
        for test, marks in (others or {}).items()
    }
    return _over_splits(scores) | {"chosen": dict(chosen), "others": further}


def _share(right: str) -> float:
    return right.count("1") / len(right)


def _over_splits(scores: Sequence[float]) -> dict[str, float]:
    error = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
    return {"mean": fmean(scores), "standard_error": error}
