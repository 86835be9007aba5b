"""`rim data distill`: a teacher writes the steps of questions whose answers are known.

What the teacher says is kept in a folder beside the output, by the same job that `rim answer` is:
so it continues after any stop. From that the output is made, without asking again: of every
question the shortest chain of thought (or the first) that ends with the right answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rim.config import ConfigError
from rim.data.examples import Example
from rim.data.sources import write_file
from rim.deploy.answer.job import AnswerEngine, Row, answer_file
from rim.prepare.split_file import failed_file, steps_summary, write_failed
from rim.prepare.splitting import By, split_solution
from rim.prepare.teachers import TeacherSettings
from rim.results import write_text

Keep = Literal["shortest", "first"]
#: Characters a token, as a rule of thumb for English.
_CHARACTERS = 4


@dataclass(frozen=True)
class Work:
    """What is to be done: `asked` are the questions without steps, each once, in order; the others
    of `examples` have steps already, and keep them unless `redo`.
    """

    examples: tuple[Example, ...]
    asked: tuple[Example, ...]
    redo: bool = False

    @classmethod
    def of(cls, examples: Sequence[Example], redo: bool = False) -> Work:
        """
        Args:
            redo: ask for questions with steps too.

        Raises:
            ConfigError: every question has steps.
        """
        first: dict[str, Example] = {}
        for example in examples:
            if redo or not example.steps:
                first.setdefault(example.question, example)
        if not first:
            raise ConfigError(
                "every question has steps already; --redo has them written again, "
                "rim data split-steps parts those that are prose"
            )
        return cls(tuple(examples), tuple(first.values()), redo)

    @property
    def golds(self) -> dict[str, str]:
        return {example.question: example.answer for example in self.asked}


@dataclass(frozen=True)
class TeacherCost:
    """The most that a job will ask. `price` is in the currency of the prices a million tokens."""

    questions: int
    requests: int
    input_tokens: int
    output_tokens: int
    price: float | None

    def lines(self, earlier: int) -> list[str]:
        told = [
            f"{self.questions} questions to ask"
            + (f" ({earlier} more were asked earlier)" if earlier else "")
            + f": at most {self.requests:,} requests, those repeated after failures not counted",
            f"about {self.input_tokens:,} tokens in (at {_CHARACTERS} characters a token), "
            f"at most {self.output_tokens:,} out",
        ]
        if self.price is not None:
            told.append(f"at most about {self.price:,.2f} at the price given")
        return told


def estimate(
    work: Work, asking: TeacherSettings, out: Path, prices: tuple[float, float] | None = None
) -> tuple[TeacherCost, int]:
    """The cost of what is not done yet, and the number of questions that are done.

    Args:
        prices: of a million tokens in and out.
    """
    earlier = _done(samples_file(out))
    asked = work.asked[earlier:]
    requests = len(asked) * asking.samples
    characters = sum(len(asking.text(example.question)) for example in asked)
    tokens_in = asking.samples * characters // _CHARACTERS
    tokens_out = requests * asking.max_new_tokens
    price = None
    if prices is not None:
        price = (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
    return TeacherCost(len(asked), requests, tokens_in, tokens_out, price), earlier


def _done(file: Path) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as lines:
        return sum(line.endswith(b"\n") for line in lines)


def work_folder(out: Path) -> Path:
    """Where what the teacher said is kept: `my.jsonl` has `my.distill/` beside it."""
    return out.with_name(f"{out.stem}.distill")


def samples_file(out: Path) -> Path:
    return work_folder(out) / "samples.jsonl"


def distill_file(
    work: Work,
    out: Path,
    teacher: AnswerEngine,
    *,
    keep: Keep = "shortest",
    by: By = "auto",
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Have the steps written, and write `out`; questions without success go to `failed_file(out)`.

    Args:
        keep: of several right chains of thought the one with the fewest steps (then characters), or
            the first.
        by: what parts the steps, see `split_solution`.
        resume: continue what was begun, or begin it.

    Returns:
        Counts of `rows`, `kept`, `failed`, of questions `asked`, of `samples` and how many of them
        were `right`; tokens; `reasons`; steps as in `split_file`.

    Raises:
        ConfigError: there is something that this job did not begin; the teacher is out of reach.
    """
    folder = work_folder(out)
    questions = folder / "questions.jsonl"
    if samples_file(out).exists() and not resume:
        raise ConfigError(
            f"{folder} has what a teacher said earlier; continue it with --resume, or delete it"
        )
    # With their answers, which decide when no more is asked: a job with others is another one.
    rows = ({"question": e.question, "answer": e.answer} for e in work.asked)
    write_text(questions, "".join(f"{json.dumps(row)}\n" for row in rows))
    answer_file(questions, samples_file(out), teacher, resume=resume, progress=progress)
    return _write(work, out, keep, by)


