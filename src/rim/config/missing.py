"""Paths that are not there, in one sentence with the one that was probably meant."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path

#: Names of a folder that are compared.
_MOST_NAMES = 10_000


def no_such(what: str, path: str | Path) -> str:
    """`no such file: data/trian.jsonl; did you mean data/train.jsonl?`

    Args:
        what: what is not there: "file", "run or model folder".
    """
    return f"no such {what}: {path}{_hint(Path(path))}"


def _hint(path: Path) -> str:
    try:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        if not missing:
            return ""
        first = missing[-1]  # the part nearest to the root that is not there
        # A link that leads nowhere has the very name that is missing.
        there = (p.name for p in first.parent.iterdir() if p.name != first.name and p.exists())
        names = list(itertools.islice(there, _MOST_NAMES))
        nearest = difflib.get_close_matches(first.name, names, 1, 0.7)
        if not nearest:
            return ""
        meant = first.parent / nearest[0]
        rest = path.relative_to(first)
        return f"; did you mean {meant / rest if (meant / rest).exists() else meant}?"
    except (OSError, ValueError):  # a hint is worth no error of its own
        return ""
