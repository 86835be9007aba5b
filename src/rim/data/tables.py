"""Rows of CSV and Parquet files.

A row of a CSV has the number that a spreadsheet shows: the header is row 1. Cells stay text, so
that an answer such as 007 is not made a number. What parts the cells (comma, semicolon, tab, bar)
is told by the header.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from rim.config.missing import no_such
from rim.data.examples import DataError
from rim.data.files import read_lines

TableKind = Literal["csv", "parquet"]
_DELIMITERS = ",;\t|"


def column_names(path: Path, kind: TableKind) -> list[str]:
    """Names of a table's columns, in order.

    Raises:
        DataError: no such table.
    """
    if kind == "csv":
        return _header(path)[1]
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def table_rows(path: Path, kind: TableKind) -> Iterator[tuple[Any, str]]:
    """Rows by the names of their columns, each with its origin. A row of a CSV that has more or
    fewer cells than the header is its list of cells (see `row_by_name`).
    """
    if kind == "parquet":
        with _parquet(path) as file:
            number = 0
            for batch in _batches(file, path):
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path}, row {number}"
        return
    delimiter, header = _header(path)
    rows = csv.reader(read_lines(path), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(rows, 1):
            if number > 1 and any(cell.strip() for cell in cells):
                same = len(cells) == len(header)
                row = dict(zip(header, cells, strict=True)) if same else Misfit(cells, len(header))
                yield row, f"{path}, row {number}"
    except csv.Error as error:
        raise DataError(f"{path}, row {number + 1}: not a readable CSV ({error})") from None


class Misfit(list[str]):
    """Cells of a row that are more or fewer than the columns."""

    def __init__(self, cells: list[str], columns: int):
        super().__init__(cells)
        self.columns = columns

    def problem(self, origin: str) -> DataError:
        hint = (
            "; a cell that holds the separator stands in double quotes"
            if len(self) > self.columns
            else ""
        )
        return DataError(f"{origin}: {len(self)} cells where the header has {self.columns}{hint}")


def looks_like_csv(path: Path, first_line: str) -> bool:
    """Whether the first line of a file could be a header of two columns or more."""
    return len(_split_header(path, lambda: iter([first_line]))[1]) > 1


def _header(path: Path) -> tuple[str, list[str]]:
    if not any(line.strip() for line in read_lines(path)):
        raise DataError(f"{path} is empty")
    delimiter, names = _split_header(path, lambda: read_lines(path))
    names = [name.strip() for name in names]
    if not any(names):
        raise DataError(f"{path}, row 1 is blank; the names of the columns stand there")
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}, row 1: two columns are called {name!r}; rename one")
    return delimiter, names


def _split_header(path: Path, lines: Callable[[], Iterator[str]]) -> tuple[str, list[str]]:
    """Return the separator that parts the first row into the most cells, and these cells."""
    found: dict[str, list[str]] = {}
    for delimiter in _DELIMITERS:
        rows = csv.reader(lines(), delimiter=delimiter, strict=True)
        try:
            found[delimiter] = next(rows, [])
        except csv.Error:
            continue
    if not found:
        raise DataError(f"{path}, row 1: not a readable CSV; is a quote left open?")
    best = max(found, key=lambda d: len(found[d]))
    return best, found[best]


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    if path.is_dir():
        raise DataError(f"{path} is a folder, not a data file")
    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(no_such("file", path)) from None
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _batches(file: Any, path: Path) -> Iterator[Any]:
    """A file may be broken behind a header that is whole, as after half a download."""
    import pyarrow

    try:
        yield from file.iter_batches()
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable Parquet file: {str(error).strip()}")
