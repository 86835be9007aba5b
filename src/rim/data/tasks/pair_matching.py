"""Which items match: two match if they add up to 0, digit by digit, modulo a number (2SUM).

`37 15 82 28 40=`: is there a pair that matches (`any`), or how many are there (`count`)? With
`ask: which`, `37 15 82 40;28=` asks which item (from 1) matches the one behind the semicolon. A
step says it for one row: how many of the items behind this one match it. Rows need nothing of each
other; all pairs at once are what filler tokens were shown to be good for (Pfau et al., arXiv
2404.15758).

Pairs are planted, each of two items that no other pair has, and all else is drawn so that nothing
else matches. So with one pair at most, questions are as if items were drawn evenly until as many
pairs match as wanted; with more, an item that matches several others never occurs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

from rim.config import PairMatchingConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate
from rim.data.tasks.worked import Worked, numbers_below, other_than

Item = tuple[int, ...]


def match(one: Item, other: Item, modulus: int) -> bool:
    return all((a + b) % modulus == 0 for a, b in zip(one, other, strict=True))


def rows(items: Sequence[Item], modulus: int) -> list[int]:
    """For every item but the last, how many behind it match it."""
    return [
        sum(match(item, other, modulus) for other in items[i + 1 :])
        for i, item in enumerate(items[:-1])
    ]


def conclude(values: Sequence[int], ask: str) -> str:
    return str(int(any(values)) if ask == "any" else sum(values))


def write(items: Sequence[Item], query: Item | None = None) -> str:
    texts = ["".join(map(str, item)) for item in items]
    return " ".join(texts) + ("=" if query is None else f";{''.join(map(str, query))}=")


def generate_pair_matching(
    config: PairMatchingConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split, as many of each number of items; see `generate`."""
    modulus = config.modulus

    def item(rng: random.Random) -> Item:
        return tuple(rng.randrange(modulus) for _ in range(config.digits))

    def draw(rng: random.Random, count: int) -> Draft | None:
        items = [item(rng) for _ in range(count)]
        places = rng.sample(range(count), count)
        if config.ask == "which":
            query = tuple(-digit % modulus for digit in items[places[0]])
            marks = [int(match(other, query, modulus)) for other in items]
            if sum(marks) > 1:
                return None
            steps, answer = [str(mark) for mark in marks], str(marks.index(1) + 1)
            return Draft(question := write(items, query), lambda: (steps, answer), key=question)
        wanted = rng.randint(0, 1 if config.ask == "any" else config.max_pairs)
        for one, other in zip(places[:wanted], places[wanted : 2 * wanted], strict=True):
            items[other] = tuple(-digit % modulus for digit in items[one])
        found = rows(items, modulus)
        if sum(found) != wanted:
            return None
        question = write(items)
        return Draft(
            question, lambda: ([str(n) for n in found], conclude(found, config.ask)), key=question
        )

    lengths = range(config.min_items, config.max_items + 1)
    task = Task("pair_matching", lengths, "items", draw, "more digits or a larger modulus")
    return generate(config, task, excluded)


def read_pair_matching(config: PairMatchingConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is how many items behind item t match it. None under
    `ask: which`, where no answer follows from a row and the other rows of another question.
    """
    if config.ask == "which" or not re.fullmatch(r"\d+( \d+)+=", question):
        return None
    items = [tuple(map(int, text)) for text in question.removesuffix("=").split(" ")]
    values = rows(items, config.modulus)

    def rewrite(rng: random.Random) -> str:
        changed = [list(item) for item in items]
        row = rng.randrange(len(items))
        place = rng.randrange(len(items[row]))
        digit = other_than(rng, range(config.modulus), items[row][place])
        changed[row][place] = int(digit)
        return write([tuple(item) for item in changed])

    largest = 1 if config.ask == "any" else 2 * config.max_pairs  # one row more, from elsewhere
    return Worked(
        f"{len(items)} items",
        tuple(map(str, values)),
        conclude(values, config.ask),
        numbers_below(max(largest, sum(values)) + 1),
        lambda t, value: conclude([*values[: t - 1], int(value), *values[t:]], config.ask),
        rewrite,
    )
