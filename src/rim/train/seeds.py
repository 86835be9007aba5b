"""The random streams of a run's stages."""

from __future__ import annotations

import hashlib


def stage_seed(seed: int, index: int) -> int:
    """The seed of the stage at `index` (from 0) of a run: the first stage has the run's own.

    Later ones have a hash of both, below 2^31: with a sum, stage 2 of seed 0 would draw the same
    orders and dropouts as stage 1 of seed 1, and seeds would not be independent repetitions.
    """
    if index == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
