"""The parts of a cache that a transplant moves: whole, or their keys, values, bands of layers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from rim.core.layers import num_layers
from rim.evaluate.cache_interventions import BLOCKS, EVERYTHING, EVERYWHERE, QUESTION, Part, Slice
from rim.evaluate.protocols.asking import Asking


@dataclass(frozen=True)
class Carrier:
    """A part of the cache, and how many blocks run again behind it (`live`)."""

    name: str
    part: Part
    what: Slice = EVERYTHING
    live: int = 0
    is_blocks: bool = False  # one that a verdict on blocks may choose


def bands(layers: int) -> list[range]:
    """The layers in up to four bands of like size, from below."""
    count = min(4, layers)
    edges = [round(i * layers / count) for i in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def carriers(asking: Asking) -> list[Carrier]:
    """Every part, whole; and what each band of layers, the keys and the values of it do alone."""
    count, live_too = asking.blocks, asking.can_run_live
    whole = [Carrier("question", QUESTION)]
    for k in range(1, count + 1):
        whole.append(Carrier(f"block {k}", Part("block", k), is_blocks=True))
        if live_too and k < count:
            behind = ", later blocks run again"
            whole += [
                Carrier(f"block {k}{behind}", Part("block", k), live=count - k, is_blocks=True),
                Carrier(
                    f"blocks up to {k}{behind}", Part("up_to", k), live=count - k, is_blocks=True
                ),
            ]
    whole += [
        Carrier("all blocks", BLOCKS, is_blocks=True),
        Carrier("question and all blocks", EVERYWHERE),
        *(Carrier(f"last {n} tokens", Part("last", n)) for n in (1, 2, 4, 8)),
    ]
    layers = num_layers(asking.reasoner.model)
    slices = [
        (", keys", Slice(values=False)),
        (", values", Slice(keys=False)),
        *(
            (f", layers {band[0] + 1} to {band[-1] + 1}", Slice(layers=band))
            for band in bands(layers)
        ),
    ]
    parts = [c for c in whole if c.part.kind in ("question", "block", "blocks", "everything")]
    parts = [c for c in parts if not c.live]
    return whole + [
        Carrier(c.name + name, c.part, what, is_blocks=c.is_blocks)
        for c in parts
        for name, what in slices
    ]
