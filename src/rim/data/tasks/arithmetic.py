"""The smallest task: chains such as `3+4-5=` modulo 10, solved one operation at a time."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Collection

from rim.config import ArithmeticConfig
from rim.data.examples import Example
from rim.data.tasks.drawing import Draft, Task, generate
from rim.data.tasks.worked import Worked, numbers_below, other_than


def solve(numbers: list[int], operators: list[str], modulus: int) -> tuple[list[str], str]:
    """The worked solution and the answer, e.g. `["3+4=7", "7-5=2"]` and `"2"`."""
    steps, value = [], numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        result = (value + number if operator == "+" else value - number) % modulus
        steps.append(f"{value}{operator}{number}={result}")
        value = result
    return steps, str(value)


def write(numbers: list[int], operators: list[str], start: str) -> str:
    """The question, with the chain's start first or last."""
    terms = "".join(o + str(n) for o, n in zip(operators, numbers[1:], strict=True))
    chain = f"{numbers[0]}{terms}" if start == "first" else f"{terms}:{numbers[0]}"
    return chain + "="


def generate_arithmetic(config: ArithmeticConfig, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split, as many of each length; see `generate`."""

    def draw(rng: random.Random, length: int) -> Draft:
        numbers = [rng.randrange(config.modulus) for _ in range(length + 1)]
        operators: list[str] = [rng.choice("+-") for _ in range(length)]
        question = write(numbers, operators, config.start)
        solution = functools.partial(solve, numbers, operators, config.modulus)
        return Draft(question, solution, key=question)

    lengths = range(config.min_operations, config.max_operations + 1)
    task = Task("arithmetic", lengths, "operations", draw, "more operations")
    return generate(config, task, excluded)


def read_arithmetic(config: ArithmeticConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is the running value."""
    if not re.fullmatch(r"(\d+([+-]\d+)+|([+-]\d+)+:\d+)=", question):
        return None
    start = "last" if ":" in question else "first"
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    numbers = [numbers[-1], *numbers[:-1]] if start == "last" else numbers
    operators = re.findall(r"[+-]", question)
    steps, answer = solve(numbers, operators, config.modulus)

    def continue_from(t: int, value: str) -> str:
        return solve([int(value), *numbers[t + 1 :]], operators[t:], config.modulus)[1]

    def rewrite(rng: random.Random) -> str:
        changed, place = list(numbers), rng.randrange(len(numbers))
        changed[place] = int(other_than(rng, range(config.modulus), numbers[place]))
        return write(changed, operators, start)

    return Worked(
        f"{len(steps)} operations, start {start}",
        tuple(step.partition("=")[2] for step in steps),
        answer,
        numbers_below(config.modulus),
        continue_from,
        rewrite,
    )
