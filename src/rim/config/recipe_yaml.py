"""Recipes: YAML files that become a `Recipe`, with `extends:`, overrides and helpful mistakes."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from rim.config import ConfigError, Recipe, Settings
from rim.config.missing import no_such
from rim.config.stages import expand_stages, trial_stages

S = TypeVar("S", bound=Settings)

#: The two ways to say how long a stage is: one that is laid over a recipe replaces the other.
_LENGTHS = {"max_steps": "epochs", "epochs": "max_steps"}


def load_recipe(
    path: str | Path, overrides: tuple[str, ...] = (), *, steps: int | None = None
) -> Recipe:
    """Read a recipe. `extends: other.yaml` (relative to the file) gives the base that it differs
    from; of several, each is laid over those before it.

    Args:
        steps: a trial of so many optimizer steps, shared among the stages; its run has a name of
            its own, NAME-Nsteps.

    Raises:
        ConfigError: a missing file, YAML that does not parse, an unknown key or a value out of
            range.
    """
    raw = read_recipe(path, overrides)
    if "methods" in raw and "stages" not in raw:
        raise ConfigError(f"{path} compares methods: use `rim compare {path}`")
    recipe = recipe_from_dict(raw, str(path))
    if steps is None:
        return recipe
    stages = [stage.model_dump(mode="json", exclude_unset=True) for stage in recipe.stages]
    short = {
        "name": f"{recipe.name}-{steps}steps",
        "stages": trial_stages(stages, steps, str(path)),
    }
    return recipe_from_dict(recipe.model_dump(mode="json", exclude_unset=True) | short, str(path))


def read_recipe(path: str | Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe file as nested dicts, `extends:` and overrides applied, nothing validated yet."""
    raw = _unshared(_read_yaml(Path(path), ()), str(path))
    for override in overrides:
        apply_override(raw, override)
    return raw


def _unshared(value: Any, path: str) -> Any:
    """The same tree without parts in common: an alias in YAML is one object in several places, and
    an override of one of them would change them all.
    """
    try:
        if isinstance(value, dict):
            return {key: _unshared(part, path) for key, part in value.items()}
        return [_unshared(part, path) for part in value] if isinstance(value, list) else value
    except RecursionError:
        raise ConfigError(f"{path} is not a readable YAML file: lists without end") from None


