"""The order in which training goes through its examples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

#: Numbers of an epoch's order that are Python objects (28 bytes each) at a time.
PIECE = 2**16


class Shuffled(Sampler[int]):
    """All examples in an order that seed and epoch decide: accelerate's own order, bit for bit.

    accelerate's sampler makes a list of the whole order, which for millions of examples is the
    largest thing in memory. This one keeps 8 bytes an example.
    """

    def __init__(self, num_examples: int, seed: int):
        self.num_examples, self.seed, self.epoch = num_examples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_examples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.epoch + self.seed)
        for piece in torch.randperm(self.num_examples, generator=generator).split(PIECE):
            yield from piece.tolist()
        self.epoch += 1
