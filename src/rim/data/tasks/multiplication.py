"""Long multiplication as in the files of iCoT: digits least significant first, partial products.

65 * 47 is the line `5 6 * 7 4||5 5 4 + 0 0 6 2 #### 5 5 0 3`; the terms between the plus signs are
the steps. A term is a partial product, with the running sum behind it in brackets but for the first
term, where it is the product itself, and the last, where it is the answer.
"""

from __future__ import annotations

import random
from collections.abc import Collection

from rim.config import MultiplicationConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate


def generate_multiplication(
    config: MultiplicationConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split, as many of each length of the second number; see `generate`.

    A product and the one with its factors swapped belong to the same split, and where one is
    excluded, so is the other.
    """
    swapped = {" * ".join(reversed(question.split(" * "))) for question in excluded}

    def draw(rng: random.Random, second_digits: int) -> Draft:
        first = _number(rng, config.first_digits)
        second = _number(rng, second_digits)
        return Draft(
            f"{_digits(first)} * {_digits(second)}",
            lambda: solve(first, second),
            key=f"{min(first, second)} * {max(first, second)}",
        )

    lengths = range(config.min_second_digits, config.max_second_digits + 1)
    task = Task("multiplication", lengths, "digits", draw, "more digits")
    return generate(config, task, {*excluded, *swapped})


def solve(first: int, second: int) -> tuple[list[str], str]:
    """Steps and answer of `first * second`, leading zeros kept: a length tells nothing."""
    width = len(str(first))
    multipliers = [int(digit) for digit in reversed(str(second))]
    steps, total = [], 0
    for place, multiplier in enumerate(multipliers):
        product = first * multiplier * 10**place
        total += product
        step = _digits(product, width + place + 1)
        if 0 < place < len(multipliers) - 1:
            step += f" ( {_digits(total, width + place + 1)} )"
        steps.append(step)
    return steps, _digits(total, width + len(multipliers))


def _number(rng: random.Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _digits(number: int, width: int = 0) -> str:
    """`2365` as `5 6 3 2`, filled up with zeros behind."""
    return " ".join(reversed(str(number).zfill(width)))
