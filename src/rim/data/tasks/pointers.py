"""Pointer chasing: a table of arrows in the prompt, a start, and how many arrows to follow.

`cb ad db ac:c2=` says c -> b, a -> d, ... and asks where two hops from c lead: c -> b, b -> ... The
arrows form one circle through all letters, so every letter is pointed at exactly once, none comes
back before all were visited, and without following arrows each is as likely as any other.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Collection, Mapping, Sequence

from rim.config import PointersConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate
from rim.data.tasks.worked import Worked, other_than


def _arrows(pairs: Sequence[str]) -> dict[str, str]:
    """From each letter to the next: "ab" is an arrow from a to b."""
    return {pair[0]: pair[1] for pair in pairs}


def solve(arrows: Mapping[str, str], start: str, hops: int) -> tuple[list[str], str]:
    """The arrows followed, in order, and where they lead: `["cb", "ba"]` and `"a"`."""
    steps, node = [], start
    for _ in range(hops):
        steps.append(node + arrows[node])
        node = arrows[node]
    return steps, node


def write(pairs: list[str], start: str, hops: int, place: str) -> str:
    """The question, with what is asked behind the table or before it."""
    table, ask = " ".join(pairs), f"{start}{hops}"
    return f"{table}:{ask}=" if place == "last" else f"{ask}:{table}="


def generate_pointers(config: PointersConfig, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split, as many of each number of hops; see `generate`."""

    def draw(rng: random.Random, hops: int) -> Draft:
        circle = rng.sample(string.ascii_lowercase[: config.nodes], config.nodes)
        pairs = [circle[i - 1] + node for i, node in enumerate(circle)]
        rng.shuffle(pairs)
        start = rng.choice(circle)
        question = write(pairs, start, hops, config.start)
        key = f"{' '.join(sorted(pairs))}:{start}{hops}"
        return Draft(question, lambda: solve(_arrows(pairs), start, hops), key)

    lengths = range(config.min_hops, config.max_hops + 1)
    return generate(config, Task("pointers", lengths, "hops", draw, "more nodes"), excluded)


def read_pointers(config: PointersConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is the letter reached."""
    found = re.fullmatch(r"(?:(\w\d+):)?(\w\w(?: \w\w)*)(?::(\w\d+))?=", question)
    if found is None or not (ask := found[1] or found[3]):
        return None
    pairs, start, hops = found[2].split(), ask[0], int(ask[1:])
    place = "first" if found[1] else "last"
    try:
        steps, answer = solve(_arrows(pairs), start, hops)
    except KeyError:  # a letter that no arrow starts from
        return None
    nodes = tuple(sorted(source for source, _ in pairs))

    def rewrite(rng: random.Random) -> str:
        """One arrow points elsewhere: two may now lead to one letter."""
        changed, at = list(pairs), rng.randrange(len(pairs))
        source, target = pairs[at]
        changed[at] = source + other_than(rng, nodes, target)
        return write(changed, start, hops, place)

    return Worked(
        f"{hops} hops, {''.join(nodes)}, start {place}",
        tuple(step[1] for step in steps),
        answer,
        nodes,
        lambda t, value: solve(_arrows(pairs), value, hops - t)[1],
        rewrite,
    )
