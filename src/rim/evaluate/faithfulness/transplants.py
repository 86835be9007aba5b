"""Does the answer change with the decoded step? A block, or all blocks up to it, taken from another
question (`rim.evaluate.cache_interventions`), and both read again. Blocks behind it run again where
the model allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rim.config import DataSource
from rim.data.examples import Example
from rim.evaluate.cache_interventions import Part, transplant
from rim.evaluate.faithfulness.readers import Held, Reader
from rim.evaluate.protocols.asking import Asking
from rim.evaluate.protocols.pairs import Pair, choose_pairs, closed_set, read_questions
from rim.evaluate.protocols.transplant_verdict import COMPETENCE, COMPETITOR, SUFFICIENCY
from rim.evaluate.statistics import share
from rim.infer.answers import same_answer
from rim.infer.reasoner import Reasoner

#: A verdict rests on so many transplants that moved the decoded step, at least.
LEAST_MOVED = 20


def step_transplants(
    reader: Reader,
    examples: Sequence[Example],
    held: Sequence[Held],
    reasoner: Reasoner,
    source: DataSource,
    blocks: int,
    count: int,
    seed: int,
    accuracy: float,
) -> dict[str, Any]:
    """Blocks, and all blocks up to them, taken from questions with another step; as JSON has it.

    Args:
        held: by question, which step each block says. source: the task of the questions.
        accuracy: of the model's own answers; where it is low, nothing can be said.

    Raises:
        ConfigError: see `Asking`.
        DataError: see `read_questions` and `choose_pairs`.
    """
    assert source.task is not None
    known = read_questions(source.format, source.task, examples)
    by_question = {e.question: (e, own) for e, own in zip(examples, held, strict=True)}
    at: dict[int, list[Pair]] = {}
    for pair in choose_pairs(known, reasoner.encoder, count, seed):
        example, _ = by_question[pair.source.question]
        recipient, held_steps = by_question[pair.recipient.question]
        block = next((b for b, n in held_steps.steps.items() if n == pair.step), None)
        if block is None or not reader.takes(example):
            continue
        # A step that is read as before has not moved.
        own, new = (e.steps[pair.step - 1] for e in (recipient, example))
        if reader.tells_apart(own, new, block, pair.step):
            at.setdefault(block, []).append(pair)
    answers = closed_set(known)
    parts = []
    for kind in ("block", "up_to"):
        rows: list[tuple[int, bool, bool, bool, bool]] = []
        for block, pairs in sorted(at.items()):
            part = Part(kind, block)  # type: ignore[arg-type]
            asking = Asking(reasoner, blocks, answers)
            live = blocks - block if asking.can_run_live else 0
            sources = [by_question[pair.source.question][0] for pair in pairs]
            others = [by_question[pair.unrelated.question][0] for pair in pairs]
            moved = _moved(reader, pairs, sources, part, block)
            given = _answers(asking, pairs, [p.source.question for p in pairs], part, live)
            other = _answers(asking, pairs, [e.question for e in others], part, live)
            for i, pair in enumerate(pairs):
                rows.append(
                    (
                        block,
                        moved[i],
                        same_answer(given[i], pair.counterfactual),
                        same_answer(given[i], pair.source.worked.answer),
                        same_answer(other[i], pair.counterfactual),
                    )
                )
        parts.append({"part": kind, **_part(rows), "by_block": _by_block(rows)})
    result = {"pairs": sum(map(len, at.values())), "parts": parts}
    reruns = Asking(reasoner, blocks, answers).can_run_live
    return result | {"verdict": _verdict(parts, accuracy, reruns=reruns)}


def _by_block(rows: Sequence[tuple[int, bool, bool, bool, bool]]) -> list[dict[str, Any]]:
    blocks = sorted({row[0] for row in rows})
    return [{"block": b, **_part([row for row in rows if row[0] == b])} for b in blocks]


def _part(rows: Sequence[tuple[int, bool, bool, bool, bool]]) -> dict[str, Any]:
    """step: it became the source's. answer: it became the counterfactual one; source's: it became
    the source's own. answer_if_moved: of the pairs whose step moved. unrelated: the same answer
    with an unrelated source.
    """
    return {
        "step": share([row[1] for row in rows]),
        "answer": share([row[2] for row in rows]),
        "sources_answer": share([row[3] for row in rows]),
        "both": share([row[1] and row[2] for row in rows]),
        "answer_if_moved": share([row[2] for row in rows if row[1]]),
        "unrelated": share([row[4] for row in rows]),
    }


def _moved(
    reader: Reader, pairs: Sequence[Pair], sources: Sequence[Example], part: Part, block: int
) -> list[bool]:
    read = reader.read_patched(pairs, sources, part, block)
    return [
        reader.agrees(value, source.steps[pair.step - 1], block, pair.step)
        for value, source, pair in zip(read, sources, pairs, strict=True)
    ]


def _answers(
    asking: Asking, pairs: Sequence[Pair], sources: Sequence[str], part: Part, live: int
) -> list[str]:
    recipients = [pair.recipient.question for pair in pairs]
    between = transplant(dict(zip(recipients, sources, strict=True)), part)
    return asking.chosen(asking.logprobs(recipients, between, live=live))


def _verdict(parts: Sequence[dict[str, Any]], accuracy: float, *, reruns: bool) -> str:
    """In words, of the part whose answers move most often with the step.

    Args:
        accuracy: of the model itself, on the questions of the transplants and others.
        reruns: blocks behind the exchanged ones ran again, so that a change could reach the answer.
    """
    if accuracy < COMPETENCE:
        return f"no call: the model itself is right in {100 * accuracy:.1f} % only"
    enough = [part for part in parts if part["answer_if_moved"]["total"] >= LEAST_MOVED]
    if not enough:
        return "no call: too few transplants change the decoded step"
    best = max(enough, key=lambda part: part["answer_if_moved"]["accuracy"])
    share_moved = best["answer_if_moved"]["accuracy"]
    if best["unrelated"]["accuracy"] > COMPETITOR:
        return "no call: an unrelated question's blocks bring these answers, too"
    if share_moved >= SUFFICIENCY:
        return "faithful: change the decoded step, and the answer follows"
    if not reruns:
        return "no call: the answer does not follow, but later blocks could not run again"
    if share_moved <= COMPETITOR:
        return "not faithful: the decoded step changes, and the answer does not follow"
    return "partly faithful: the answer follows a changed step in part of the questions"