def recipe_from_dict(raw: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Validate a recipe given as nested dicts; `${NAME:-default}` in strings is read from the
    environment.
    """
    return settings_from_dict(Recipe, raw, origin)


def settings_from_dict(settings: type[S], raw: dict[str, Any], origin: str) -> S:
    """Validate any settings given as nested dicts.

    Raises:
        ConfigError: an unknown key (the message has the nearest valid one) or a value out of range.
    """
    try:
        return settings.model_validate(_expand(raw))
    except RecursionError:
        raise ConfigError(f"{origin}: settings within settings without end") from None
    except ValidationError as error:
        problems = "; ".join(_explain(e, settings, raw) for e in _first_causes(error.errors()))
        raise ConfigError(f"{origin}: {problems}") from None


def _first_causes(errors: Sequence[Any]) -> list[Any]:
    """Without the lists that are called too short because their entries are wrong."""
    parents = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    return [e for e in errors if e["type"] != "too_short" or e["loc"] not in parents]


def dump_yaml(recipe: BaseModel, *, only_set: bool = False) -> str:
    """The settings as YAML that reads back as they are.

    Args:
        only_set: without defaults, where it matters which settings were made (the tasks of a
            comparison go before what is common to all).
    """
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=only_set), sort_keys=False)


def _read_yaml(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in chain:
        raise ConfigError(f"{path}: 'extends' goes round in a circle")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(no_such("recipe", path)) from None
    except (yaml.YAMLError, IsADirectoryError, ValueError) as error:  # a date that is none, a NUL
        reason = str(error).partition("; use sys.")[0]  # advice of Python for programs
        raise ConfigError(f"{path} is not a readable YAML file: {reason}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not a readable YAML file: lists without end") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values")
    bases = raw.pop("extends", [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "\0" in base:
            raise ConfigError(f"{path}: 'extends' names a file, or several, got {base!r}")
        merged = merge(merged, _read_yaml(path.parent / base, (*chain, path.resolve())))
    return merge(merged, raw)


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` laid over `base`: mappings are merged key by key, anything else is replaced.

    A mapping laid over a list of named items (stages) changes the items that it names.
    """
    lengths = [k for k in change if k in _LENGTHS and isinstance(change[k], int | float | str)]
    dropped = {_LENGTHS[key] for key in lengths} - set(change)
    merged = {key: value for key, value in base.items() if key not in dropped}
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = merge(old, value)
        elif isinstance(value, dict) and isinstance(old, list):
            merged[key] = _merge_named(old, value, key)
        else:
            merged[key] = value
    return merged


def _merge_named(items: list[Any], changes: dict[str, Any], key: str) -> list[Any]:
    merged = list(items)
    for name, change in changes.items():
        where = f"{key}.{name}"
        index = _index(merged, str(name), where)
        if not isinstance(change, dict) or not isinstance(merged[index], dict):
            raise ConfigError(f"{where}: a mapping of what changes, got {change!r}")
        merged[index] = merge(merged[index], change)
    return merged


def apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set wants key=value, got {override!r}")
    *parents, last = key.split(".")
    node: Any = raw
    for part in parents:
        node = _child(node, part, override)
    value = _override_value(text)
    if isinstance(node, list):
        node[_index(node, last, f"--set {override}")] = value
    else:
        node[last] = value
        if last in _LENGTHS and isinstance(value, int | float | str):
            node.pop(_LENGTHS[last], None)


def _override_value(text: str) -> Any:
    """YAML where it is YAML; `#### {answer}`, a comment to YAML, and broken YAML are plain text."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # as a date that is none
        return text
    return text if value is None and text.strip() not in ("", "null", "~") else _number(value)


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, f"--set {override}")]
    if not isinstance(node, dict):
        raise ConfigError(f"--set {override}: {part!r} lies below a plain value")
    if not isinstance(node.get(part), dict | list):
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, where: str) -> int:
    """A list is entered by number, or by the name of an item (`stages.grounding.max_steps`)."""
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(node):
        return int(part)
    known = ", ".join(str(n) for n in names if n) or f"0..{len(node) - 1}"
    raise ConfigError(f"{where}: no item {part!r} (there are {known})")


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as a string; a person means the number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _expand(node: Any) -> Any:
    """Environment variables put in; what no setting means and no YAML file can hold is refused."""
    if isinstance(node, dict):
        return {_expand_key(key): _expand(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_expand(value) for value in node]
    if isinstance(node, str):
        _expand_key(node)
        node = _number(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", _environment, node))
    long = isinstance(node, int) and not -(2**63) < node < 2**63
    if long or (isinstance(node, float) and not math.isfinite(node)):
        raise ConfigError("a number in the settings is not finite, or of more than 18 digits")
    return node


def _expand_key(key: Any) -> Any:
    if isinstance(key, str):
        if "\0" in key:
            raise ConfigError(f"a NUL character in the settings: {key[:40]!r}")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"half a character in the settings: {key[:40]!r}") from None
    return key


def _environment(match: re.Match[str]) -> str:
    value = os.environ.get(match[1], match[2])
    if value is None:
        raise ConfigError(f"the recipe uses the environment variable {match[1]}, which is not set")
    return value


def _explain(error: Any, settings: type[BaseModel], raw: Any) -> str:
    where = ".".join(_names(error["loc"], raw)) or "recipe"
    if error["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(
            str(error["loc"][-1]), _keys_at(settings, error["loc"][:-1]), 1, 0.4
        )
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"unknown key {where!r}{hint}"
    if error["type"] == "missing":
        return f"{where} is missing"
    message = re.sub(r"^(Value error, |Input )", "", error["msg"])
    shown = "" if isinstance(error["input"], dict | BaseModel) else f", got {error['input']!r}"
    return f"{where}: {message}{shown}" if error["type"] != "value_error" else f"{where}: {message}"


def _names(location: Sequence[Any], node: Any) -> list[str]:
    """A place in settings as `--set` takes it: a stage by its name instead of its number (one of
    `for_each` by the name that it gets).
    """
    names = []
    for part in location:
        if part == "stages":
            node = _written_out(node)
            names.append(str(part))
            continue
        try:
            node = node[part] if isinstance(node, list | dict) else None
        except (LookupError, TypeError):  # a part that is pydantic's own, or is not there
            node = None
        name = node.get("name") if isinstance(part, int) and isinstance(node, dict) else None
        names.append(name if isinstance(name, str) else str(part))
    return names


def _written_out(parent: Any) -> Any:
    """The stages below a node as they are counted: one with `for_each` is several."""
    stages = parent.get("stages") if isinstance(parent, dict) else None
    try:
        return expand_stages(stages)
    except (ValueError, TypeError, AttributeError):
        return None


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Valid keys of the settings class that a location below `model` leads to."""
    parts = iter(location)
    for part in parts:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a name that the recipe's author chose
        model = next(c for c in _classes_in(annotation) if issubclass(c, BaseModel))
    return list(model.model_fields)


def _classes_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _classes_in(part)]
