"""Who has how many: word problems in which each sentence gives one person's number by another's.

"Anna has 4 marbles. Ben has 3 more marbles than Anna. ..." The people who lead to the answer form
a chain, each needing the one before; the others are distractors. Sentences are shuffled, steps are
equations in the order in which they can be solved.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rim.config import WordProblemsConfig
from rim.data.examples import DataError, Example
from rim.data.tasks.drawing import PEOPLE, Draft, Task, generate, sentences_key

THINGS = ("marble", "apple", "book", "coin", "stamp", "shell", "button", "ticket", "pencil", "card")
_GIVEN = (
    "{who} has {n} {things_n}.",
    "{who} owns {n} {things_n}.",
    "The number of {things} that {who} has is {n}.",
)
# By operation: `who` is computed from `other` (and, for "together", from `third`) by `n`.
_RELATIONS = {
    "add": (
        "{who} has {n} more {things_n} than {other}.",
        "{other} has {n} fewer {things_n} than {who}.",
        "If {other} got {n} more {things_n}, {other} would have as many as {who}.",
    ),
    "subtract": (
        "{who} has {n} fewer {things_n} than {other}.",
        "{other} has {n} more {things_n} than {who}.",
        "If {other} gave away {n} {things_n}, {other} would have as many as {who}.",
    ),
    "multiply": (
        "{who} has {n} times as many {things} as {other}.",
        "For each {thing} that {other} has, {who} has {n}.",
    ),
    "divide": (
        "{other} has {n} times as many {things} as {who}.",
        "For each {thing} that {who} has, {other} has {n}.",
    ),
    "together": (
        "{who} has as many {things} as {other} and {third} together.",
        "Together, {other} and {third} have as many {things} as {who}.",
    ),
}
_QUESTIONS = (
    "How many {things} does {who} have?",
    "What is the number of {things} that {who} has?",
)
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "together": "+"}
_FACTORS = range(2, 6)


@dataclass(frozen=True)
class Fact:
    """What one sentence says: the value of a person, given or from those before.

    `number` is what the sentence names: the value itself where it is given, else the operand.
    """

    value: int
    operation: str | None = None
    number: int = 0
    other: int = -1
    third: int = -1


def generate_word_problems(
    config: WordProblemsConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split, as many of each number of steps; see `generate`.

    Raises:
        DataError: more people wanted than there are names, or knobs that no problem fits.
    """
    people = config.max_steps + 1 + config.distractors
    if people > len(PEOPLE):
        raise DataError(
            f"word_problems: max_steps {config.max_steps} and {config.distractors} distractors "
            f"need {people} people, there are {len(PEOPLE)} names"
        )
    task = Task(
        "word_problems",
        range(config.min_steps, config.max_steps + 1),
        "steps",
        lambda rng, steps: _draw(config, rng, steps),
        "allow more operations or a larger largest_number",
    )
    return generate(config, task, excluded)


def _draw(config: WordProblemsConfig, rng: random.Random, steps: int) -> Draft | None:
    facts = [Fact(first := rng.randint(1, config.largest_number), number=first)]
    while len(facts) <= steps:
        fact = _follow(config, rng, facts, len(facts) - 1)
        if fact is None:
            return None
        facts.append(fact)
    for _ in range(config.distractors):
        facts.append(_distractor(config, rng, facts))
    people = rng.sample(PEOPLE, len(facts))
    thing = rng.choice(THINGS)
    sentences = [_sentence(rng, fact, people[i], people, thing) for i, fact in enumerate(facts)]
    rng.shuffle(sentences)
    ask = rng.choice(_QUESTIONS).format(who=people[steps], things=thing + "s")
    return Draft(
        " ".join([*sentences, ask]),
        lambda: (
            [_equation(fact, facts) for fact in facts[1 : steps + 1]],
            str(facts[steps].value),
        ),
        key=sentences_key([*sentences, ask]),
    )


def _follow(
    config: WordProblemsConfig, rng: random.Random, facts: Sequence[Fact], other: int
) -> Fact | None:
    """A fact computed from that of `other`; None if no operation stays in the range."""
    value, largest = facts[other].value, config.largest_number
    for operation in rng.sample(config.operations, len(config.operations)):
        third = -1
        if operation == "add":
            choices = range(1, largest - value + 1)
        elif operation == "subtract":
            choices = range(1, value)
        elif operation == "multiply":
            choices = [k for k in _FACTORS if value * k <= largest]
        elif operation == "divide":
            choices = [k for k in _FACTORS if value % k == 0]
        else:
            thirds = [i for i, f in enumerate(facts) if i != other and f.value + value <= largest]
            choices = [facts[third := rng.choice(thirds)].value] if thirds else []
        if choices:
            number = rng.choice(choices)
            return Fact(_apply(operation, value, number), operation, number, other, third)
    return None


def _distractor(config: WordProblemsConfig, rng: random.Random, facts: Sequence[Fact]) -> Fact:
    """Someone on whom nobody depends but other distractors."""
    if rng.random() < 0.7:
        fact = _follow(config, rng, facts, rng.randrange(len(facts)))
        if fact is not None:
            return fact
    value = rng.randint(1, config.largest_number)
    return Fact(value, number=value)


def _apply(operation: str, value: int, number: int) -> int:
    match operation:
        case "subtract":
            return value - number
        case "multiply":
            return value * number
        case "divide":
            return value // number
        case _:
            return value + number


def _equation(fact: Fact, facts: Sequence[Fact]) -> str:
    assert fact.operation is not None
    return f"{facts[fact.other].value}{_SIGNS[fact.operation]}{fact.number}={fact.value}"


def _sentence(rng: random.Random, fact: Fact, who: str, people: Sequence[str], thing: str) -> str:
    templates = _GIVEN if fact.operation is None else _RELATIONS[fact.operation]
    return rng.choice(templates).format(
        who=who,
        other=people[fact.other],
        third=people[fact.third],
        n=fact.number,
        thing=thing,
        things=thing + "s",
        things_n=thing if fact.number == 1 else thing + "s",
    )
