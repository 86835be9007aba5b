"""Spend where it helps: blocks by difficulty, and a slow model only where the fast one is unsure.

Both are decided before a test question is seen: `calibrate_blocks` and `calibrate_confidence` take
validation questions that were answered already, the servers need not be there.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rim.config import ConfigError
from rim.serving.client import Client, ServerAnswer

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
        """Ask one question; `blocks` is the first model's budget.

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
    """Probability of the whole text, as the server tells it.

    Raises:
        ConfigError: it does not.
    """
    if answer.logprob is None:
        raise ConfigError(
            "this server tells no log-probabilities (`transformers serve` does not); "
            "llama.cpp and vLLM do"
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
    """The least confidence that costs no more than `loss` (a share, as 0.01) of the accuracy.

    Measured against the best that any confidence gives on these questions, those of asking one
    model only among them.

    Args:
        first: probabilities of the first model's answers to validation questions.
        first_right: whether they are right.
        second_right: whether the second model's are.

    Raises:
        ConfigError: no questions, or not as many of each.
    """
    rows = sorted(zip(first, first_right, second_right, strict=True))
    if not rows:
        raise ConfigError("a confidence is chosen on validation questions, and there are none")
    # Believed from place k on: below it, the second model answers.
    accuracies = [
        sum(second for _, _, second in rows[:k]) + sum(right for _, right, _ in rows[k:])
        for k in range(len(rows) + 1)
    ]
    allowed = max(accuracies) - loss * len(rows) - _ROUNDING
    for k, accuracy in enumerate(accuracies):
        # Equal probabilities are routed alike.
        if accuracy >= allowed and (k == 0 or k == len(rows) or rows[k - 1][0] < rows[k][0]):
            return _between(rows, k)
    raise AssertionError("the best split is one of them")


def _between(rows: Sequence[tuple[float, Any, Any]], k: int) -> float:
    if k == 0:
        return 0.0
    return math.inf if k == len(rows) else (rows[k - 1][0] + rows[k][0]) / 2


def calibrate_blocks(
    levels: Sequence[Hashable], right: Mapping[int, Sequence[bool]], *, loss: float
) -> dict[Hashable, int]:
    """For every level of difficulty the fewest blocks whose accuracy is within `loss` of the best.

    Args:
        levels: the difficulty of each validation question, anything that can be told from the
            question alone.
        right: for every number of blocks, whether the answers are right.

    Raises:
        ConfigError: nothing to choose from.
    """
    if not levels or not right:
        raise ConfigError("blocks are chosen on validation questions, and there are none")
    chosen = {}
    for level in dict.fromkeys(levels):
        at = [i for i, other in enumerate(levels) if other == level]
        shares = {k: sum(marks[i] for i in at) / len(at) for k, marks in right.items()}
        best = max(shares.values())
        chosen[level] = min(k for k, share in shares.items() if share >= best - loss - _ROUNDING)
    return chosen
