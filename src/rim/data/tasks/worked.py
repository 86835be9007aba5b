"""A question taken apart, as causal protocols (`rim.evaluate.protocols`) need it.

Transplanting block states asks: if the value after step t were another question's, what would the
answer be? Only the task knows. So a task may offer `read(config, question)`, which needs nothing
but the question's text and returns a `Worked`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Worked:
    """One question's intermediate values, and what would follow from others.

    Args:
        template: the same for questions that differ in their numbers or names alone.
        values: the value after each step, in the order of the steps.
        answer: the right answer.
        answers: all answers that the task knows (a closed set), this one among them.
        continue_from: (t, value) -> the answer if the value after step t (from 1) were this one,
            and the question otherwise the same.
        rewrite: the question with one fact changed at random; the answer may stay the same.
    """

    template: str
    values: tuple[str, ...]
    answer: str
    answers: tuple[str, ...]
    continue_from: Callable[[int, str], str]
    rewrite: Callable[[random.Random], str]


def numbers_below(modulus: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(modulus))


def other_than(rng: random.Random, choices: range | str | tuple[str, ...], taken: object) -> str:
    """One of the choices, but not the one taken."""
    return str(rng.choice([choice for choice in choices if str(choice) != str(taken)]))
