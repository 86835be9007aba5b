"""The options that say which column of a table is what."""

from __future__ import annotations

from typing import Any


def reading(column: list[str] | None, separator: str | None) -> Any:
    """A `rim.data.columns.Reading` from `--column ROLE=NAME` and `--separator`.

    Raises:
        ConfigError: another role, or no name.
    """
    from rim.config import Columns, ConfigError
    from rim.data.columns import Reading

    names: dict[str, str | None] = {}
    for entry in column or []:
        role, equals, name = entry.partition("=")
        if role not in Columns.model_fields or not equals or not name:
            raise ConfigError(
                f"--column takes {', '.join(f'{r}=NAME' for r in Columns.model_fields)}, "
                f"got {entry!r}"
            )
        names[role] = name
    if separator == "":
        raise ConfigError("--separator is empty: steps cannot be told apart by nothing")
    # A shell passes \n and \t on as two characters.
    text = (separator or "\n").replace("\\n", "\n").replace("\\t", "\t")
    return Reading(Columns.model_validate(names), text)
