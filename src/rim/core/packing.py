"""Which examples of a batch share a row, so that few positions are padding.

Attention costs the square of a row's length, everything else its length: rows as narrow as possible
that still waste little. The mask keeps the examples of a row apart (`rim.core.masks`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

#: Share of the positions that may be padding, before rows are made wider than the longest example.
MAX_PADDING = 0.05


def pack_rows(lengths: Sequence[int]) -> list[list[int]]:
    """The examples of each row, by number; every example is in one row, rows in ascending order.

    Tries ever fewer rows, each time giving the next longest example to the emptiest row, until at
    most `MAX_PADDING` of the positions are padding; otherwise what wastes least.
    """
    total, longest = sum(lengths), max(lengths)
    most_rows = min(len(lengths), int(total / (1 - MAX_PADDING) / longest))
    best: tuple[int, list[list[int]]] | None = None
    for count in range(max(1, most_rows), 0, -1):
        width, rows = _fill_evenly(lengths, count)
        if best is None or width * count < best[0]:
            best = (width * count, rows)
        if total >= (1 - MAX_PADDING) * width * count:
            break
    assert best is not None
    return sorted(sorted(row) for row in best[1])


def _fill_evenly(lengths: Sequence[int], count: int) -> tuple[int, list[list[int]]]:
    """`count` rows of about equal length, and the longest one's length."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, p) for p in range(count)]
    for b in sorted(range(len(lengths)), key=lambda b: -lengths[b]):
        load, p = loads[0]
        rows[p].append(b)
        heapq.heapreplace(loads, (load + lengths[b], p))
    return max(load for load, _ in loads), rows
