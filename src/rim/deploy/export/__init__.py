"""A trained run becomes a folder that any engine serves.

from rim.deploy import export
report = export.export_run("runs/demo-seed0/rim", "exported")

Names are loaded when first used: reading an export's record needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rim.deploy.export.exporting import ExportReport, export_run
    from rim.deploy.export.pushing import plan_push, push

__all__ = ["ExportReport", "export_run", "plan_push", "push"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rim.deploy.export' has no attribute {name!r}")
    module = "pushing" if "push" in name else "exporting"
    return getattr(importlib.import_module(f"rim.deploy.export.{module}"), name)
