"""From a `DataSource` setting to a list of examples, whatever its format."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rim.config import DataSource, RecordFormat
from rim.config.recipe_yaml import apply_override, settings_from_dict
from rim.data.columns import PLAIN, Reading
from rim.data.examples import DataError, Example
from rim.data.guessing import known_format
from rim.data.readers import FILE_FORMATS, parse_json, parsed, raw_records, read_file
from rim.data.streamed import data_hash
from rim.data.tables import column_names
from rim.data.tasks import GENERATORS
from rim.results import write_jsonl

#: Where a sentence ends and another begins.
_SENTENCES = re.compile(r"[.!?]\s+\w")


def load_examples(source: DataSource) -> list[Example]:
    """All examples of a source (at most `limit`), but for the questions of the files in `exclude`.

    Raises:
        DataError: a missing or malformed file, or a source without examples.
    """
    excluded = excluded_questions(source)
    kept = (e for e in read_source(source, excluded=excluded) if e.same_question not in excluded)
    if source.part != "all":
        kept = iter(parted(list(kept), source.path or source.format)[source.part])
    examples = list(itertools.islice(kept, source.limit))
    if not examples:
        left = f" but for those of {', '.join(source.exclude)}" if excluded else ""
        raise DataError(f"{source.path or source.format} holds no examples{left}")
    if all("####" in example.answer for example in examples):
        raise DataError(
            f"{source.path or source.format}: every answer is a solution with '####' before its "
            "answer, as in GSM8K; `rim data split-steps` makes questions, steps and answers of them"
        )
    return examples


def excluded_questions(source: DataSource) -> set[str]:
    """The questions of the files in `exclude`, which are read as the source is."""
    found: set[str] = set()
    for path in source.exclude:
        # Whatever its answers are: GSM8K's, read by columns, are whole solutions.
        own = {e.same_question for e in read_source(_excluded_file(source, Path(path)))}
        if not own:
            raise DataError(f"{path}, to be excluded, holds no examples")
        found |= own
    return found


def _excluded_file(source: DataSource, path: Path) -> DataSource:
    """By the same columns, but for the steps, which it need not have."""
    file = file_source(path, source.records if is_hub(path) else None, Reading(source.columns))
    known = file.records if file.format == "hub" else file.format
    if known is not None and FILE_FORMATS[known].parse is not None:
        return file
    return file.model_copy(update={"columns": file.columns.model_copy(update={"steps": None})})


def read_source(
    source: DataSource,
    on_problem: Callable[[str], None] | None = None,
    excluded: Collection[str] = (),
) -> Iterator[Example]:
    """Examples of a source one by one, whatever its `limit` and `exclude`.

    Args:
        on_problem: told of each malformed record, which is then left out; without it the first one
            raises.
        excluded: questions in place of which a generated task draws others.

    Raises:
        DataError: a missing or malformed file.
    """
    if source.task is not None:  # draws other questions in place of excluded ones
        return iter(GENERATORS[source.format](source.task, excluded))
    reading = Reading(source.columns, source.step_separator)
    if source.format == "hub":
        return _read_hub(source, reading, on_problem)
    path = Path(source.path or "")
    name = known_format(path, source.format, bool(source.columns.model_fields_set))
    return read_file(path, FILE_FORMATS[name], on_problem, reading)


def _read_hub(
    source: DataSource, reading: Reading, on_problem: Callable[[str], None] | None
) -> Iterator[Example]:
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
        return parsed(rows, FILE_FORMATS[source.records].example, on_problem)
    reading = reading.among(table.column_names, f"data set {source.path!r}")
    return parsed(rows, reading.example, on_problem)


#: A tenth of a source's questions, but no more than this, are its validation part.
MOST_VALIDATION = 200
#: A fifth, but no more than this, are its test part.
MOST_TEST = 1000


def parted(examples: Sequence[Example], what: str) -> dict[str, list[Example]]:
    """Train, validation and test part of one set. A question is on one side only, however often and
    in whatever spelling it is there; the same questions give the same parts in any order.

    Raises:
        DataError: fewer than 10 different questions.
    """
    questions = {
        e.same_question: hashlib.sha256(e.same_question.encode()).digest() for e in examples
    }
    if len(questions) < 10:
        raise DataError(f"{what} has {len(questions)} different questions: too few to part")
    order = sorted(questions, key=questions.__getitem__)
    num_test = min(len(order) // 5, MOST_TEST)
    num_validation = min(len(order) // 10, MOST_VALIDATION)
    side = dict.fromkeys(order, "train")
    side |= dict.fromkeys(order[:num_test], "test")
    side |= dict.fromkeys(order[num_test : num_test + num_validation], "validation")
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        parts[side[example.same_question]].append(example)
    return parts


# --- files named on the command line --------------------------------------------------------------


def open_file(
    path: Path,
    file_format: str | None = None,
    limit: int | None = None,
    reading: Reading = PLAIN,
) -> list[Example]:
    """Examples of a file; the format is guessed from its content where it is not given.

    Args:
        path: a file, or `hub:OWNER/NAME`, see `file_source`.
        reading: the columns of a JSONL, a table or a hub set.

    Raises:
        DataError: a missing or malformed file, or an unknown format.
    """
    source = file_source(path, file_format, reading)
    return load_examples(source.model_copy(update={"limit": limit}))


def file_source(path: Path, file_format: str | None = None, reading: Reading = PLAIN) -> DataSource:
    """The source of what a person names on the command line: a file, or a set of the hub as
    `hub:OWNER/NAME`, `hub:OWNER/NAME:SPLIT` or `hub:OWNER/NAME:SUBSET:SPLIT`.

    Raises:
        DataError: a missing file, or an unknown format.
    """
    options: dict[str, Any] = {"columns": reading.columns, "step_separator": reading.step_separator}
    if not is_hub(path):
        name = known_format(path, file_format, bool(reading.columns.model_fields_set))
        return DataSource(format=name, path=str(path), **options)
    name, *more = str(path).removeprefix(HUB).split(":")
    if not name or len(more) > 2 or not all(more):
        raise DataError(
            f"a set of the hub is hub:OWNER/NAME, hub:OWNER/NAME:SPLIT or "
            f"hub:OWNER/NAME:SUBSET:SPLIT, got {str(path)!r}"
        )
    if more:
        options["split"] = more[-1]
    if len(more) == 2:
        options["subset"] = more[0]
    if file_format in get_args(RecordFormat):
        options["records"] = file_format
    elif file_format is not None:
        raise DataError(
            f"--format of a set of the hub is one of {', '.join(get_args(RecordFormat))}, whose "
            "records its rows are; for others leave it out and name its columns"
        )
    return DataSource(format="hub", path=name, **options)


#: What stands before the name of a data set of the hub where a file could be named.
HUB = "hub:"


def is_hub(path: Path | str) -> bool:
    return str(path).startswith(HUB)


def source_name(source: DataSource) -> str:
    """A file's path or a hub set's name, as `file_source` takes it."""
    if source.format != "hub":
        return str(source.path)
    return HUB + ":".join(filter(None, (source.path, source.subset, source.split)))


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
    records = ({"question": e.question, "steps": e.steps, "answer": e.answer} for e in examples)
    write_jsonl(path, records)


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
    """What `check_file` found; `without_steps` are the origins of records that have none.

    `in_one_step` says that most solutions seem to be prose in one piece.
    """

    records: int
    problems: list[str]
    without_steps: list[str]
    in_one_step: bool = False


def solutions_in_one_step(examples: Iterable[Example]) -> bool:
    """Whether most examples that have steps have one only, which is several sentences."""
    given = [example.steps for example in examples if example.steps]
    prose = sum(len(steps) == 1 and bool(_SENTENCES.search(steps[0])) for steps in given)
    return 2 * prose > len(given)


def unread_columns(path: Path, file_format: str | None, reading: Reading = PLAIN) -> list[str]:
    """Columns of a table, or fields of a JSONL's first record, that an example has nothing of;
    none where a format of its own is read.
    """
    source = file_source(path, file_format, reading)
    if source.format not in ("jsonl", "csv", "parquet"):
        return []
    holds = FILE_FORMATS[source.format].holds
    if holds == "csv" or holds == "parquet":
        names = column_names(path, holds)
        reading = reading.among(names, str(path))
    else:
        raw, origin = next(raw_records(path, FILE_FORMATS[source.format]), ("{}", str(path)))
        record = parse_json(raw, origin)
        names = list(record) if isinstance(record, dict) else []
    columns = reading.columns
    return [n for n in names if n not in (columns.question, columns.steps, columns.answer)]


def check_file(path: Path, file_format: str | None, reading: Reading = PLAIN) -> FileCheck:
    """Every problem of a file, not just the first: malformed records, repeated questions.

    A record without steps is no problem: it can be evaluated on, and methods that need no steps
    train on it.
    """
    problems: list[str] = []
    without_steps: list[str] = []
    examples: list[Example] = []
    seen: dict[str, str] = {}
    records = repeated = 0
    for example in read_source(file_source(path, file_format, reading), problems.append):
        records += 1
        examples.append(example)
        if not example.steps:
            without_steps.append(example.origin)
        first = seen.setdefault(example.same_question, example.origin)
        if first != example.origin:
            problems.append(f"{example.origin}: the question repeats that of {first}")
            repeated += 1
    records += len(problems) - repeated
    return FileCheck(records, problems, without_steps, solutions_in_one_step(examples))
