"""Files in, examples out: JSONL and published formats (GSM8K and its kin, SVAMP, ProsQA, products).

A format is two functions: one splits a file into raw records, one turns a record into an `Example`
or raises a `DataError` that names file, line and field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.data.examples import DataError, Example, check_text

_ANNOTATION = re.compile(r"<<(.+?)>>")
_PRODUCT = re.compile(r"\d( \d)* \* \d( \d)*")  # digits apart, as in "5 6 3 2 * 7 4 3 4"


@dataclass(frozen=True)
class FileFormat:
    """`split` yields (raw record, origin); `parse` turns one into an example."""

    split: Callable[[Path], Iterator[tuple[Any, str]]]
    parse: Callable[[Any, str], Example]


def read_file(
    path: Path, file_format: FileFormat, on_problem: Callable[[str], None] | None = None
) -> Iterator[Example]:
    """Examples of a file in order.

    Args:
        on_problem: told of each malformed record, which is then left out; without it the first one
            raises.

    Raises:
        DataError: a malformed record (unless `on_problem` takes it), or a file that cannot be read.
    """
    for raw, origin in file_format.split(path):
        try:
            example = file_format.parse(raw, origin)
        except DataError as error:
            if on_problem is None:
                raise
            on_problem(str(error))
            continue
        yield example


def parse_record(file_format: FileFormat, record: Any, origin: str) -> Example:
    """An example from a record that is already an object, such as a row of a hub data set."""
    raw = json.dumps(record) if file_format.split is split_lines else record
    return file_format.parse(raw, origin)


# --- splitting -----------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a data file") from None
    except UnicodeDecodeError as error:
        if error.object.startswith(b"PAR1"):  # parquet's first bytes
            raise unknown_format(path) from None
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def unknown_format(path: Path) -> DataError:
    """For a file whose content is like none of the formats: which there are, and how tables go."""
    return DataError(
        f"{path} is in none of the formats read from files ({', '.join(FILE_FORMATS)}); a table is "
        f"read by a recipe with format: hub, path: csv (or parquet), data_files: {path}, and "
        "columns that name its question, steps and answer"
    )


def split_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Non-empty lines. Not str.splitlines: JSON strings may hold U+2028 and its kin unescaped."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield line.rstrip("\r"), f"{path}, line {number}"


def split_array(path: Path) -> Iterator[tuple[Any, str]]:
    """Items of a file that is one JSON array."""
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


def parse_jsonl(line: str, origin: str) -> Example:
    """`{"question": string, "steps": list of strings, "answer": string or number}`."""
    record = _fields(json_object(line, origin), origin, "question", "answer")
    return make_example(record["question"], record.get("steps", []), record["answer"], origin)


def question_of(raw: bytes, origin: str) -> tuple[str, Any]:
    """Question and `id` (None if there is none) of a line that may have no answer.

    Raises:
        DataError: not UTF-8, not JSON, or no question in it.
    """
    try:
        line = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{origin}: not UTF-8 text (byte {error.start})") from None
    record = _fields(json_object(line, origin), origin, "question")
    return check_text(record["question"], f"{origin}: field 'question'"), record.get("id")


def parse_gsm8k(line: str, origin: str) -> Example:
    """GSM8K's raw lines, steps from the `<<48/2=24>>` annotations (a record may have none)."""
    question, solution, answer = _gsm8k_parts(line, origin)
    return make_example(
        question, [f"<<{e}>>" for e in _ANNOTATION.findall(solution)], answer, origin
    )


def parse_gsm8k_sentences(line: str, origin: str) -> Example:
    """GSM8K's raw lines, steps from the sentences of the solution, annotations removed."""
    question, solution, answer = _gsm8k_parts(line, origin)
    sentences = [_ANNOTATION.sub("", text).strip() for text in solution.splitlines()]
    return make_example(question, [s for s in sentences if s], answer, origin)


def _gsm8k_parts(line: str, origin: str) -> tuple[str, str, str]:
    """Question, solution text and answer of `... \\n#### 72`."""
    record = _fields(json_object(line, origin), origin, "question", "answer")
    if not isinstance(record["answer"], str):
        raise DataError(f"{origin}: field 'answer' must be a string, got {record['answer']!r}")
    solution, separator, answer = record["answer"].rpartition("####")
    if not separator:
        raise DataError(f"{origin}: field 'answer' has no line '#### ...'")
    return record["question"], solution, answer


def parse_gsm8k_aug(line: str, origin: str) -> Example:
    """`question||<<a+b=c>> <<...>> #### answer`, the format of GSM8K-Aug."""
    question, steps, answer = _bar_parts(line, origin)
    found = [f"<<{equation}>>" for equation in _ANNOTATION.findall(steps)]
    if steps and not found:
        raise DataError(f"{origin}: the steps hold no '<<...>>', got {steps[:60]!r}")
    return make_example(question, found, answer, origin)


def parse_multiplication_file(line: str, origin: str) -> Example:
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


def parse_gsm_hard(line: str, origin: str) -> Example:
    """GSM-Hard: `input` and a numeric `target`; no steps."""
    record = _fields(json_object(line, origin), origin, "input", "target")
    return make_example(record["input"], [], record["target"], origin)


def parse_svamp(record: Any, origin: str) -> Example:
    """SVAMP: `Body`, `Question`, `Answer`; no steps."""
    record = _fields(record, origin, "Body", "Question", "Answer")
    if not isinstance(record["Body"], str) or not isinstance(record["Question"], str):
        raise DataError(f"{origin}: fields 'Body' and 'Question' must be strings")
    body = record["Body"].strip()
    joint = " " if body.endswith((".", "?", "!", ",")) else ". "
    return make_example(body + joint + record["Question"].strip(), [], record["Answer"], origin)


def parse_prosqa(record: Any, origin: str) -> Example:
    """ProsQA: `question`, `steps` (sentences) and `answer` (a sentence) in one JSON array."""
    record = _fields(record, origin, "question", "steps", "answer")
    return make_example(record["question"], record["steps"], record["answer"], origin)


FILE_FORMATS = {
    "jsonl": FileFormat(split_lines, parse_jsonl),
    "gsm8k": FileFormat(split_lines, parse_gsm8k),
    "gsm8k_sentences": FileFormat(split_lines, parse_gsm8k_sentences),
    "gsm8k_aug": FileFormat(split_lines, parse_gsm8k_aug),
    "gsm_hard": FileFormat(split_lines, parse_gsm_hard),
    "svamp": FileFormat(split_array, parse_svamp),
    "prosqa": FileFormat(split_array, parse_prosqa),
    "multiplication_file": FileFormat(split_lines, parse_multiplication_file),
}


def make_example(question: Any, steps: Any, answer: Any, origin: str) -> Example:
    """Check the types of one record. Numeric answers become text; the rest must be text already."""
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"{origin}: field 'answer' must be a string or a number, got {answer!r}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise DataError(f"{origin}: field 'answer' must be a finite number, got {answer!r}")
    if not isinstance(steps, list | tuple):
        raise DataError(f"{origin}: field 'steps' must be a list of strings, got {steps!r}")
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    return Example(question, tuple(steps), str(answer).strip(), origin)


def json_object(line: str, origin: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{origin}: not valid JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{origin}: not a record: lists within lists without end") from None
    except ValueError as error:  # a field given twice; a number of thousands of digits
        raise DataError(f"{origin}: {str(error).partition(';')[0]}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a field be given twice, and one of both would be lost."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {max(names, key=names.count)!r} is given twice")
    return record


def _fields(record: Any, origin: str, *names: str) -> dict[str, Any]:
    """The record, once it is known to be an object with these fields."""
    if not isinstance(record, dict):
        raise DataError(f"{origin}: expected a JSON object, got {type(record).__name__}")
    for name in names:
        if name not in record:
            raise DataError(
                f"{origin}: field {name!r} is missing (found {', '.join(record) or 'nothing'})"
            )
    return record
