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
    """`stages.0.max_steps: 2, now 3`: the first place where two settings differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if _differ(old, new, key))
        return difference(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    shown = ", now ".join(shorten(str(value), 60, placeholder=" ...") for value in (old, new))
    return f"{path}: {shown}" if path else shown


def _differ(old: dict[Any, Any], new: dict[Any, Any], key: Any) -> bool:
    return (key in old) != (key in new) or old.get(key) != new.get(key)
