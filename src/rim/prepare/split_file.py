"""`rim data split-steps`: a file of chains of thought to a file of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rim.config import ConfigError
from rim.data.columns import PLAIN, Reading
from rim.data.examples import DataError, Example
from rim.data.sources import file_source, read_source, write_file
from rim.prepare.splitting import MARKER, By, split_solution
from rim.results import write_jsonl

#: Published formats whose answer is a chain of thought with the answer at its end.
_IN_ANSWER = ("gsm8k", "gsm8k_sentences")


def split_file(
    path: Path,
    out: Path,
    *,
    file_format: str | None = None,
    reading: Reading = PLAIN,
    by: By = "auto",
    limit: int | None = None,
) -> dict[str, Any]:
    """Split every chain of thought of a file; rows in their order, the same file every time.

    The chain is the steps column, or stands in the answer before "####" as in GSM8K. A row is kept
    if the chain has a step and its answer is the given one. The others go to `failed_file(out)`,
    each with its reason.

    Returns:
        Counts of `rows`, `kept` and `failed`; `reasons`; `steps_median`, `steps_longest` and where
        that is.

    Raises:
        DataError: no such file, or one that cannot be read.
        ConfigError: the output is the input.
    """
    refuse_input(path, out)
    source = file_source(path, file_format, reading)
    if source.format in _IN_ANSWER or source.records in _IN_ANSWER:
        columns = reading.columns.model_copy(update={"steps": None})
        format_ = "hub" if source.format == "hub" else "jsonl"
        changes = {"format": format_, "records": None, "columns": columns}
        source = source.model_copy(update=changes)
    kept: list[Example] = []
    failed: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()

    def fail(kind: str, reason: str, **row: Any) -> None:
        reasons[kind] += 1
        failed.append(row | {"reason": reason})

    problems: list[str] = []
    rows = 0
    for example in read_source(source, problems.append):
        _take_problems(problems, fail)
        if rows == limit:
            break
        rows += 1
        chain, gold = _chain(example)
        split = split_solution(chain, by)
        row = {"question": example.question, "solution": chain, "answer": gold}
        where = {"origin": example.origin, **row}
        if not chain:
            fail("no chain of thought", "there is no chain of thought", **where)
        elif not split.answer:
            fail("no answer found", "no answer was found in the chain of thought", **where)
        elif not split.answers(gold):
            reason = f"the chain of thought ends with {split.answer!r}, the answer is {gold!r}"
            fail("another answer", reason, **where)
        elif not split.steps:
            fail("no steps", "there is no step beside the answer", **where)
        else:
            kept.append(Example(example.question, split.steps, gold, example.origin))
    _take_problems(problems, fail)
    if not rows and not failed:
        raise DataError(f"{path} holds no rows")
    write_file(out, kept)
    write_failed(out, failed)
    return {
        "rows": rows + reasons["malformed row"],
        "kept": len(kept),
        "failed": len(failed),
        "reasons": dict(reasons),
        **steps_summary(kept),
        "out": str(out),
        "failed_file": str(failed_file(out)) if failed else None,
    }


def _take_problems(problems: list[str], fail: Any) -> None:
    for problem in problems:
        fail("malformed row", problem)
    problems.clear()


def _chain(example: Example) -> tuple[str, str]:
    """Chain of thought and answer."""
    if example.steps:
        return "\n".join(example.steps), example.answer
    chain, marker, gold = example.answer.rpartition(MARKER)
    return (chain.strip(), gold.strip()) if marker else ("", example.answer)


def refuse_input(path: Path, out: Path) -> None:
    """Neither of the files that are written may be the one that is read: rows would be lost.

    Raises:
        ConfigError: one of them is.
    """
    for target in (out, failed_file(out)):
        if target.exists() and path.exists() and target.samefile(path):
            raise ConfigError(f"{target} is the input, and would be written; give another --out")


def failed_file(out: Path) -> Path:
    """Where rows go that are not kept: `my.jsonl` has `my-failed.jsonl` beside it."""
    return out.with_name(f"{out.stem}-failed.jsonl")


def write_failed(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows that are not kept; no file where there are none."""
    file = failed_file(out)
    if rows:
        write_jsonl(file, rows)
    else:
        file.unlink(missing_ok=True)


def steps_summary(examples: Sequence[Example]) -> dict[str, Any]:
    """How many steps there are: what the number of blocks is chosen by."""
    counts = [len(example.steps) for example in examples]
    if not counts:
        return {"steps_median": None, "steps_longest": None, "longest_at": None}
    longest = max(examples, key=lambda example: len(example.steps))
    return {
        "steps_median": median(counts),
        "steps_longest": max(counts),
        "longest_at": longest.origin,
    }
