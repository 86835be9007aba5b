"""Files in, examples out: JSONL, tables, and published formats (GSM8K and its kin, SVAMP, ProsQA,
products).

A format says how a file is split into records, which fields a record has, and how it becomes an
`Example`; a `DataError` names file, line (or row) and field (or column).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rim.data.columns import PLAIN, Reading, check_fields, make_example
from rim.data.examples import DataError, Example, check_text
from rim.data.files import read_lines, read_text
from rim.data.tables import Misfit, column_names, table_rows

_ANNOTATION = re.compile(r"<<(.+?)>>")
_PRODUCT = re.compile(r"\d( \d)* \* \d( \d)*")  # digits apart, as in "5 6 3 2 * 7 4 3 4"


@dataclass(frozen=True)
class FileFormat:
    """`holds`: lines of text, a JSON object a line, one JSON array of objects, or a table's rows;
    `fields`: what an object must have; `parse`: from a line or an object, and its origin, to an
    example. Records of a format without `parse` are read by the names of their columns.
    """

    holds: Literal["text", "objects", "array", "csv", "parquet"]
    fields: tuple[str, ...] = ()
    parse: Callable[[Any, str], Example] | None = None

    def example(self, record: Any, origin: str, reading: Reading = PLAIN) -> Example:
        """
        Raises:
            DataError: the record is malformed.
        """
        if isinstance(record, Misfit):
            raise record.problem(origin)
        if self.parse is None:
            return reading.example(record, origin)
        if self.holds != "text":
            record = check_fields(record, origin, self.fields)
        return self.parse(record, origin)


def read_file(
    path: Path,
    file_format: FileFormat,
    on_problem: Callable[[str], None] | None = None,
    reading: Reading = PLAIN,
) -> Iterator[Example]:
    """Examples of a file in order.

    Args:
        on_problem: told of each malformed record, which is then left out; without it the first one
            raises.
        reading: the columns of formats that are read by their names.

    Raises:
        DataError: a malformed record (unless `on_problem` takes it), or a file that cannot be read.
    """
    if file_format.holds == "csv" or file_format.holds == "parquet":
        reading = reading.among(column_names(path, file_format.holds), str(path))

    def parse(raw: Any, origin: str) -> Example:
        record = parse_json(raw, origin) if file_format.holds == "objects" else raw
        return file_format.example(record, origin, reading)

    yield from parsed(raw_records(path, file_format), parse, on_problem)


def parsed(
    records: Iterable[tuple[Any, str]],
    parse: Callable[[Any, str], Example],
    on_problem: Callable[[str], None] | None = None,
) -> Iterator[Example]:
    """Examples of records with their origins; malformed ones as in `read_file`."""
    for raw, origin in records:
        try:
            example = parse(raw, origin)
        except DataError as error:
            if on_problem is None:
                raise
            on_problem(str(error))
            continue
        yield example


# --- splitting -----------------------------------------------------------------------------------


def parse_json(text: str, origin: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{origin}: not valid JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{origin}: not a record: lists within lists without end") from None
    except ValueError as error:  # a field given twice; a number of thousands of digits
        raise DataError(f"{origin}: {str(error).partition(';')[0]}") from None


def raw_records(path: Path, file_format: FileFormat) -> Iterator[tuple[Any, str]]:
    """Items of a file's JSON array, a table's rows, or non-empty lines, each with its origin."""
    if file_format.holds == "csv" or file_format.holds == "parquet":
        yield from table_rows(path, file_format.holds)
        return
    if file_format.holds != "array":
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                yield line.removesuffix("\n"), f"{path}, line {number}"
        return
    try:
        records = json.loads(read_text(path), object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{path}: not an array of problems: lists within lists") from None
    except ValueError as error:
        raise DataError(f"{path}: {str(error).partition(';')[0]}") from None
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a JSON array of problems")
    for number, record in enumerate(records, 1):
        yield record, f"{path}, item {number}"


# --- parsing -------------------------------------------------------------------------------------


def _prosqa(record: dict[str, Any], origin: str) -> Example:
    """Steps and answer are sentences."""
    return make_example(record["question"], record["steps"], record["answer"], origin)


def question_of(raw: bytes, origin: str, field: str = "question") -> tuple[str, Any]:
    """Question (what `field` holds) and `id` (None if there is none) of a line that may have no
    answer.

    Raises:
        DataError: not UTF-8, not JSON, or no question in it.
    """
    try:
        line = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{origin}: not UTF-8 text (byte {error.start})") from None
    record = check_fields(parse_json(line, origin), origin, [field])
    return check_text(record[field], f"{origin}: field {field!r}"), record.get("id")


def _gsm8k(record: dict[str, Any], origin: str) -> Example:
    """Steps from the `<<48/2=24>>` annotations (a record may have none)."""
    solution, answer = _solution(record, origin)
    steps = [f"<<{equation}>>" for equation in _ANNOTATION.findall(solution)]
    return make_example(record["question"], steps, answer, origin)


def _gsm8k_sentences(record: dict[str, Any], origin: str) -> Example:
    """Steps from the sentences of the solution, annotations removed."""
    solution, answer = _solution(record, origin)
    sentences = [_ANNOTATION.sub("", text).strip() for text in solution.splitlines()]
    return make_example(record["question"], [s for s in sentences if s], answer, origin)


def _solution(record: dict[str, Any], origin: str) -> tuple[str, str]:
    """Solution text and answer of `... \\n#### 72`."""
    if not isinstance(record["answer"], str):
        raise DataError(f"{origin}: field 'answer' must be a string, got {record['answer']!r}")
    solution, separator, answer = record["answer"].rpartition("####")
    if not separator:
        raise DataError(f"{origin}: field 'answer' has no line '#### ...'")
    return solution, answer


def _gsm8k_aug(line: str, origin: str) -> Example:
    """`question||<<a+b=c>> <<...>> #### answer`."""
    question, steps, answer = _bar_parts(line, origin)
    return make_example(question, _annotations(steps, origin), answer, origin)


def _gsm8k_aug_json(record: dict[str, Any], origin: str) -> Example:
    """The same as an object, the steps one text in the field `cot` (the hub's zen-E/GSM8k-Aug)."""
    if not isinstance(record["cot"], str):
        raise DataError(f"{origin}: field 'cot' must be a string, got {record['cot']!r}")
    return make_example(
        record["question"], _annotations(record["cot"], origin), record["answer"], origin
    )


def _annotations(steps: str, origin: str) -> list[str]:
    """The steps of `<<a+b=c>> <<...>>`; blanks alone are none."""
    found = [f"<<{equation}>>" for equation in _ANNOTATION.findall(steps)]
    if steps.strip() and not found:
        raise DataError(f"{origin}: the steps hold no '<<...>>', got {steps[:60]!r}")
    return found


def _multiplication(line: str, origin: str) -> Example:
    """`5 6 * 7 4||5 5 4 + 0 0 6 2 #### 5 5 0 3`, iCoT's format of long multiplication.

    A step is a partial product with the running sum behind it, where the line has one.
    """
    question, steps, answer = _bar_parts(line, origin)
    if not _PRODUCT.fullmatch(question):
        raise DataError(f"{origin}: expected digits such as '5 6 * 7 4', got {question[:60]!r}")
    terms = [term.strip() for term in steps.split("+")] if steps else []
    return make_example(question, terms, answer, origin)


def is_multiplication(line: str) -> bool:
    return _PRODUCT.fullmatch(line.partition("||")[0].strip()) is not None


def _bar_parts(line: str, origin: str) -> tuple[str, str, str]:
    """Question, steps and answer of `question||steps #### answer`."""
    question, bars, rest = line.partition("||")
    steps, separator, answer = rest.rpartition("####")
    if not bars or not separator:
        raise DataError(f"{origin}: expected 'question||steps #### answer', got {line[:60]!r}")
    return question.strip(), steps.strip(), answer.strip()


def _gsm_hard(record: dict[str, Any], origin: str) -> Example:
    return make_example(record["input"], [], record["target"], origin)


def _svamp(record: dict[str, Any], origin: str) -> Example:
    body, question = record["Body"], record["Question"]
    if not isinstance(body, str) or not isinstance(question, str):
        raise DataError(f"{origin}: fields 'Body' and 'Question' must be strings")
    body = body.strip()
    joint = " " if body.endswith((".", "?", "!", ",")) else ". "
    return make_example(body + joint + question.strip(), [], record["Answer"], origin)


_QA = ("question", "answer")
FILE_FORMATS = {
    "jsonl": FileFormat("objects"),
    "csv": FileFormat("csv"),
    "parquet": FileFormat("parquet"),
    "gsm8k": FileFormat("objects", _QA, _gsm8k),
    "gsm8k_sentences": FileFormat("objects", _QA, _gsm8k_sentences),
    "gsm8k_aug": FileFormat("text", (), _gsm8k_aug),
    "gsm8k_aug_json": FileFormat("objects", (*_QA, "cot"), _gsm8k_aug_json),
    "gsm_hard": FileFormat("objects", ("input", "target"), _gsm_hard),
    "svamp": FileFormat("array", ("Body", "Question", "Answer"), _svamp),
    "prosqa": FileFormat("array", ("question", "steps", "answer"), _prosqa),
    "multiplication_file": FileFormat("text", (), _multiplication),
}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a field be given twice, and one of both would be lost."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {max(names, key=names.count)!r} is given twice")
    return record
