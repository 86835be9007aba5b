"""Pairs of questions whose mixture has an answer of its own.

A recipient and a source share their template and their length. The value after step t is taken from
the source, all else from the recipient: the counterfactual answer, which is neither question's own,
so nothing but the mixture gives it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rim.config import ConfigError, GeneratorConfig
from rim.core.tokens import PromptEncoder
from rim.data.examples import DataError, Example
from rim.data.tasks import READERS, Worked

_TRIES = 400  # sources looked at for one recipient


@dataclass(frozen=True)
class Known:
    """A question and what its task knows of it."""

    question: str
    worked: Worked

    def value(self, step: int) -> str:
        return self.worked.values[step - 1]


@dataclass(frozen=True)
class Pair:
    """`step` t, from 1. The controls are sources, too: `same_value` has the source's value after
    step t (and another answer), `same_answer` has its answer and another value, `unrelated` has
    neither, and leads to neither the counterfactual nor the recipient's own answer; `same_answer`
    leads to another counterfactual answer.
    """

    recipient: Known
    source: Known
    step: int
    counterfactual: str
    same_value: Known
    same_answer: Known
    unrelated: Known


def read_questions(task: str, config: GeneratorConfig, examples: Sequence[Example]) -> list[Known]:
    """All questions as the task reads them, each once.

    Raises:
        ConfigError: a task without known intermediate values.
        DataError: a question or an answer that is not the task's under these knobs.
    """
    if task not in READERS:
        raise ConfigError(
            f"task {task!r} does not say what follows from an intermediate value; these do: "
            + ", ".join(READERS)
        )
    known: dict[str, Known] = {}
    for example in examples:
        worked = READERS[task](config, example.question)
        if worked is None or worked.answer != example.answer:
            said = "cannot be read" if worked is None else f"has the answer {worked.answer}"
            raise DataError(
                f"{example.origin}: {example.question!r} {said} as {task} with these knobs; name "
                "the task and the knobs that the data were made with"
            )
        known.setdefault(example.question, Known(example.question, worked))
    return list(known.values())


def closed_set(known: Sequence[Known]) -> tuple[str, ...]:
    """All answers that the questions' tasks know."""
    return tuple(sorted({answer for k in known for answer in k.worked.answers}))


def choose_pairs(
    known: Sequence[Known], encoder: PromptEncoder, count: int, seed: int
) -> list[Pair]:
    """Pairs in a seeded order, as many of each step as can be; every question is a recipient once
    at most.

    Raises:
        DataError: fewer than half of them can be had.
    """
    rng = random.Random(f"pairs {seed}")
    groups: dict[Any, list[Known]] = {}
    for k in known:
        groups.setdefault((k.worked.template, len(encoder.prompt_ids(k.question, 1))), []).append(k)
    recipients = [(k, group) for group in groups.values() for k in group]
    rng.shuffle(recipients)
    pairs: list[Pair] = []
    had = Counter[int]()
    for recipient, group in recipients:
        # The step that has the fewest pairs; where it allows none (a chain's last one), the next.
        for step in sorted(range(1, len(recipient.worked.values) + 1), key=lambda t: (had[t], t)):
            pair = _pair(recipient, step, group, rng)
            if pair is not None:
                pairs.append(pair)
                had[step] += 1
                break
        if len(pairs) == count:
            return pairs
    if 2 * len(pairs) < count:
        raise DataError(
            f"these data allow {len(pairs)} pairs of questions for this protocol, not {count}; "
            "give it more questions of one length, or ask for fewer pairs. (A task of fewer than "
            "four different answers allows none.)"
        )
    return pairs


def _pair(recipient: Known, step: int, group: Sequence[Known], rng: random.Random) -> Pair | None:
    def mixed(source: Known) -> str:
        return recipient.worked.continue_from(step, source.value(step))

    own = recipient.worked.answer

    def find(wanted: Callable[[Known], bool]) -> Known | None:
        looked = rng.sample(group, min(_TRIES, len(group)))
        return next((k for k in looked if k is not recipient and wanted(k)), None)

    source = find(lambda k: len({own, k.worked.answer, mixed(k)}) == 3)
    if source is None:
        return None
    value, answer, counterfactual = source.value(step), source.worked.answer, mixed(source)
    same_value = find(
        lambda k: (
            k is not source
            and k.value(step) == value
            and k.worked.answer not in (answer, counterfactual)
        )
    )
    same_answer = find(
        lambda k: (
            k.worked.answer == answer and k.value(step) != value and mixed(k) != counterfactual
        )
    )
    # With its answer, or what follows from its value, the recipient must be wrong: else blocks that
    # carry everything would seem not to be needed.
    unrelated = find(
        lambda k: (
            k.value(step) != value
            and k.worked.answer not in (own, answer, counterfactual)
            and mixed(k) not in (own, counterfactual)
        )
    )
    # A task of few answers may have no same_value of another answer: then any other will do.
    same_value = same_value or find(lambda k: k is not source and k.value(step) == value)
    if same_value is None or same_answer is None or unrelated is None:
        return None
    return Pair(recipient, source, step, counterfactual, same_value, same_answer, unrelated)
