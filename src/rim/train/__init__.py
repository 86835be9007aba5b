"""Training. `rim.train(recipe)` is the function, and so is this package: once anything of it has
been imported, Python puts the package in the place of the function of the same name.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from rim.train.curriculum import train

        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
