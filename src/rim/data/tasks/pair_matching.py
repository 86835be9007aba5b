"""Which items match: two match if they add up to a target, digit by digit, modulo a number (2SUM).

`37 15 82 28 40=`: is there a pair that adds up to 0 (`any`), or how many are there (`count`)? With
`target: last` the target ends the question, `37 15 82 28 40;55=`, so that no pair can be looked for
before; with `target: first` it opens it, `55;37 15 82 28 40=`. With `ask: which`, `37 15 82 40;28=`
asks which item (from 1) matches the one behind the semicolon.

A step says it for one row: how many of the items behind this one match it; `steps: partners` adds
what was looked for, `0:28`. Rows need nothing of each other; all pairs at once are what filler
tokens were shown to be good for, above all where a last token says what to look for (Pfau et al.,
arXiv 2404.15758).

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


def partner(item: Item, target: Item, modulus: int) -> Item:
    """Return the item that adds up to the target with this one."""
    return tuple((t - a) % modulus for a, t in zip(item, target, strict=True))


def rows(items: Sequence[Item], target: Item, modulus: int) -> list[int]:
    """For every item but the last, how many behind it match it."""
    return [
        items[i + 1 :].count(partner(item, target, modulus)) for i, item in enumerate(items[:-1])
    ]


def conclude(values: Sequence[int], ask: str) -> str:
    return str(int(any(values)) if ask == "any" else sum(values))


def text(item: Item) -> str:
    return "".join(map(str, item))


def write(items: Sequence[Item], asked: Item | None = None, place: str = "last") -> str:
    """The question, with what is asked for behind the items or before them."""
    listed = " ".join(map(text, items))
    if asked is None:
        return f"{listed}="
    return f"{listed};{text(asked)}=" if place == "last" else f"{text(asked)};{listed}="


def say_rows(items: Sequence[Item], target: Item, config: PairMatchingConfig) -> list[str]:
    """Write the steps."""
    found = rows(items, target, config.modulus)
    if config.steps == "counts":
        return [str(count) for count in found]
    wanted = [text(partner(item, target, config.modulus)) for item in items[:-1]]
    return [f"{count}:{what}" for count, what in zip(found, wanted, strict=True)]


def generate_pair_matching(
    config: PairMatchingConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split, as many of each number of items; see `generate`."""
    modulus, zero = config.modulus, (0,) * config.digits

    def item(rng: random.Random) -> Item:
        return tuple(rng.randrange(modulus) for _ in range(config.digits))

    def draw_which(rng: random.Random, count: int) -> Draft | None:
        items = [item(rng) for _ in range(count)]
        query = partner(items[rng.sample(range(count), count)[0]], zero, modulus)
        marks = [int(partner(other, zero, modulus) == query) for other in items]
        if sum(marks) > 1:
            return None
        steps, answer = [str(mark) for mark in marks], str(marks.index(1) + 1)
        return Draft(question := write(items, query), lambda: (steps, answer), key=question)

    def draw(rng: random.Random, count: int) -> Draft | None:
        items = [item(rng) for _ in range(count)]
        target = zero if config.target == "zero" else item(rng)
        places = rng.sample(range(count), count)
        wanted = rng.randint(0, 1 if config.ask == "any" else config.max_pairs)
        for one, other in zip(places[:wanted], places[wanted : 2 * wanted], strict=True):
            items[other] = partner(items[one], target, modulus)
        found = rows(items, target, modulus)
        if sum(found) != wanted:
            return None
        question = write(items, None if config.target == "zero" else target, config.target)
        return Draft(
            question,
            lambda: (say_rows(items, target, config), conclude(found, config.ask)),
            key=write(items, None if config.target == "zero" else target),
        )

    lengths = range(config.min_items, config.max_items + 1)
    chosen = draw_which if config.ask == "which" else draw
    task = Task("pair_matching", lengths, "items", chosen, "more digits or a larger modulus")
    return generate(config, task, excluded)


def read_pair_matching(config: PairMatchingConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is how many items behind item t match it. None under
    `ask: which`, where no answer follows from a row and the other rows of another question, and
    under `steps: partners`, whose steps say more than that value.
    """
    found = re.fullmatch(r"(?:(\d+);)?(\d+(?: \d+)+)(?:;(\d+))?=", question)
    if config.ask == "which" or config.steps == "partners" or found is None:
        return None
    items = [_item(digits) for digits in found[2].split(" ")]
    asked = found[1] or found[3]
    place = "zero" if not asked else "first" if found[1] else "last"
    target = _item(asked) if asked else (0,) * len(items[0])
    same_width = len({len(item) for item in (*items, target)}) == 1
    if place != config.target or (found[1] and found[3]) or not same_width:
        return None
    values = rows(items, target, config.modulus)

    def rewrite(rng: random.Random) -> str:
        changed = [list(item) for item in items]
        row = rng.randrange(len(items))
        column = rng.randrange(len(items[row]))
        digit = other_than(rng, range(config.modulus), items[row][column])
        changed[row][column] = int(digit)
        rewritten = [tuple(item) for item in changed]
        return write(rewritten, target if asked else None, place)

    largest = 1 if config.ask == "any" else 2 * config.max_pairs  # one row more, from elsewhere
    return Worked(
        f"{len(items)} items, target {place}",
        tuple(map(str, values)),
        conclude(values, config.ask),
        numbers_below(max(largest, sum(values)) + 1),
        lambda t, value: conclude([*values[: t - 1], int(value), *values[t:]], config.ask),
        rewrite,
    )


def _item(digits: str) -> Item:
    return tuple(map(int, digits))
