"""Methods by name, each imported when it is first looked up.

A new one is a file of its own with a subclass of `base.Method`, and a line in `BUILT_IN` or an
entry point of its package.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from rim.methods.base import BenchSetup, ExtraLoss, Method, Readout

#: The methods of this package, in the order of tables; each is `METHOD` of the module of its name.
BUILT_IN = ("direct", "cot", "pause", "icot", "rim", "coconut", "codi", "lotus")

#: Installed packages offer methods under this entry-point group: a name, and its `Method` object.
ENTRY_POINTS = "rim.methods"


class Methods(Mapping[str, Method]):
    """The registry: built-in methods, those registered in this process, those of packages."""

    def __init__(self) -> None:
        self._loaded: dict[str, Method] = {}
        self._offered: dict[str, object] | None = None

    def _offers(self) -> dict[str, object]:
        if self._offered is None:
            self._offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        return self._offered

    def __getitem__(self, name: str) -> Method:
        if name not in self._loaded:
            if name in BUILT_IN:
                self._loaded[name] = importlib.import_module(f"rim.methods.{name}").METHOD
            elif name in self._offers():
                self._loaded[name] = self._offers()[name].load()  # type: ignore[attr-defined]
            else:
                raise KeyError(self.unknown(name))
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in BUILT_IN or name in self._loaded or name in self._offers()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*BUILT_IN, *self._loaded, *self._offers())))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def unknown(self, name: str) -> str:
        """Return the error message for a name that no method has."""
        near = difflib.get_close_matches(name, list(self), 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"no method {name!r}, there are {', '.join(self)}{hint}"

    def register(self, method: Method) -> Method:
        """Make a method known to recipes, training, `rim bench` and the rest of this process.

        Raises:
            ValueError: another method has this name.
        """
        if method.name in self and self[method.name] is not method:
            raise ValueError(f"there is a method {method.name!r} already; choose another name")
        self._loaded[method.name] = method
        return method


METHODS = Methods()
