"""Rules of the house: imports run downwards, files stay readable."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rim"

#: The packages from the ground up: a package imports those before it and none behind it.
FLOORS = (
    "results",
    "methods",
    "config",
    "locks",
    "data",
    "core",
    "models",
    "infer",
    "report",
    "train",
    "evaluate",
    "deploy",
    "prepare",
    "study",
    "cli",
)
LEVEL = {package: level for level, package in enumerate(FLOORS)}


def imports_of(path: Path) -> set[str]:
    """Packages of `rim` that a file imports, late imports included, those for types alone not."""
    found = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rim."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("rim.")}
    return found


@functools.cache
def modules() -> dict[str, set[str]]:
    """Imports of every module or package directly below `rim`."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, set()).update(imports_of(path) - {name})
    return found


def test_imports_run_downwards():
    found = modules()
    assert set(found) == set(LEVEL), "a new module needs a layer"
    wrong = [
        f"{name} imports {other}"
        for name, others in found.items()
        for other in others
        if LEVEL[other] > LEVEL[name]
    ]
    assert not wrong


def test_no_module_imports_in_a_circle():
    found = modules()
    done: set[str] = set()
    while len(done) < len(found):
        ready = {name for name, others in found.items() if name not in done and others <= done}
        assert ready, f"a circle among {set(found) - done}"
        done |= ready


def test_the_report_reads_results_only():
    assert not modules()["report"]
    for path in (SOURCE / "report").glob("*.py"):
        assert "torch" not in path.read_text(encoding="utf-8")


def test_files_stay_readable_in_one_sitting():
    long = [
        p for p in SOURCE.rglob("*.py") if len(p.read_text(encoding="utf-8").splitlines()) > 320
    ]
    assert not long


def test_the_packages_of_the_library_hide_none_of_its_public_names():
    """`rim.train` is a package; a function of that name is gone once anything imports it."""
    import rim

    assert not set(rim.__all__) & {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert all(callable(getattr(rim, name)) for name in rim.__all__ if name != "__version__")
