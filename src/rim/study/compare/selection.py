"""The paper's selection protocol: random splits of the TEST questions, one part to choose the
candidate, the rest to score it.

The protocol of arXiv 2605.30343: 16 splits, 264 held-out questions, mean and
standard error. That candidates are the seeds and variants of a method is our reading.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from rim.config import ConfigError
from rim.study.compare.settings import Comparison


def selections(
    settings: Comparison, right: Mapping[str, Mapping[int, str]]
) -> dict[str, dict[str, Any]]:
    """`select` for every group of candidates, if the comparison asks for it.

    Args:
        right: right-or-wrong on the test questions, by method and seed.
    """
    chosen = settings.selection
    if chosen is None:
        return {}
    grouped = {name for names in chosen.candidates.values() for name in names}
    groups = dict(chosen.candidates) | {name: (name,) for name in right if name not in grouped}
    candidates = {
        group: {f"{n}-seed{seed}": m for n in names for seed, m in right.get(n, {}).items()}
        for group, names in groups.items()
    }
    options = {"splits": chosen.splits, "held_out": chosen.held_out, "seed": chosen.seed}
    return {group: select(marks, **options) for group, marks in candidates.items() if marks}


def select(
    candidates: Mapping[str, str], *, splits: int, held_out: int, seed: int
) -> dict[str, Any]:
    """Choose on the held-out part of each split, score on the rest.

    Args:
        candidates: right-or-wrong of each candidate, strings of 0 and 1 over the same questions. Of
            equally good ones the first is chosen.

    Returns:
        `mean` and `standard_error` over the splits (they share questions, so this is no interval
        for another test set), and how often each candidate was `chosen`.

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
    error = stdev(scores) / math.sqrt(splits) if splits > 1 else 0.0
    return {"mean": fmean(scores), "standard_error": error, "chosen": dict(chosen)}
