"""The first place where two recipes differ."""

from __future__ import annotations

from textwrap import shorten
from typing import Any


def difference(old: Any, new: Any, path: str = "") -> str:
    """`stages.grounding.max_steps: 2, now 3`: the first place where two settings differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        names = [_name(pair, number) for number, pair in enumerate(zip(old, new, strict=True))]
        if len(set(names)) < len(names):
            names = list(range(len(names)))
        old, new = dict(zip(names, old, strict=True)), dict(zip(names, new, strict=True))
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if _differ(old, new, key))
        return difference(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    shown = ", now ".join(shorten(str(value), 60, placeholder=" ...") for value in (old, new))
    return f"{path}: {shown}" if path else shown


def _name(pair: tuple[Any, Any], number: int) -> str | int:
    """A stage's name, if it kept it; else its number."""
    first, second = (p.get("name") if isinstance(p, dict) else None for p in pair)
    return first if isinstance(first, str) and first == second else number


def _differ(old: dict[Any, Any], new: dict[Any, Any], key: Any) -> bool:
    return (key in old) != (key in new) or old.get(key) != new.get(key)
