"""Which examples of a batch share a row, so that few positions are padding.

Attention costs the square of a row's length, everything else its length: rows as narrow as possible
that still waste little. The mask keeps the examples of a row apart (`rim.core.masks`).
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence

#: Share of the positions that may be padding, before rows are made wider than the longest example.
MAX_PADDING = 0.05
#: How much wider they may become.
MOST_WIDENING = 3


def pack_rows(lengths: Sequence[int]) -> list[list[int]]:
    """The examples of each row, by number; every example is in one row, rows in ascending order.

    Tries ever wider rows, from the longest example on, until at most `MAX_PADDING` of the positions
    are padding; otherwise what wastes least.
    """
    total, longest = sum(lengths), max(lengths)
    best: tuple[int, list[list[int]]] | None = None
    for room in range(longest, MOST_WIDENING * longest + 1, max(1, longest // 64)):
        full = _fill(lengths, room)
        count = len(full)
        for rows in (full, _spread(lengths, count), _spread(lengths, max(1, count - 1))):
            positions = len(rows) * max(sum(lengths[b] for b in row) for row in rows)
            if best is None or positions < best[0]:
                best = (positions, rows)
        assert best is not None
        if total >= (1 - MAX_PADDING) * best[0]:
            break
    assert best is not None
    return sorted(sorted(row) for row in best[1])


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda b: -lengths[b])


def _fill(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows of at most `room`: the next longest example goes where it leaves the least room (best
    fit decreasing). The last row may be left almost empty.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # room left and row, ascending
    for b in _longest_first(lengths):
        at = bisect.bisect_left(free, (lengths[b], -1))
        if at == len(free):
            rows.append([])
            left, p = room, len(rows) - 1
        else:
            left, p = free.pop(at)
        rows[p].append(b)
        bisect.insort(free, (left - lengths[b], p))
    return rows


def _spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """`count` rows of about equal length: the next longest example goes into the emptiest."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, p) for p in range(count)]
    for b in _longest_first(lengths):
        load, p = loads[0]
        rows[p].append(b)
        heapq.heapreplace(loads, (load + lengths[b], p))
    return rows
