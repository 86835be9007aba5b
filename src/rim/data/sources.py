"""From a `DataSource` setting to a list of examples, whatever its format."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import DataConfig, DataSource
from rim.config.recipe_yaml import apply_override, settings_from_dict
from rim.data.examples import DataError, Example
from rim.data.readers import (
    FILE_FORMATS,
    is_multiplication,
    make_example,
    parse_json,
    raw_records,
    read_file,
    read_text,
    unknown_format,
)
from rim.data.tasks import GENERATORS
from rim.results import write_text


def load_examples(source: DataSource) -> list[Example]:
    """All examples of a source (at most `limit`), but for the questions of the files in `exclude`.

    Raises:
        DataError: a missing or malformed file, or a source without examples.
    """
    excluded = {e.same_question for path in source.exclude for e in open_file(Path(path))}
    kept = (e for e in _iterate(source, excluded) if e.same_question not in excluded)
    examples = list(itertools.islice(kept, source.limit))
    if not examples:
        left = f" but for those of {', '.join(source.exclude)}" if excluded else ""
        raise DataError(f"{source.path or source.format} holds no examples{left}")
    return examples


def _iterate(source: DataSource, excluded: Collection[str]) -> Iterator[Example]:
    if source.task is not None:  # draws other questions in place of excluded ones
        return iter(GENERATORS[source.format](source.task, excluded))
    if source.format == "hub":
        return _read_hub(source)
    return read_file(Path(source.path or ""), FILE_FORMATS[source.format])


def _read_hub(source: DataSource) -> Iterator[Example]:
    """A data set of the Hugging Face hub (or a loader name such as "json" with `data_files`)."""
    import datasets  # slow to import, and only hub users need it
    from datasets.exceptions import DatasetsError

    assert source.path is not None
    try:
        table = datasets.load_dataset(
            source.path, source.subset, split=source.split, data_files=source.data_files
        )
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"data set {source.path!r} could not be loaded: {error}") from None
    rows: Iterator[tuple[Any, str]] = (
        (dict(row), f"{source.path}, row {number}") for number, row in enumerate(table, 1)
    )
    if source.records is not None:
        return (FILE_FORMATS[source.records].example(row, origin) for row, origin in rows)
    columns = source.columns
    wanted = [c for c in (columns.question, columns.steps, columns.answer) if c]
    missing = [c for c in wanted if c not in table.column_names]
    if missing:
        raise DataError(
            f"data set {source.path!r} has no column {missing[0]!r}; it has {table.column_names}"
        )
    return (_read_row(source, row, origin) for row, origin in rows)


def _read_row(source: DataSource, row: Any, origin: str) -> Example:
    columns = source.columns
    steps = row[columns.steps] if columns.steps else []
    if isinstance(steps, str):
        steps = [part.strip() for part in steps.split(source.step_separator) if part.strip()]
    return make_example(row[columns.question], steps, row[columns.answer], origin)


def load_training_data(config: DataConfig, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation examples; without a validation source, some training examples are
    held out.

    Raises:
        DataError: a validation question that is also a training question, or nothing left to train
            on.
    """
    train = _training_part(config.train, config)
    if config.validation is None:
        if config.holdout >= len(train):
            raise DataError(
                f"data.holdout {config.holdout} leaves nothing of {len(train)} training examples; "
                f"set a smaller one (data.holdout={max(1, len(train) // 5)}) or data.validation"
            )
        return hold_out(train, config.holdout, seed)
    validation = _training_part(config.validation, config)
    known = {example.same_question for example in train}
    for example in validation:
        if example.same_question in known:
            raise DataError(
                f"{example.origin}: this validation question is also a training question"
            )
    return train, validation


def _training_part(source: DataSource, config: DataConfig) -> list[Example]:
    return [e for e in load_examples(source) if e.steps or not config.drop_without_steps]


