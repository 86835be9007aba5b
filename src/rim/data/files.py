"""A file's text, and what is said of a file that holds none."""

from __future__ import annotations

from pathlib import Path

from rim.data.examples import DataError

#: The first bytes of every Parquet file.
PARQUET = b"PAR1"


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a data file") from None
    except UnicodeDecodeError as error:
        if error.object.startswith(PARQUET):
            raise DataError(f"{path} is a Parquet file: its format is parquet") from None
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.start}); a spreadsheet saves it as CSV UTF-8"
        ) from None


def is_parquet(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET
