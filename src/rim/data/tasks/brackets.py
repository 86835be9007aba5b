"""Sub-results that need nothing of each other, put together at the end.

`(3+4)(5-2)(6*6)=` modulo 10: each bracket is worked out on its own, in any order, and the results
are added up. Memory blocks stand side by side in a prompt; this is work that can be done so. The
products keep the brackets from being one long sum.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Collection, Sequence

from rim.config import BracketsConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate
from rim.data.tasks.worked import Worked, numbers_below, other_than

_SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_BRACKET = re.compile(r"\((\d+)([-+*])(\d+)\)")

Bracket = tuple[int, str, int]


def sub_results(brackets: Sequence[Bracket], modulus: int) -> list[int]:
    return [_SIGNS[sign](left, right) % modulus for left, sign, right in brackets]


def combine(values: Sequence[int], how: str, modulus: int) -> str:
    return str(max(values) if how == "largest" else sum(values) % modulus)


def write(brackets: Sequence[Bracket]) -> str:
    return "".join(f"({left}{sign}{right})" for left, sign, right in brackets) + "="


def generate_brackets(config: BracketsConfig, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split, as many of each number of brackets; see `generate`."""

    def draw(rng: random.Random, count: int) -> Draft:
        brackets = [
            (rng.randrange(config.modulus), rng.choice(config.signs), rng.randrange(config.modulus))
            for _ in range(count)
        ]

        def solve() -> tuple[list[str], str]:
            values = sub_results(brackets, config.modulus)
            steps = [f"{a}{s}{b}={v}" for (a, s, b), v in zip(brackets, values, strict=True)]
            return steps, combine(values, config.combine, config.modulus)

        return Draft(question := write(brackets), solve, key=question)

    lengths = range(config.min_brackets, config.max_brackets + 1)
    return generate(config, Task("brackets", lengths, "brackets", draw, "more brackets"), excluded)


def read_brackets(config: BracketsConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is the result of bracket t."""
    brackets = [(int(a), sign, int(b)) for a, sign, b in _BRACKET.findall(question)]
    if not brackets or write(brackets) != question:
        return None
    values = sub_results(brackets, config.modulus)

    def continue_from(t: int, value: str) -> str:
        changed = [*values[: t - 1], int(value), *values[t:]]
        return combine(changed, config.combine, config.modulus)

    def rewrite(rng: random.Random) -> str:
        changed, at = list(brackets), rng.randrange(len(brackets))
        left, sign, right = brackets[at]
        changed[at] = (left, sign, int(other_than(rng, range(config.modulus), right)))
        return write(changed)

    return Worked(
        f"{len(brackets)} brackets",
        tuple(map(str, values)),
        combine(values, config.combine, config.modulus),
        numbers_below(config.modulus),
        continue_from,
        rewrite,
    )
