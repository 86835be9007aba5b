"""The one record that everything reads and writes."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any


class DataError(ValueError):
    """A data set is malformed; the message names file, line and field."""


@dataclass(frozen=True)
class Example:
    """A question, its reasoning steps in order (may be empty where only answers are known), its
    answer.

    `origin` says where it came from ("train.jsonl, line 7") for messages.
    """

    question: str
    steps: tuple[str, ...]
    answer: str
    origin: str = ""

    @property
    def same_question(self) -> str:
        """Equal for questions that differ in blanks, line breaks or Unicode's composition alone:
        what is held out of training must not come back in another spelling.
        """
        return " ".join(unicodedata.normalize("NFC", self.question).split())

    def __post_init__(self) -> None:
        where = f"{self.origin}: " if self.origin else ""
        for field in ("question", "answer"):
            check_text(getattr(self, field), f"{where}field '{field}'")
        for i, step in enumerate(self.steps):
            check_text(step, f"{where}field 'steps', item {i + 1},")


def check_text(value: Any, what: str) -> str:
    """The value, once it is known to be text with something in it.

    Raises:
        DataError: it is not; `what` names it.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{what} must be a non-empty string, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise DataError(f"{what} has half a character, {half!r}, which is no text") from None
    return value