def _write(work: Work, out: Path, keep: Keep, by: By) -> dict[str, Any]:
    rows = samples_file(out).read_text(encoding="utf-8").split("\n")
    told = [json.loads(row) for row in rows if row]
    said: dict[str, Row] = {}
    # A question that stands there with two answers is asked once, and judged by each of them.
    found: dict[tuple[str, str], Example | tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for example, row in zip(work.asked, told, strict=True):
        said[example.question] = row
        samples = row.get("samples", [])
        right, found[example.question, example.answer] = _chosen(example, row, keep, by)
        counts["samples"] += len(samples)
        counts["tokens_out"] += sum(sample["tokens"] or 0 for sample in samples)
        counts["right"] += right
    kept, failed, reasons = [], [], Counter[str]()
    for example in work.examples:
        if example.steps and not work.redo:
            kept.append(example)
            continue
        key = (example.question, example.answer)
        if key not in found:
            found[key] = _chosen(example, said[example.question], keep, by)[1]
        taken = found[key]
        if isinstance(taken, Example):
            kept.append(Example(example.question, taken.steps, example.answer, example.origin))
        else:
            kind, reason = taken
            row = {"question": example.question, "answer": example.answer, "reason": reason}
            failed.append({"origin": example.origin, **row})
            reasons[kind] += 1
    write_file(out, kept)
    write_failed(out, failed)
    return {
        "rows": len(work.examples),
        "asked": len(work.asked),
        "kept": len(kept),
        "failed": len(failed),
        "samples": counts["samples"],
        "right": counts["right"],
        "tokens_out": counts["tokens_out"],
        "reasons": dict(reasons),
        **steps_summary(kept),
        "out": str(out),
        "failed_file": str(failed_file(out)) if failed else None,
        "said": str(samples_file(out)),
    }


def _chosen(
    example: Example, row: Row, keep: Keep, by: By
) -> tuple[int, Example | tuple[str, str]]:
    """How many samples are right, and the one to keep; or, in short and at length, why there is
    none.
    """
    right, why = _right_ones(example, row.get("samples", []), by)
    if right:
        shortest = min(right, key=lambda e: (len(e.steps), sum(map(len, e.steps))))
        return len(right), shortest if keep == "shortest" else right[0]
    if "error" in row:
        return 0, ("the teacher did not answer", row["error"])
    return 0, (why.partition(":")[0], why)


def _right_ones(
    example: Example, samples: Sequence[dict[str, Any]], by: By
) -> tuple[list[Example], str]:
    """Return the chains of thought that reach the answer, and why the others do not."""
    right, answers, cut, bare = [], [], 0, 0
    for sample in samples:
        if not sample["finished"]:
            cut += 1
            continue
        split = split_solution(sample["text"], by)
        if not split.answers(example.answer):
            answers.append(split.answer or "nothing")
        elif not split.steps:
            bare += 1
        else:
            right.append(Example(example.question, split.steps, example.answer, example.origin))
    if answers:
        common = Counter(answers).most_common(3)
        said = ", ".join(f"{answer[:40]!r} {count} times" for answer, count in common)
        return right, f"no sample reached the answer: {said}"
    if cut:
        return right, "every sample was cut off: --max-new-tokens is too small"
    return right, "no steps beside the answer" if bare else "the teacher said nothing"
