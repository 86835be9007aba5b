"""A file of questions to a file of answers, line by line, which a killed job continues exactly.

An answer is written when all before it are, so that the output is at any moment a true beginning of
what a job never stopped would write, but for a torn last line. Continuing cuts that line off and
checks every other one against the input.

Questions go to the engine in chunks whose place is fixed by their number. A continued job asks the
chunk that was cut again as a whole: its batches, and so its rounding, are those of a job that was
never stopped, and the file is the same byte for byte.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rim.config import ConfigError
from rim.config.missing import no_such
from rim.data.examples import DataError
from rim.data.readers import question_of
from rim.locks import alone
from rim.results import file_sha256, read_json, write_json

#: Lines that are read before the engine is there: a wrong name is in all of them.
_PEEKED = 20

Chunk = list[str]
Row = dict[str, Any]


class AnswerEngine(Protocol):
    """Answers questions: chunks in, their rows out, in order.

    A row has `answer` and what else the engine says, or `error`.
    """

    chunk_size: int
    #: Whether an earlier part of the job has an answer; `answer_file` sets it.
    answered: bool

    def describe(self) -> dict[str, Any]:
        """Return all that the answers depend on; a continued job must have the same."""
        ...

    def answer(self, chunks: Iterable[Chunk]) -> Iterator[list[Row]]: ...


@dataclass(frozen=True)
class Shard:
    """Every `count`-th line, from line `index` on; both count from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8`.

        Raises:
            ConfigError: anything else.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count:
            raise ConfigError(f"--shard takes I/N with I from 1 to N, as in 1/4, got {text[:40]!r}")
        return cls(index, count)

    def has(self, line: int) -> bool:
        return (line - self.index) % self.count == 0


@dataclass(frozen=True)
class _Question:
    """A line of the input; `text` is None where `error` says what is wrong with it."""

    line: int
    text: str | None
    id: Any
    error: str | None

    def row(self, answered: Row) -> bytes:
        named = {"line": self.line} | ({} if self.id is None else {"id": self.id})
        row = json.dumps(named | answered, ensure_ascii=False)
        try:
            return row.encode() + b"\n"
        except UnicodeEncodeError:  # half a character, which only JSON's escapes can write
            return json.dumps(named | answered).encode() + b"\n"


def answer_file(
    questions: Path,
    out: Path,
    engine: AnswerEngine,
    *,
    shard: Shard = Shard(),
    resume: bool = False,
    field: str = "question",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Answer every question of a JSONL file, in order, into another one.

    A line of the input is an object with a `question` and perhaps an `id`; blank lines are passed
    over. A line of the output has the input's `line` number, its `id`, and the answer; or an
    `error`, for a line that holds no question or a question that the model has no room for.

    Args:
        resume: continue `out`, or begin it.
        field: what the input calls its `question`.
        progress: called with the number of lines done since the last call, those found in `out`
            included.

    Returns:
        Counts of `lines`, `errors`, and `earlier` (in `out` already), `seconds` and lines a second.

    Raises:
        ConfigError: `out` exists and `resume` was not asked for, or was made from another input or
            with other settings, or another job writes it.
        DataError: no such input, or no question in any of its first lines.
    """
    check_job(questions, out, resume=resume, field=field)
    out.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with out.open("a+b") as file, alone(file, f"another job is writing {out}"), _tidied(file, out):
        _same_job(out, file, _job(questions, engine, shard, field))
        done, errors = _continue(file, out, _read(questions, shard, field))
        engine.answered = done > errors
        if progress:
            progress(done)
        lines = done
        for rows in _answered(engine, _read(questions, shard, field), done):
            file.write(b"".join(question.row(row) for question, row in rows))
            file.flush()
            lines += len(rows)
            errors += sum("error" in row for _, row in rows)
            if progress:
                progress(len(rows))
    seconds = time.perf_counter() - begin
    return {
        "out": str(out),
        "lines": lines,
        "errors": errors,
        "earlier": done,
        "seconds": seconds,
        "lines_per_second": (lines - done) / seconds,
    }


def check_job(questions: Path, out: Path, *, resume: bool, field: str = "question") -> None:
    """What can be known of a job before its engine is there; see `answer_file`."""
    if not questions.is_file():
        raise DataError(no_such("file", questions))
    if out.exists() and not resume:
        raise ConfigError(f"{out} exists; continue it with --resume, or give another --out")
    if out.exists() and out.samefile(questions):
        raise ConfigError(f"{out} is the input")
    first = list(itertools.islice(_read(questions, Shard(), field), _PEEKED))
    if first and all(question.error for question in first):
        error = str(first[0].error)
        named = "; a field of another name: --column question=NAME" if "is missing" in error else ""
        raise DataError(f"no question in the first {len(first)} lines: {error}{named}")


@contextlib.contextmanager
def _tidied(file: BinaryIO, out: Path) -> Generator[None]:
    """A job that ended before its first answer leaves nothing that is in the next one's way."""
    try:
        yield
    except BaseException:
        if not os.fstat(file.fileno()).st_size:
            with contextlib.suppress(OSError):  # the error that ended the job is what counts
                out.unlink(missing_ok=True)
                _job_file(out).unlink(missing_ok=True)
        raise


def count_lines(questions: Path, shard: Shard) -> int:
    """Lines that a job will write: what a progress bar needs."""
    with questions.open("rb") as file:
        return sum(bool(raw.strip()) and shard.has(n) for n, raw in enumerate(file, 1))


def _read(path: Path, shard: Shard, field: str) -> Iterator[_Question]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.strip() and shard.has(number):
                yield _question(raw, number, f"{path.name}, line {number}", field)


def _question(raw: bytes, number: int, origin: str, field: str) -> _Question:
    try:
        text, given = question_of(raw, origin, field)
    except DataError as error:
        return _Question(number, None, None, str(error))
    return _Question(number, text, given, None)


def _answered(
    engine: AnswerEngine, questions: Iterator[_Question], done: int
) -> Iterator[list[tuple[_Question, Row]]]:
    """Questions with their rows, chunk by chunk, without the first `done`."""
    begun, asked = done // engine.chunk_size, []
    questions = itertools.islice(questions, begun * engine.chunk_size, None)

    def chunks() -> Iterator[Chunk]:
        while chunk := list(itertools.islice(questions, engine.chunk_size)):
            asked.append(chunk)
            yield [question.text for question in chunk if question.text is not None]

    skip = done - begun * engine.chunk_size
    for rows in engine.answer(chunks()):
        answered = iter(rows)
        pairs = [
            (question, next(answered) if question.error is None else {"error": question.error})
            for question in asked.pop(0)
        ]
        if pairs[skip:]:
            yield pairs[skip:]
        skip = 0


# --- continuing ----------------------------------------------------------------------------------


def _job(questions: Path, engine: AnswerEngine, shard: Shard, field: str) -> dict[str, Any]:
    """Return all that a continued job must share with the one that began."""
    return {
        "input_sha256": file_sha256(questions)[:16],
        "shard": f"{shard.index}/{shard.count}",
        "field": field,
        **engine.describe(),
    }


def _job_file(out: Path) -> Path:
    return out.with_name(out.name + ".job.json")


def _same_job(out: Path, file: BinaryIO, job: dict[str, Any]) -> None:
    """Write the job beside its output, or compare it with the one that is there."""
    path = _job_file(out)
    if not os.fstat(file.fileno()).st_size:
        write_json(path, job)
        return
    try:
        first = read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"{out} was not made by rim answer: there is no {path}") from None
    except ValueError:
        raise ConfigError(f"{path} is broken") from None
    job = json.loads(json.dumps(job))
    for name in sorted(first.keys() | job.keys()):
        if first.get(name) != job.get(name):
            raise ConfigError(
                f"{out} was begun with another {name} ({first.get(name)!r}, now "
                f"{job.get(name)!r}); answers of both in one file would be mixed"
            )


def _continue(file: BinaryIO, out: Path, questions: Iterator[_Question]) -> tuple[int, int]:
    """Lines that are there, and the errors among them; a torn last line is cut off.

    Raises:
        ConfigError: a line that is not the answer to its question.
    """
    file.seek(0)
    done = errors = place = 0
    for raw in file:
        if not raw.endswith(b"\n"):
            break
        try:
            row = json.loads(raw)
            line, failed = row["line"], "error" in row
        except (ValueError, TypeError, KeyError):
            raise ConfigError(f"{out}, line {done + 1}: not a line of rim answer") from None
        question = next(questions, None)
        if question is None or question.line != line:
            raise ConfigError(
                f"{out}, line {done + 1}: answers line {line} of the input, where "
                f"{question.line if question else 'nothing'} is next; was the input changed?"
            )
        done, errors, place = done + 1, errors + failed, place + len(raw)
    file.truncate(place)
    return done, errors