def hold_out(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Set about `count` examples apart by question: a repeated question stays on one side."""
    first = {e.same_question: e.question for e in reversed(examples)}
    keys = sorted(first, key=first.__getitem__)
    random.Random(seed).shuffle(keys)
    held = set(keys[:count])
    train, validation = [], []
    for example in examples:
        (validation if example.same_question in held else train).append(example)
    return train, validation


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 of the examples' content, for results files: the same data gives the same hash
    anywhere.
    """
    digest = hashlib.sha256()
    for e in examples:
        digest.update(json.dumps([e.question, list(e.steps), e.answer]).encode() + b"\n")
    return digest.hexdigest()[:16]


# --- files named on the command line --------------------------------------------------------------


def open_file(
    path: Path, file_format: str | None = None, limit: int | None = None
) -> list[Example]:
    """Examples of a file; the format is guessed from its content where it is not given.

    Raises:
        DataError: a missing or malformed file, or an unknown format.
    """
    return load_examples(
        DataSource(format=_known_format(path, file_format), path=str(path), limit=limit)
    )


def task_source(
    task: str, knobs: dict[str, Any], overrides: Sequence[str] = (), exclude: Sequence[str] = ()
) -> DataSource:
    """The source of a generated task, from its knobs and from `name=value` texts.

    Raises:
        DataError: an unknown task.
        ConfigError: an unknown knob or a value out of range.
    """
    if task not in GENERATORS:
        raise DataError(f"unknown task {task!r}, known are {', '.join(GENERATORS)}")
    knobs = dict(knobs)
    for override in overrides:
        apply_override(knobs, override)
    raw = {"format": task, task: knobs, "exclude": list(exclude)}
    return settings_from_dict(DataSource, raw, "generate")


def write_file(path: Path, examples: Sequence[Example]) -> None:
    """Write a JSONL that `open_file` reads back."""
    records = [{"question": e.question, "steps": e.steps, "answer": e.answer} for e in examples]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(path, "".join(lines))


def _known_format(path: Path, file_format: str | None) -> Any:
    if file_format is None:
        return guess_format(path)
    if file_format not in FILE_FORMATS:
        nearest = difflib.get_close_matches(file_format, FILE_FORMATS, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(
            f"unknown format {file_format!r}, known are {', '.join(FILE_FORMATS)}{hint}"
        )
    return file_format


def guess_format(path: Path) -> str:
    """The format of a file by the fields of its first record (never by its name).

    Raises:
        DataError: no known format looks like that.
    """
    first = next((line.strip() for line in read_text(path).split("\n") if line.strip()), "")
    if not first:
        raise DataError(f"{path} is empty")
    if first.startswith("["):
        fields = _fields(next(raw_records(path, FILE_FORMATS["svamp"]), ({}, ""))[0])
        if "Body" in fields:
            return "svamp"
        if fields.issuperset(FILE_FORMATS["prosqa"].fields):
            return "prosqa"
        raise DataError(
            f"{path}: a JSON array is read as SVAMP ('Body', 'Question', 'Answer') or ProsQA "
            "('question', 'steps', 'answer') only; write one object a line"
        )
    if not first.startswith("{"):
        if "||" in first:
            return "multiplication_file" if is_multiplication(first) else "gsm8k_aug"
        raise unknown_format(path)
    record = parse_json(first, f"{path}, line 1")
    fields = _fields(record)
    if fields.issuperset(FILE_FORMATS["gsm_hard"].fields):
        return "gsm_hard"
    if (
        {"question", "answer"} <= fields
        and "steps" not in fields
        and "####" in str(record["answer"])
    ):
        return "gsm8k"
    if fields & {"question", "steps", "answer"}:
        return "jsonl"  # its parser says what else is missing
    raise DataError(
        f"{path}, line 1: no known format has the fields {sorted(fields)}; "
        "a JSONL needs 'question', 'steps' and 'answer'"
    )


def _fields(record: Any) -> set[str]:
    return set(record) if isinstance(record, dict) else set()


def describe(examples: Sequence[Example]) -> dict[str, Any]:
    """Counts that a person wants to see before training."""
    steps = [len(example.steps) for example in examples]
    return {
        "examples": len(examples),
        "distinct_questions": len({example.same_question for example in examples}),
        "question_characters_mean": sum(len(e.question) for e in examples) / len(examples),
        "question_characters_max": max(len(e.question) for e in examples),
        "steps_mean": sum(steps) / len(steps),
        "steps_histogram": {count: steps.count(count) for count in sorted(set(steps))},
        "without_steps": steps.count(0),
        "data_hash": data_hash(examples),
    }


@dataclass(frozen=True)
class FileCheck:
    """What `check_file` found; `without_steps` are the origins of records that have none."""

    records: int
    problems: list[str]
    without_steps: list[str]


def check_file(path: Path, file_format: str | None) -> FileCheck:
    """Every problem of a file, not just the first: malformed records, repeated questions.

    A record without steps is no problem: it can be evaluated on, and methods that need no steps
    train on it.
    """
    problems: list[str] = []
    without_steps: list[str] = []
    seen: dict[str, str] = {}
    chosen = FILE_FORMATS[_known_format(path, file_format)]
    for example in read_file(path, chosen, problems.append):
        if not example.steps:
            without_steps.append(example.origin)
        first = seen.setdefault(example.same_question, example.origin)
        if first != example.origin:
            problems.append(f"{example.origin}: the question repeats that of {first}")
    return FileCheck(sum(1 for _ in raw_records(path, chosen)), problems, without_steps)
