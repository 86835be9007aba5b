"""Which format a file has, told by its content."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from rim.data.examples import DataError
from rim.data.files import is_parquet, read_lines
from rim.data.readers import FILE_FORMATS, is_multiplication, parse_json, raw_records
from rim.data.tables import looks_like_csv


def known_format(path: Path, file_format: str | None, by_columns: bool = False) -> Any:
    """The format that was asked for, or that of the file's content.

    Raises:
        DataError: an unknown format, see also `guess_format`.
    """
    if file_format is None or file_format == "auto":
        return guess_format(path, by_columns)
    if file_format not in FILE_FORMATS:
        nearest = difflib.get_close_matches(file_format, FILE_FORMATS, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(
            f"unknown format {file_format!r}, known are {', '.join(FILE_FORMATS)}{hint}"
        )
    return file_format


def guess_format(path: Path, by_columns: bool = False) -> str:
    """The format of a file by the fields of its first record (never by its name).

    Args:
        by_columns: columns were named, so that an object is read by them, whatever its fields.

    Raises:
        DataError: no known format looks like that.
    """
    if is_parquet(path):
        return "parquet"
    first = next((line.strip() for line in read_lines(path) if line.strip()), "")
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
        if looks_like_csv(path, first):
            return "csv"
        raise DataError(
            f"{path} is in none of the formats read from files ({', '.join(FILE_FORMATS)}); a "
            "table begins with the names of its columns"
        )
    record = parse_json(first, f"{path}, line 1")
    fields = _fields(record)
    if by_columns:
        return "jsonl"
    own = fields & {"question", "answer", "steps"}
    if fields.issuperset(FILE_FORMATS["gsm_hard"].fields) and not own:
        return "gsm_hard"
    if fields.issuperset(FILE_FORMATS["gsm8k_aug_json"].fields) and "steps" not in fields:
        return "gsm8k_aug_json"
    if (
        {"question", "answer"} <= fields
        and "steps" not in fields
        and "####" in str(record["answer"])
    ):
        return "gsm8k"
    if not fields:
        raise DataError(f"{path}, line 1: an object with fields, such as 'question' and 'answer'")
    return "jsonl"  # its parser says what is missing


def _fields(record: Any) -> set[str]:
    return set(record) if isinstance(record, dict) else set()
