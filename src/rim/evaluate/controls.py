"""Do the blocks compute? A trained model asked again, its blocks removed, altered or multiplied.

Every control answers the same questions as the model itself and returns one right-or-wrong mark for
each, so that a paired test can tell a fall from chance. What is done to the cache, and what the
live tokens behind it can still do on their own, stands in `rim.evaluate.cache_interventions`; that
these are the controls that latent reasoning owes its readers is our reading of the literature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from rim.config import ConfigError
from rim.data.examples import DataError, Example
from rim.evaluate.accuracy import flags
from rim.evaluate.cache_interventions import hide, shuffle, transplant, zero
from rim.infer.answers import grade, same_answer
from rim.infer.decode import Generated, generate, most_blocks
from rim.infer.prefill import Between
from rim.infer.reasoner import Reasoner

Group = Literal["blocks removed", "block states", "question", "number of blocks"]
SWAP = "blocks of another question"


@dataclass(frozen=True)
class Outcome:
    """One control on one set of questions.

    `right` has one mark a question, in their order. `follows` (swap only): the share of answers
    that are the other question's, whose blocks were put in; `follows_unaltered`: the same share
    with the question's own blocks; `follows_by_chance`: the share that is a third question's, as
    answers that are merely wrong can be. None where there are two answers only: then every wrong
    one is the other question's.
    """

    name: str
    group: Group
    right: tuple[bool, ...]
    follows: float | None = None
    follows_unaltered: float | None = None
    follows_by_chance: float | None = None

    def as_record(self) -> dict[str, Any]:
        """For JSON; the marks as a string of 0 and 1."""
        record = {"name": self.name, "group": self.group, "right": flags(self.right)}
        if self.follows is None:
            return record
        names = ("follows", "follows_unaltered", "follows_by_chance")
        return record | {name: getattr(self, name) for name in names}


def run_controls(
    reasoner: Reasoner,
    examples: Sequence[Example],
    *,
    blocks: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    progress: Callable[[int], None] | None = None,
    refused: dict[str, str] | None = None,
) -> list[Outcome]:
    """Every control on a model with memory blocks; `progress` hears of each question answered
    (`num_answers` in all).

    Args:
        blocks: how many the model is asked with before anything is changed; as in training if left
            out.
        refused: gets the controls that this kind of model has none of, with the reason.

    Raises:
        ConfigError: the model has no blocks; without `refused` also a control that it has none of.
        DataError: all answers are the same, so that no question's blocks are another's.
    """
    blocks = reasoner.encoder.format.blocks_to("control", blocks)
    questions = [example.question for example in examples]
    partners = choose_partners(examples)
    # A prompt without blocks is that of a chain of thought to a model that was once trained on one:
    # it gets as many tokens as an answer takes, and no more to write steps with.
    answer_tokens = max(len(reasoner.encoder.answer_ids(e.answer)) for e in examples)

    def answer(count: int, **options: Any) -> list[list[Generated]]:
        limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        return generate(
            reasoner.model,
            reasoner.encoder,
            questions,
            blocks=count,
            progress=progress,
            **(limits | options),
        )

    def marks(
        answers: Sequence[Generated], golds: Sequence[Example] = examples
    ) -> tuple[bool, ...]:
        return tuple(
            grade(g.text, gold, reasoner.encoder, finished=g.finished)
            for g, gold in zip(answers, golds, strict=True)
        )

    def share_of(others: Mapping[str, Example], answers: Sequence[Generated]) -> float:
        return fmean(marks(answers, [others[question] for question in questions]))

    # One prefill of 2K blocks, read out after each, is every prompt of 1..2K blocks.
    room = most_blocks(reasoner.model, reasoner.encoder, questions, answer_tokens)
    most = min(2 * blocks, room)
    sweep = answer(most, after="all") if most else []
    unaltered = sweep if most >= blocks else answer(blocks, after="all")
    without = answer(0, max_new_tokens=answer_tokens)
    outcomes = [Outcome("no blocks", "blocks removed", marks([row[0] for row in without]))]
    swapped = transplant({question: other.question for question, other in partners.items()})
    interventions: list[tuple[str, Group, Between]] = [
        ("block states zeroed", "block states", zero()),
        ("blocks shuffled", "block states", shuffle()),
        (SWAP, "block states", swapped),
        ("question hidden from the read-out", "question", hide()),
    ]
    for name, group, between in interventions:
        if name == "blocks shuffled" and blocks == 1:
            continue
        try:
            answers = [row[0] for row in answer(blocks, between=between)]
        except ConfigError as error:
            if refused is None:
                raise
            refused[name] = str(error)
            continue
        outcome = Outcome(name, group, marks(answers))
        if name == SWAP:
            thirds = choose_thirds(examples, partners)
            outcome = replace(
                outcome,
                follows=share_of(partners, answers),
                follows_unaltered=share_of(partners, [row[blocks - 1] for row in unaltered]),
                follows_by_chance=None if thirds is None else share_of(thirds, answers),
            )
        outcomes.append(outcome)
    return outcomes + [
        Outcome(f"K = {k + 1}", "number of blocks", marks([row[k] for row in sweep]))
        for k in range(most)
    ]


def what_stays_alive(reasoner: Reasoner) -> str:
    """A sentence to read beside the verdicts: what runs behind an altered block, and sees the
    question.
    """
    encoder = reasoner.encoder
    if encoder.answer_has_opening(encoder.prompt("?", reasoner.trained_blocks)):
        return (
            "Not altered by any of these: the answer's own tokens, which see the question "
            "unless it is hidden."
        )
    return (
        "Not altered by any of these: the last token of the last block, which says the answer's "
        "first token, sees the question and has all layers. It can do alone what a direct answer "
        "can: an accuracy that does not fall says that this token needs no blocks, not that they "
        "are empty."
    )


def num_answers(blocks: int, num_questions: int) -> int:
    """How many questions `run_controls` answers (for a progress bar)."""
    return (5 + (blocks > 1)) * num_questions


def choose_partners(examples: Sequence[Example]) -> dict[str, Example]:
    """For every question the next one (in order, round about) whose answer is another.

    Raises:
        DataError: there is none.
    """
    partners = {}
    for i, example in enumerate(examples):
        other = _next_unlike(examples, i, [example])
        if other is None:
            raise DataError("all answers are the same: blocks cannot be swapped for others")
        partners[example.question] = other
    return partners


def choose_thirds(
    examples: Sequence[Example], partners: Mapping[str, Example]
) -> dict[str, Example] | None:
    """For every question the next one whose answer is neither its own nor its partner's; None where
    there are two answers only.
    """
    thirds = {}
    for i, example in enumerate(examples):
        other = _next_unlike(examples, i, [example, partners[example.question]])
        if other is None:
            return None
        thirds[example.question] = other
    return thirds


def _next_unlike(examples: Sequence[Example], i: int, unlike: Sequence[Example]) -> Example | None:
    """The first question behind the i-th, round about, with another answer than all of these."""
    for other in (*examples[i + 1 :], *examples[:i]):
        if other.question != examples[i].question and not any(
            same_answer(other.answer, each.answer) for each in unlike
        ):
            return other
    return None
