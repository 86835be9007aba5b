"""A file's text, and what is said of a file that holds none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rim.config.missing import no_such
from rim.data.examples import DataError

#: The first bytes of every Parquet file.
PARQUET = b"PAR1"


def read_lines(path: Path) -> Iterator[str]:
    """A file's lines with their ends, one at a time: the file may be larger than memory.

    Raises:
        DataError: no such file, or it is not text.
    """
    try:
        # Not str.splitlines: JSON strings may hold U+2028 and its kin unescaped.
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except FileNotFoundError:
        raise DataError(no_such("file", path)) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a data file") from None
    except UnicodeDecodeError:
        if is_parquet(path):
            raise DataError(f"{path} is a Parquet file: its format is parquet") from None
        raise DataError(
            f"{path}: not UTF-8 text (byte {_first_bad_byte(path)}); a spreadsheet saves it as "
            "CSV UTF-8"
        ) from None


def read_text(path: Path) -> str:
    """All of a file, see `read_lines`."""
    return "".join(read_lines(path))


def _first_bad_byte(path: Path) -> int | None:
    """Counted from the file's beginning; a decoder of a stream counts from its last piece."""
    before = 0
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return before + error.start
            before += len(line)
    return None  # the file was changed meanwhile


def is_parquet(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET
