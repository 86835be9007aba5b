"""Scores: final-block, per-block and any-block accuracy, pass@k, intervals, every wrong answer.

What counts as right is `rim.infer.answers`; this counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import data_hash
from rim.evaluate.selectors import BlockAnswer
from rim.evaluate.statistics import share
from rim.infer.answers import grade, parse_answer
from rim.infer.decode import After, Generated, generate
from rim.infer.reasoner import Reasoner
from rim.infer.sampling import Sampling
from rim.results import environment, read_json, write_json, write_jsonl, wrong_answers_file


@dataclass(frozen=True)
class Evaluation:
    """`summary` is what goes to JSON and tables; `wrong` holds one record per wrongly answered
    question. `right` says for every question, in order, whether the answer was right: a string of 0
    and 1 for "final" and, with all blocks, for "any_block". `readouts`: for every question its
    answer after each block that was read (the first sample's), for selectors.
    """

    summary: dict[str, Any]
    wrong: list[dict[str, Any]]
    right: dict[str, str]
    readouts: list[list[BlockAnswer]]

    @property
    def accuracy(self) -> float:
        return self.summary["final"]["accuracy"]


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right (Chen et al. 2021, arXiv
    2107.03374).
    """
    if num_samples - num_right < k:
        return 1.0
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def score(
    reasoner: Reasoner,
    examples: Sequence[Example],
    *,
    blocks: int | Sequence[int] | None = None,
    all_blocks: bool = True,
    sampling: Sampling | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Answer every question and compare.

    Args:
        blocks: K at test time, or one number per example; as in training if left out.
        all_blocks: read out after every block, which per-block and any-block accuracy need.
        sampling: with several samples, accuracies are those of the first and pass@k is added.
    """
    if not examples:
        raise ValueError("there are no examples to evaluate")
    blocks, encoder = reasoner.trained_blocks if blocks is None else blocks, reasoner.encoder
    after: After = "all" if all_blocks and blocks != 0 else "final"
    generated = generate(
        reasoner.model,
        encoder,
        [example.question for example in examples],
        blocks=blocks,
        after=after,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        batch_size=batch_size,
        progress=progress,
    )
    graded = [
        _grade(texts, example, encoder) for texts, example in zip(generated, examples, strict=True)
    ]
    summary: dict[str, Any] = {
        "questions": len(graded),
        "blocks": blocks if isinstance(blocks, int) else None,
        "final": share([g.final_right for g in graded]),
        "tokens_generated_mean": fmean(g.final_tokens for g in graded),
        "unfinished": sum(not g.finished for g in graded),
        "by_steps": _by_steps(graded, examples),
    }
    right = {"final": flags([g.final_right for g in graded])}
    if after == "all":
        any_right = [any(g.right_by_block.values()) for g in graded]
        summary |= {"any_block": share(any_right), "per_block": _per_block(graded)}
        right["any_block"] = flags(any_right)
    if sampling and sampling.num_samples > 1:
        count = sampling.num_samples
        summary["pass_at_k"] = {
            str(k): fmean(pass_at_k(count, g.final_samples_right, k) for g in graded)
            for k in sorted({1, *(2**i for i in range(1, count.bit_length())), count})
        }
    wrong = [
        {
            "question": example.question,
            "gold": example.answer,
            "predicted": g.predicted,
            "text": g.text,
            "right_after_blocks": [block for block, right in g.right_by_block.items() if right],
            "finished": g.finished,
            "origin": example.origin,
        }
        for g, example in zip(graded, examples, strict=True)
        if not g.final_right
    ]
    return Evaluation(summary, wrong, right, [g.readouts for g in graded])


def flags(values: Sequence[bool]) -> str:
    """Marks as a string of 0 and 1."""
    return "".join("1" if value else "0" for value in values)


@dataclass(frozen=True)
class _Graded:
    right_by_block: dict[int, bool]  # first sample after each block
    readouts: list[BlockAnswer]
    final_right: bool
    final_samples_right: int
    predicted: str
    text: str
    finished: bool
    final_tokens: int


def _grade(texts: Sequence[Generated], example: Example, encoder: PromptEncoder) -> _Graded:
    def right(generated: Generated) -> bool:
        return grade(generated.text, example, encoder, finished=generated.finished)

    right_by_block: dict[int, bool] = {}
    readouts: list[BlockAnswer] = []
    for generated in texts:
        if generated.after_block not in right_by_block:
            right_by_block[generated.after_block] = right(generated)
            readouts.append(
                BlockAnswer(
                    generated.after_block,
                    parse_answer(generated.text, encoder),
                    math.exp(generated.logprob),
                    generated.finished,
                    right_by_block[generated.after_block],
                )
            )
    final = [g for g in texts if g.after_block == texts[-1].after_block]
    rights = [right(g) for g in final]
    return _Graded(
        right_by_block,
        readouts,
        rights[0],
        sum(rights),
        parse_answer(final[0].text, encoder),
        final[0].text,
        final[0].finished,
        len(final[0].token_ids) + final[0].finished,
    )


def _by_steps(graded: Sequence[_Graded], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Final-block accuracy by the number of steps of the gold solution, where steps are known."""
    marks: dict[int, list[bool]] = {}
    for g, example in zip(graded, examples, strict=True):
        if example.steps:
            marks.setdefault(len(example.steps), []).append(g.final_right)
    return [{"steps": count} | share(own) for count, own in sorted(marks.items())]


def _per_block(graded: Sequence[_Graded]) -> list[dict[str, Any]]:
    """Accuracy after each block, of the questions that have it."""
    last = max(max(g.right_by_block) for g in graded)
    return [
        share([g.right_by_block[block] for g in graded if block in g.right_by_block])
        | {"block": block}
        for block in range(1, last + 1)
    ]


def write_evaluation(
    evaluation: Evaluation,
    path: Path,
    run: Path,
    data_name: str,
    examples: Sequence[Example],
    settings: dict[str, Any],
    selection: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Write the result with everything needed to reproduce it, and the wrong answers beside it.

    Args:
        selection: how selectors did (`rim.evaluate.selector_scores.compare_selectors`).

    Returns:
        The record as written to `path`, and the JSONL of wrong answers.
    """
    trained = run / "environment.json"
    record = {
        "run": run.resolve().name,
        "data": {"name": data_name, "examples": len(examples), "hash": data_hash(examples)},
        "settings": settings,
        "summary": evaluation.summary,
        **({"selection": selection} if selection else {}),
        "environment": environment(),
        "training": read_json(trained) if trained.exists() else None,
    }
    write_json(path, record)
    wrong_file = wrong_answers_file(path)
    write_jsonl(wrong_file, evaluation.wrong)
    return record, wrong_file
