"""Settings of a study: a comparison, and the axes along which it is repeated."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Set
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from rim.config import ConfigError, Settings
from rim.config.base import Folder, NonNegativeInt, PositiveInt
from rim.config.recipe_yaml import apply_override, read_recipe, settings_from_dict
from rim.study.compare.settings import Comparison, Name
from rim.study.compare.trial import trial

Value = int | float | str
Point = dict[str, Value]
_FOLDER = Path(__file__).parent


class Axis(Settings):
    """One thing that changes from point to point.

    setting: the comparison's settings that take the value, written as for `--set`.
    values: what they take, one after the other.
    methods: the methods that it changes; the others are trained at its first value only. None: all.
    """

    setting: tuple[str, ...]
    values: Annotated[tuple[Value, ...], Field(min_length=1)]
    methods: tuple[Name, ...] | None = None

    @field_validator("setting", mode="before")
    @classmethod
    def _one_or_more(cls, setting: Any) -> Any:
        return [setting] if isinstance(setting, str) else setting

    @field_validator("values")
    @classmethod
    def _differ(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        folders = [_slug(value) for value in values]
        if len(set(folders)) < len(folders):
            raise ValueError(f"values repeat, or differ in signs alone: {list(values)}")
        return values


class Study(Settings):
    """A comparison (as for `rim compare`, without name, folder and seeds) at every point of a grid.

    question: what the study asks, in a sentence; it stands above the table.
    enough: the accuracy from which a number of steps counts as learned.
    steps: a trial of so many optimizer steps for each method (`rim.study.compare.trial`), in a
        folder of its own.
    """

    name: Name
    question: str
    runs_dir: Folder = "runs"
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    enough: Annotated[float, Field(gt=0, le=1)] = 0.9
    steps: PositiveInt | None = None
    axes: Annotated[dict[Name, Axis], Field(min_length=1)]
    comparison: dict[str, Any]

    @field_validator("comparison")
    @classmethod
    def _no_own_keys(cls, comparison: dict[str, Any]) -> dict[str, Any]:
        for key in ("name", "runs_dir", "seeds"):
            if key in comparison:
                raise ValueError(f"{key!r} belongs to the study, not to its comparison")
        return comparison

    @property
    def folder(self) -> Path:
        trial = f"-{self.steps}steps" if self.steps else ""
        return Path(self.runs_dir) / f"{self.name}{trial}"

    def points(self) -> Iterator[Point]:
        """Every point of the grid, the last axis changing fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes.values())):
            yield dict(zip(self.axes, values, strict=True))

    def methods_at(self, point: Point) -> list[str]:
        """The methods that are trained there: no method twice under the same settings."""
        return [
            name
            for name, method in self.comparison.get("methods", {}).items()
            if method is not None
            and all(
                axis.methods is None or name in axis.methods or point[key] == axis.values[0]
                for key, axis in self.axes.items()
            )
        ]

    def at(self, point: Point) -> Comparison | None:
        """The comparison of one point; None where no method is trained.

        Raises:
            ConfigError: a setting of the comparison is wrong there, an axis names no method, or a
                trial has fewer steps than a method has stages.
        """
        known = self.comparison.get("methods") or {}
        for key, axis in self.axes.items():
            for name in axis.methods or ():
                if name not in known:
                    raise ConfigError(
                        f"axes.{key}.methods: no {name!r} here, there are {', '.join(known)}"
                    )
        kept = self.methods_at(point)
        if not kept:
            return None
        raw = deepcopy(self.comparison)
        for key, axis in self.axes.items():
            for setting in axis.setting:
                apply_override(raw, f"{setting}={json.dumps(point[key])}")
        raw["methods"] = {name: raw["methods"][name] for name in kept}
        _leave_out(raw, set(known) - set(kept))
        if raw.get("reference", "rim") not in kept:
            raw["reference"] = kept[0]
        own = {"name": point_name(point), "runs_dir": str(self.folder), "seeds": self.seeds}
        found = settings_from_dict(Comparison, raw | own, f"{self.name} at {point_name(point)}")
        if self.steps:
            found = trial(found, self.steps).model_copy(update={"name": found.name})
        return found


def _leave_out(raw: dict[str, Any], gone: Set[str]) -> None:
    """What the comparison says of methods that a point does not train. Names that no method has
    stay, to be refused.
    """
    for method in raw["methods"].values():
        if isinstance(method, dict) and method.get("control_of") in gone:
            del method["control_of"]
    if exempt := (raw.get("budget") or {}).get("exempt"):
        raw["budget"]["exempt"] = {name: why for name, why in exempt.items() if name not in gone}
    if groups := (raw.get("selection") or {}).get("candidates"):
        left = {group: [n for n in names if n not in gone] for group, names in groups.items()}
        raw["selection"]["candidates"] = {group: names for group, names in left.items() if names}


def point_name(point: Point) -> str:
    """`layers-2_blocks-5`: the folder of a point."""
    return "_".join(f"{key}-{_slug(value)}" for key, value in point.items())


def _slug(value: Value) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", ".", str(value))


def known_studies() -> list[str]:
    """Names of the studies that come with the library."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_study(name: str, overrides: tuple[str, ...] = ()) -> Study:
    """A study that comes with the library, by its name, or one in a YAML file.

    Raises:
        ConfigError: there is none of this name, or its settings are wrong.
    """
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        if name not in known_studies():
            raise ConfigError(
                f"no study {name!r}: there are {', '.join(known_studies())}, "
                "and YAML files of your own"
            )
        file = _FOLDER / f"{name}.yaml"
    raw = read_recipe(file, overrides)
    if "axes" not in raw and "methods" in raw:
        raise ConfigError(f"{file} is one comparison: use `rim compare {file}`")
    return settings_from_dict(Study, raw, str(file))
