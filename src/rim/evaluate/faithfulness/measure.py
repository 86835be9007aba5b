"""Is what a block is read to say what the model computes with? `rim explain RUN --data DATA`.

For every reader that a run has (`rim.evaluate.faithfulness.readers`) four questions are measured:

- *step accuracy*: how often is the step read off a block the right one, beside the commonest value;
- *errors*: where a decoded step is wrong, is the answer? And does it follow from the wrong step?
- *transplants*: a block, or all blocks up to it, is taken from another question. Do the decoded
  step and the answer change together: the step to the source's, the answer to the one that the task
  computes from the source's step and the recipient's own remaining operations (the counterfactual)?
- *cost*: is the readable model's answer worse than that of the model that is not?

Wrong answers beside wrong steps prove little alone: hard questions have both. A transplant is an
intervention; the verdict rests on it alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import DataSource
from rim.data.examples import DataError, Example
from rim.data.tasks import READERS
from rim.evaluate.accuracy import Evaluation, score
from rim.evaluate.faithfulness.lines import lines_of
from rim.evaluate.faithfulness.readers import (
    Held,
    Reader,
    ReadoutReader,
    held_by_blocks,
    readers_of,
    step_stage,
)
from rim.evaluate.faithfulness.transplants import step_transplants
from rim.evaluate.statistics import fisher_p, mcnemar, share
from rim.infer.answers import same_answer
from rim.infer.reasoner import Reasoner
from rim.report.text import p_text


@dataclass(frozen=True)
class _Asked:
    """One model's answers to all questions, and the questions themselves."""

    examples: Sequence[Example]
    held: Sequence[Held]
    answers: list[str]
    right: list[bool]


def faithfulness(
    reasoner: Reasoner,
    run: Path,
    examples: Sequence[Example],
    source: DataSource | None,
    *,
    blocks: int | None = None,
    pairs: int = 240,
    seed: int = 0,
    against: Reasoner | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 64,
) -> dict[str, Any]:
    """All readers of a run, measured.

    Args:
        source: the task of the data, which knows what follows from another step; None: no
            transplants.
        pairs: of questions, for the transplants.
        against: another model, whose answers are the price to compare with.

    Raises:
        ConfigError: a model without blocks, or a run that nothing reads.
        DataError: no question has steps.
    """
    blocks = reasoner.encoder.format.blocks_to("explain", blocks)
    chosen = [example for example in examples if example.steps]
    if not chosen:
        raise DataError("no question of these data has steps, so no decoded step can be checked")
    settings = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    readers = readers_of(run, reasoner, blocks, **settings)
    trained = step_stage(run)
    stage = None if trained is None else trained.stage
    held = [held_by_blocks(example, stage, reasoner.encoder, blocks) for example in chosen]
    own = any(reader.says_answer for reader in readers)
    finished = _score(reasoner, chosen, [h.answer_after for h in held] if own else blocks, settings)
    asked = _Asked(
        chosen,
        held,
        [row[-1].answer for row in finished.readouts],
        [mark == "1" for mark in finished.right["final"]],
    )
    measured = []
    for reader in readers:
        result = _reader(reader, asked, source)
        if source is not None:
            result["transplant"] = step_transplants(
                reader,
                chosen,
                held,
                reasoner,
                source,
                blocks,
                pairs,
                seed,
                finished.summary["final"]["accuracy"],
            )
        lines = lines_of(result)
        if own and _varies(held):  # all readers' answers are those of the one model
            lines.append(f"{reader.kind}: answers {_GOLD_BLOCKS}")
        measured.append(result | {"lines": lines})
    return {
        "blocks": blocks,
        "questions": len(chosen),
        "accuracy": finished.summary["final"],
        "readers": measured,
        "costs": _costs(readers, asked, finished, against, settings),
    }


#: Said where a stage has no surplus blocks, so that each question's answer has a block of its own.
_GOLD_BLOCKS = "after as many blocks as the right solution takes, which who asks does not know"


def _varies(held: Sequence[Held]) -> bool:
    return len({own.answer_after for own in held}) > 1


def _score(
    reasoner: Reasoner, examples: Sequence[Example], blocks: Any, settings: dict[str, Any]
) -> Evaluation:
    return score(reasoner, examples, blocks=blocks, all_blocks=False, **settings)


# --- steps and errors -----------------------------------------------------------------------------


