"""The smallest task: chains such as `3+4-5=` modulo 10, solved one operation at a time."""

from __future__ import annotations

import functools
import random
from collections.abc import Collection

from rim.config import ArithmeticConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate


def solve(numbers: list[int], operators: list[str], modulus: int) -> tuple[list[str], str]:
    """The worked solution and the answer, e.g. `["3+4=7", "7-5=2"]` and `"2"`."""
    steps, value = [], numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        result = (value + number if operator == "+" else value - number) % modulus
        steps.append(f"{value}{operator}{number}={result}")
        value = result
    return steps, str(value)


def generate_arithmetic(config: ArithmeticConfig, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split, as many of each length; see `generate`."""

    def draw(rng: random.Random, length: int) -> Draft:
        numbers = [rng.randrange(config.modulus) for _ in range(length + 1)]
        operators = [rng.choice("+-") for _ in range(length)]
        terms = "".join(o + str(n) for o, n in zip(operators, numbers[1:], strict=True))
        chain = f"{numbers[0]}{terms}" if config.start == "first" else f"{terms}:{numbers[0]}"
        question = chain + "="
        solution = functools.partial(solve, numbers, operators, config.modulus)
        return Draft(question, solution, key=question)

    lengths = range(config.min_operations, config.max_operations + 1)
    task = Task("arithmetic", lengths, "operations", draw, "more operations")
    return generate(config, task, excluded)
