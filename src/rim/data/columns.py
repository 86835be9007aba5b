"""From a record to an example: which field or column is what, and what a value may be."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rim.config import Columns
from rim.data.examples import DataError, Example, check_text

#: The names that columns have if nobody says otherwise.
USUAL = Columns()


@dataclass(frozen=True)
class Reading:
    """How records are read by the names of their columns.

    step_separator: parts steps that stand in one string. kind: what a message calls a column.
    """

    columns: Columns = USUAL
    step_separator: str = "\n"
    kind: str = "field"

    def among(self, names: Sequence[str], what: str) -> Reading:
        """The same for a table with these columns; upper and lower case may differ.

        Raises:
            DataError: question, answer, or steps that were named are in no column of it.
        """
        found = {}
        for role in type(self.columns).model_fields:
            name = getattr(self.columns, role)
            if name is None:
                continue
            same = [n for n in names if n == name] or [
                n for n in names if n.casefold() == name.casefold()
            ]
            if len(same) == 1:
                found[role] = same[0]
            elif same:
                raise DataError(f"{what} has several columns {name!r}; rename all but one")
            elif role != "steps" or role in self.columns.model_fields_set:
                raise DataError(
                    f"{what} has no column {name!r}; it has {', '.join(map(repr, names))}. Say "
                    f"which one is the {role}: {_how_to_name(role)}"
                )
        columns = Columns.model_validate({"steps": None} | found)
        return Reading(columns, self.step_separator, "column")

    def example(self, record: Any, origin: str) -> Example:
        """
        Raises:
            DataError: a column is missing, or holds what it may not.
        """
        names = self.columns
        try:
            record = check_fields(record, origin, (names.question, names.answer))
        except DataError as error:
            if not isinstance(record, dict) or names.model_fields_set:
                raise
            missing = next(n for n in (names.question, names.answer) if n not in record)
            near = difflib.get_close_matches(missing, record, 1)
            hint = _how_to_name(missing, *near) if near else _how_to_name("question")
            raise DataError(f"{error}; fields of other names: {hint}") from None
        steps = None
        if names.steps is not None:
            if names.steps not in record and "steps" in names.model_fields_set:
                check_fields(record, origin, [names.steps])
            steps = record.get(names.steps)
        if isinstance(steps, str):
            what = f"{origin}: {self.kind} {names.steps!r}"
            steps = _parted(steps, self.step_separator, what)
        steps = [] if steps is None else steps
        return make_example(
            record[names.question], steps, record[names.answer], origin, names, self.kind
        )


def _how_to_name(role: str, name: str = "NAME") -> str:
    return (
        f"--column {role}={name} (in a recipe columns.{role} of this source: rim train --set "
        f"data.train.columns.{role}={name})"
    )


#: As `Reading` is without anything said.
PLAIN = Reading()


def _parted(text: str, separator: str, what: str) -> list[Any]:
    """Steps of a string: a JSON list, or what the separator parts."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list):
            return listed
        if text[1:].lstrip().startswith("'"):  # as pandas writes a list into a CSV
            raise DataError(
                f"{what} is a list as Python prints it, {text[:40]!r}; write it as JSON "
                "(json.dumps), or as one string with a separator between the steps"
            )
    # Another line end of another system is the same separator.
    parts = text.replace("\r\n", "\n").split(separator or "\n")
    return [part.strip() for part in parts if part.strip()]


def make_example(
    question: Any,
    steps: Any,
    answer: Any,
    origin: str,
    names: Columns = USUAL,
    kind: str = "field",
) -> Example:
    """Check the types of one record. Numeric answers become text; the rest must be text already.

    Args:
        names, kind: what a message calls the values.
    """
    where = f"{origin}: {kind} {names.answer!r}"
    if isinstance(answer, Decimal):  # of a database: all its digits
        answer = format(answer, "f")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"{where} must be a string or a number, got {answer!r}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise DataError(f"{where} must be a finite number, got {answer!r}")
    if not isinstance(steps, list | tuple):
        raise DataError(
            f"{origin}: {kind} {names.steps or 'steps'!r} must be a list of strings, or one "
            f"string, got {steps!r}"
        )
    if isinstance(answer, float) and answer == int(answer):
        answer = int(answer)
    check_text(question, f"{origin}: {kind} {names.question!r}")
    check_text(str(answer), where)
    for i, step in enumerate(steps):
        check_text(step, f"{origin}: {kind} {names.steps or 'steps'!r}, item {i + 1},")
    return Example(question, tuple(steps), str(answer).strip(), origin)


def check_fields(record: Any, origin: str, names: Iterable[str]) -> dict[str, Any]:
    """The record, once it is known to be an object with these fields."""
    if not isinstance(record, dict):
        raise DataError(f"{origin}: expected a JSON object, got {type(record).__name__}")
    for name in names:
        if name not in record:
            found = ", ".join(record) or "nothing"
            raise DataError(f"{origin}: field {name!r} is missing (found {found})")
    return record