def _reader(reader: Reader, asked: _Asked, source: DataSource | None) -> dict[str, Any]:
    rows = [i for i, example in enumerate(asked.examples) if reader.takes(example)]
    read = reader.read([asked.examples[i] for i in rows], [asked.held[i].steps for i in rows])
    marks: dict[tuple[int, int], dict[int, bool]] = {}  # (block, step) -> question -> right
    for i, by_block in zip(rows, read, strict=True):
        example = asked.examples[i]
        for block, value in by_block.items():
            number = asked.held[i].steps[block]
            right = reader.agrees(value, example.steps[number - 1], block, number)
            marks.setdefault((block, number), {})[i] = right
    blocks = []
    for (block, number), own in sorted(marks.items()):
        values = [reader.label(asked.examples[i].steps[number - 1], block, number) for i in own]
        blocks.append(
            {
                "block": block,
                "step": number,
                "accuracy": share(list(own.values())),
                "commonest": Counter(values).most_common(1)[0][1] / len(values),
                **_contingency(list(own.values()), [asked.right[i] for i in own]),
            }
        )
    whole = {i: [own[i] for own in marks.values() if i in own] for i in rows}
    having = [i for i in rows if whole[i]]
    together = _contingency([all(whole[i]) for i in having], [asked.right[i] for i in having])
    record: dict[str, Any] = {
        "kind": reader.kind,
        "means": reader.means,
        "questions": len(having),
        "blocks": blocks,
        "all_steps": share([all(whole[i]) for i in having]),
        **together,
    }
    if source is not None:
        read_of = dict(zip(rows, read, strict=True))
        whole_values = {at: own for at, own in marks.items() if reader.tells_values(*at)}
        if whole_values:
            record["wrong_steps"] = _wrong_steps(asked, whole_values, read_of, source)
    return record


def _contingency(step_right: list[bool], answer_right: list[bool]) -> dict[str, Any]:
    """Answers where the step is right and where it is wrong, with Fisher's exact p."""
    groups = {
        name: [a for s, a in zip(step_right, answer_right, strict=True) if s == wanted]
        for name, wanted in (("answers_if_right", True), ("answers_if_wrong", False))
    }
    first, second = ((sum(g), len(g)) for g in groups.values())
    p = fisher_p(first, second) if first[1] and second[1] else None
    return {name: share(group) for name, group in groups.items()} | {"p": p}


def _wrong_steps(
    asked: _Asked,
    marks: dict[tuple[int, int], dict[int, bool]],
    read: dict[int, dict[int, str]],
    source: DataSource,
) -> dict[str, int]:
    """The last wrong step of each question that has one: is the answer right all the same, or what
    follows from the wrong step, or something else?
    """
    assert source.task is not None
    counts = {"total": 0, "right": 0, "follows": 0, "else": 0}
    for i, example in enumerate(asked.examples):
        wrong = [(b, t) for (b, t), own in marks.items() if own.get(i) is False]
        worked = READERS[source.format](source.task, example.question)
        if not wrong or worked is None:
            continue
        block, number = max(wrong)
        value = read[i][block]
        if value not in worked.answers:  # nothing that the task can go on from
            continue
        counts["total"] += 1
        follows = worked.continue_from(number, value)
        if asked.right[i]:
            counts["right"] += 1
        elif same_answer(asked.answers[i], follows):
            counts["follows"] += 1
        else:
            counts["else"] += 1
    return counts


# --- cost -----------------------------------------------------------------------------------------


def _costs(
    readers: Sequence[Reader],
    asked: _Asked,
    finished: Evaluation,
    against: Reasoner | None,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Answers of the model that can be read, beside those of the one that is not."""
    found = []
    marks = finished.right["final"]
    for reader in readers:
        if isinstance(reader, ReadoutReader) and not reader.says_answer:
            after = [held.answer_after for held in asked.held]
            said = _score(reader.reasoner, asked.examples, after, settings)
            note = f" ({_GOLD_BLOCKS})" if _varies(asked.held) else ""
            found.append(
                _cost(
                    f"the model whose steps can be read{note}",
                    said.right["final"],
                    "the finished model",
                    marks,
                )
            )
    if against is not None:
        other = _score(against, asked.examples, against.trained_blocks, settings)
        own = any(reader.says_answer for reader in readers)
        note = f" ({_GOLD_BLOCKS})" if own and _varies(asked.held) else ""
        found.append(_cost(f"this model{note}", marks, "the other one", other.right["final"]))
    return found


def _cost(name: str, readable: str, other_name: str, other: str) -> dict[str, Any]:
    test = mcnemar(readable, other)
    shares = [share([mark == "1" for mark in marks]) for marks in (readable, other)]
    values = [100 * s["accuracy"] for s in shares]
    line = (
        f"cost: {name} answers {values[0]:.1f} % right, {other_name} {values[1]:.1f} % "
        f"({len(readable)} questions, McNemar {p_text(test.p)})"
    )
    return {"readable": shares[0], "other": shares[1], "p": test.p, "line": line}
