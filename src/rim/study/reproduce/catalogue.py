"""Which reproductions there are, by name (`gpt2/rim`), and what is expected of each."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rim.config import ConfigError, Recipe, Settings
from rim.config.recipe_yaml import load_recipe, settings_from_dict

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parents[3] / "recipes" / "paper"
#: The recipes: those of a checkout, or those that a wheel carries.
RECIPES = _CHECKOUT if _CHECKOUT.is_dir() else _HERE / "recipes"


class Figure(Settings):
    """A figure that somebody reports; in percent."""

    test: str
    which: Literal["final", "any_block"] = "final"
    values: tuple[float, ...]
    source: str
    mark: Literal["p", "n", "peer"]


class Sizes(Settings):
    """Of a model: what its memory and time are computed from. query and key_value: widths of all
    heads together.
    """

    layers: int
    width: int
    query: int
    key_value: int
    feed_forward: int
    gated: bool
    vocabulary: int


class Expected(Settings):
    margin: float
    tests: dict[str, dict[str, Any]]
    figures: dict[str, dict[str, tuple[Figure, ...]]]
    sizes: dict[str, Sizes]


@dataclass(frozen=True)
class Entry:
    """One reproduction."""

    base: str
    method: str

    @property
    def name(self) -> str:
        return f"{self.base}/{self.method}"

    @property
    def file(self) -> Path:
        return RECIPES / self.base / f"{self.method}.yaml"

    @property
    def run_name(self) -> str:
        """The recipe's `name`, a test holds them to it."""
        return f"paper_{self.base}_{self.method}"

    def recipe(self) -> Recipe:
        return _recipe(self.file)

    @property
    def figures(self) -> tuple[Figure, ...]:
        return expected().figures[self.base].get(self.method, ())

    @property
    def sizes(self) -> Sizes:
        return expected().sizes[self.base]


@functools.cache
def expected() -> Expected:
    text = (_HERE / "expected.yaml").read_text(encoding="utf-8")
    return settings_from_dict(Expected, yaml.safe_load(text), "expected.yaml")


def interval(figure: Figure) -> tuple[float, float]:
    """Between which percentages a repetition is expected; see `expected.yaml`."""
    margin = expected().margin
    return min(figure.values) - margin, max(figure.values) + margin


def entries() -> list[Entry]:
    """All reproductions, base by base; the paper's methods before those of its peers."""
    order = ("direct", "cot", "coconut", "rim", "rim_own_step")
    found = [
        Entry(file.parent.name, file.stem)
        for file in RECIPES.glob("*/*.yaml")
        if file.stem != "base" and file.parent.name != "methods"
    ]
    last = len(order)
    place = {method: i for i, method in enumerate(order)}
    return sorted(found, key=lambda e: (e.base, place.get(e.method, last), e.method))


def find(name: str) -> Entry:
    """
    Raises:
        ConfigError: no reproduction has this name; the message has the nearest.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no reproduction {name!r}; {hint}`rim reproduce --list` has all names")
    return known[name]


def start_of(recipe: Recipe) -> Entry | None:
    """The reproduction whose run this recipe starts from, if it does."""
    names = {str(Path("runs") / other.run_name): other for other in entries()}
    return names.get(recipe.model.base or "")


@functools.cache
def _recipe(file: Path) -> Recipe:
    return load_recipe(file)
