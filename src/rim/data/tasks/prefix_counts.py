"""How many ones a string of bits has, modulo a number (2: its parity), with a step a chunk.

`0110 1001 1110=` has 2, 4 and 7 ones up to the end of each chunk. A chunk's own count needs nothing
of the others, so prefix counts can be had side by side as well as one after the other; a network of
few layers finds parity by itself hard and prefix counts easy (London and Kanade, arXiv 2505.21024).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection

from rim.config import PrefixCountsConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate
from rim.data.tasks.worked import Worked, numbers_below


def prefix_counts(chunks: list[str], modulus: int) -> list[str]:
    """The count of ones up to the end of each chunk."""
    counts = itertools.accumulate(chunk.count("1") for chunk in chunks)
    return [str(count % modulus) for count in counts]


def generate_prefix_counts(
    config: PrefixCountsConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split, as many of each number of chunks; see `generate`."""

    def draw(rng: random.Random, length: int) -> Draft:
        chunks: list[str] = ["".join(rng.choices("01", k=config.chunk)) for _ in range(length)]

        def solve() -> tuple[list[str], str]:
            counts = prefix_counts(chunks, config.modulus)
            return counts, counts[-1]

        return Draft(question := " ".join(chunks) + "=", solve, key=question)

    lengths = range(config.min_chunks, config.max_chunks + 1)
    task = Task("prefix_counts", lengths, "chunks", draw, "more chunks or longer ones")
    return generate(config, task, excluded)


def read_prefix_counts(config: PrefixCountsConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is the count up to the end of chunk t."""
    if not re.fullmatch(r"[01]+( [01]+)*=", question):
        return None
    chunks = question.removesuffix("=").split(" ")
    counts = prefix_counts(chunks, config.modulus)

    def continue_from(t: int, value: str) -> str:
        return str((int(value) + "".join(chunks[t:]).count("1")) % config.modulus)

    def rewrite(rng: random.Random) -> str:
        at = rng.choice([i for i, sign in enumerate(question) if sign in "01"])
        return f"{question[:at]}{'10'[int(question[at])]}{question[at + 1 :]}"

    largest = min(config.modulus, sum(map(len, chunks)) + 1)
    return Worked(
        f"{len(chunks)} chunks",
        tuple(counts),
        counts[-1],
        numbers_below(largest),
        continue_from,
        rewrite,
    )
