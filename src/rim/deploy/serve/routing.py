"""Spend where it helps: blocks by difficulty, and a slow model only where the fast one is unsure.

Both are decided before a test question is seen: `calibrate_blocks` and `calibrate_confidence` take
validation questions that were answered already, the servers need not be there.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rim.config import ConfigError
from rim.deploy.serve.client import Client, ServerAnswer

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Routed:
    """The answer that counts, which model gave it, and what the first one said.

    `answer_ms` is the whole wait: of both models where both were asked.
    """

    answer: ServerAnswer
    by: Literal["first", "second"]
    first: ServerAnswer
    answer_ms: float


class Router:
    """Asks a fast model (memory blocks), and a slow one (chain of thought) where that is unsure.

    Args:
        confidence: least probability, 0 to 1, of the first model's answer that is believed. 0
            always believes it, anything above 1 never does.
    """

    def __init__(self, first: Client, second: Client, *, confidence: float):
        self.first = first
        self.second = second
        self.confidence = confidence

    def ask(self, question: str, *, blocks: int | None = None, max_new_tokens: int = 256) -> Routed:
        """Ask one question; `blocks` is the first model's number.

        Raises:
            ConfigError: a server that refuses, or one that tells no probabilities.
        """
        first = self.first.ask(
            question, blocks=blocks, max_new_tokens=max_new_tokens, logprobs=True
        )
        if probability(first) >= self.confidence:
            return Routed(first, "first", first, first.answer_ms)
        second = self.second.ask(question, max_new_tokens=max_new_tokens)
        return Routed(second, "second", first, first.answer_ms + second.answer_ms)


def probability(answer: ServerAnswer) -> float:
    """Probability of the whole answer, 0 to 1, as the server tells it.

    Raises:
        ConfigError: it does not.
    """
    if answer.logprob is None:
        raise ConfigError(
            "this server tells no log-probabilities of all tokens (`transformers serve` tells "
            "none); llama.cpp and vLLM do"
        )
    # An answer that was cut off is not one to believe.
    return math.exp(answer.logprob) if answer.finished else 0.0


def calibrate_confidence(
    first: Sequence[float],
    first_right: Sequence[bool],
    second_right: Sequence[bool],
    *,
    loss: float,
) -> float:
    """The least confidence whose accuracy is at most `loss` (0.01: one point) below the best.

    The best is the one that any confidence gives on these questions, those of asking one model
    only among them: 0 never asks the second, infinity always.

    Args:
        first: probabilities of the first model's answers to validation questions.
        first_right: whether they are right.
        second_right: whether the second model's are.

    Raises:
        ConfigError: no questions, or not as many of each.
    """
    if not len(first) == len(first_right) == len(second_right) > 0:
        raise ConfigError(
            "a confidence is chosen on validation questions that both models answered; there are "
            f"{len(first)} probabilities, and marks of {len(first_right)} and {len(second_right)}"
        )
    rows = sorted(zip(first, first_right, second_right, strict=True))
    # The second model answers the first k, believed are those from there on.
    counts = [
        sum(second for _, _, second in rows[:k]) + sum(right for _, right, _ in rows[k:])
        for k in range(len(rows) + 1)
    ]
    # Equal probabilities are routed alike.
    possible = [k for k in range(1, len(rows)) if rows[k - 1][0] < rows[k][0]]
    possible = [0, *possible, len(rows)]
    best = max(counts[k] for k in possible)
    k = next(k for k in possible if counts[k] >= best - loss * len(rows) - _ROUNDING)
    if k == 0:
        return 0.0
    return math.inf if k == len(rows) else rows[k][0]


def calibrate_blocks(
    levels: Sequence[Hashable],
    right: Mapping[int, Sequence[bool]],
    *,
    loss: float,
    least: int = 20,
) -> dict[Hashable, int]:
    """For every level of difficulty the fewest blocks whose accuracy is at most `loss` (0.01: one
    point) below the best.

    Args:
        levels: the difficulty of each validation question, anything that can be told from the
            question alone.
        right: for every number of blocks, whether the answers are right.
        least: questions that a level must have, lest chance chooses.

    Raises:
        ConfigError: nothing to choose from, or too little.
    """
    if not levels or not right:
        raise ConfigError("blocks are chosen on validation questions, and there are none")
    for k, marks in right.items():
        if len(marks) != len(levels):
            raise ConfigError(f"{len(levels)} questions, but {len(marks)} marks for {k} blocks")
    chosen = {}
    for level in dict.fromkeys(levels):
        at = [i for i, other in enumerate(levels) if other == level]
        if len(at) < least:
            raise ConfigError(
                f"level {level!r} has {len(at)} validation questions, at least {least} are needed "
                "to choose by; use more questions or fewer levels"
            )
        shares = {k: sum(marks[i] for i in at) / len(at) for k, marks in right.items()}
        best = max(shares.values())
        chosen[level] = min(k for k, share in shares.items() if share >= best - loss - _ROUNDING)
    return chosen
