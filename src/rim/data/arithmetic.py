"""The built-in task: chains such as `3+4-5=` modulo 10, solved one operation at a time.

Splits never share a question: a hash of the question decides which split it belongs to.
"""

from __future__ import annotations

import hashlib
import random

from rim.config import ArithmeticConfig
from rim.data.examples import DataError, Example

# Shares of the question space, by the first byte of the hash.
_SPLIT_OF_BYTE = ["validation"] * 26 + ["test"] * 51 + ["train"] * 179


def split_of(question: str) -> str:
    """The split that a question belongs to: about 70 % train, 10 % validation, 20 % test."""
    return _SPLIT_OF_BYTE[hashlib.sha256(question.encode()).digest()[0]]


def solve(numbers: list[int], operators: list[str], modulus: int) -> list[str]:
    """The worked solution, e.g. `["3+4=7", "7-5=2"]`."""
    steps, value = [], numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        result = (value + number if operator == "+" else value - number) % modulus
        steps.append(f"{value}{operator}{number}={result}")
        value = result
    return steps


def generate_arithmetic(config: ArithmeticConfig) -> list[Example]:
    """Examples of one split, as many of each length, in a seeded order.

    Validation and test questions are distinct; training questions may repeat (there are only 200
    chains with one operation), as in a stream.

    Raises:
        DataError: the split has fewer distinct questions of a length than asked for.
    """
    rng = random.Random(f"{config.split}-{config.seed}")
    lengths = range(config.min_operations, config.max_operations + 1)
    examples: list[Example] = []
    seen: set[str] = set()
    for i in range(config.num_examples):
        length = lengths[i % len(lengths)]
        for _ in range(10_000):
            numbers = [rng.randrange(config.modulus) for _ in range(length + 1)]
            operators = [rng.choice("+-") for _ in range(length)]
            question = (
                str(numbers[0])
                + "".join(o + str(n) for o, n in zip(operators, numbers[1:], strict=True))
                + "="
            )
            if split_of(question) == config.split and (
                config.split == "train" or question not in seen
            ):
                break
        else:
            raise DataError(
                f"arithmetic: no {config.num_examples} distinct {config.split} questions with "
                f"{length} operations; ask for fewer examples or more operations"
            )
        seen.add(question)
        steps = solve(numbers, operators, config.modulus)
        answer = steps[-1].rpartition("=")[2]
        examples.append(
            Example(question, tuple(steps), answer, f"arithmetic {config.split} {i + 1}")
        )
    rng.shuffle(examples)
    return examples
