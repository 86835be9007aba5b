"""What generated tasks share: splits by hash, the loop that draws questions, people's names."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rim.config import GeneratorConfig
from rim.data.examples import DataError, Example

# Shares of the question space, by the first byte of the hash.
_SPLIT_OF_BYTE = ["validation"] * 26 + ["test"] * 51 + ["train"] * 179
_TRIES = 10_000  # for one example; knobs that ask for the impossible fail within seconds

_PEOPLE = (
    "Anna Ben Clara David Emma Felix Grace Hugo Ivy Jonas Kira Leo Mia Noah Olga Paul Quinn Rosa "
    "Simon Tara Umar Vera Will Xenia Yusuf Zoe Bruno Celia Dora Emil Frida Gustav"
)
PEOPLE = tuple(_PEOPLE.split())


@dataclass(frozen=True)
class Draft:
    """A drawn question, and how to solve it: only questions that are kept are solved.

    `key` is what decides the split and counts as repeated: the same for all ways to write the same
    question (sentences in another order).
    """

    question: str
    solve: Callable[[], tuple[Sequence[str], str]]
    key: str


@dataclass(frozen=True)
class Task:
    """A task as `generate` needs it.

    Args:
        depths: how deep the questions are, in turn.
        unit: what depth counts, for messages ("hops").
        draw: a random question of a depth, or None where this try led nowhere.
        advice: what to change where questions run out.
    """

    name: str
    depths: Sequence[int]
    unit: str
    draw: Callable[[random.Random, int], Draft | None]
    advice: str


def split_of(key: str) -> str:
    """The split that a question belongs to: about 70 % train, 10 % validation, 20 % test."""
    return _SPLIT_OF_BYTE[hashlib.sha256(key.encode()).digest()[0]]


def sentences_key(sentences: Sequence[str]) -> str:
    """The key of a question whose sentences may stand in any order."""
    return " ".join(sorted(sentences))


def generate(config: GeneratorConfig, task: Task, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split in a seeded order, none of whose questions is in `excluded`.

    Validation and test questions are distinct; training questions may repeat, as in a stream (there
    are only 200 arithmetic chains with one operation).

    Raises:
        DataError: no such question was found, because the split has too few or the knobs allow
            none.
    """
    rng = random.Random(f"{config.split}-{config.seed}")
    examples: list[Example] = []
    seen: set[str] = set()
    for i in range(config.num_examples):
        depth = task.depths[i % len(task.depths)]
        possible = False
        for _ in range(_TRIES):
            draft = task.draw(rng, depth)
            if draft is None:
                continue
            possible = True
            if (
                draft.question not in excluded
                and split_of(draft.key) == config.split
                and (config.split == "train" or draft.key not in seen)
            ):
                break
        else:
            wanted = f"{config.num_examples} distinct {config.split} questions"
            fault = (
                f"no {wanted} with {depth} {task.unit}; ask for fewer examples or {task.advice}"
                if possible
                else f"these settings allow no question with {depth} {task.unit}; {task.advice}"
            )
            raise DataError(f"{task.name}: {fault}")
        assert draft is not None
        seen.add(draft.key)
        steps, answer = draft.solve()
        origin = f"{task.name} {config.split} {i + 1}"
        examples.append(Example(draft.question, tuple(steps), answer, origin))
    rng.shuffle(examples)
    return examples
