"""Whether two recipes mean the same, and the first place where they do not."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from rim.config.data import Columns


def plain(settings: Any) -> Any:
    """Settings without columns that are named as the default: earlier records name all of them."""
    if isinstance(settings, list):
        return [plain(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    kept = {key: plain(value) for key, value in settings.items()}
    if isinstance(columns := kept.get("columns"), dict):
        default = {name: field.default for name, field in Columns.model_fields.items()}
        kept["columns"] = {role: n for role, n in columns.items() if default.get(role) != n}
    return kept


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
