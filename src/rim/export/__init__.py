"""A trained run becomes a folder that any engine serves.

from rim import export
report = export.export_run("runs/demo-seed0/rim", "exported")
"""

from rim.export.exporting import ExportReport, export_run
from rim.export.push import plan_push, push

__all__ = ["ExportReport", "export_run", "plan_push", "push"]
