"""A task of one's own, as `docs/tasks.md` writes it, added to a copy of the library."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "docs" / "tasks.md").read_text("utf-8").partition("## A task of your own\n")[2]


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return found


@pytest.fixture
def edited(tmp_path):
    """A copy of the library with the file and the edits of the page."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/rim/data/tasks/largest_so_far.py").write_text(block("python"), "utf-8")
    apply = ["git", "apply", "-"]
    subprocess.run(apply, cwd=tmp_path, input=block("diff"), text=True, check=True)
    return tmp_path


def rim(folder, *words):
    code = "from rim.cli import app; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_task_of_the_page_is_generated_and_its_knobs_are_checked(edited):
    (command,) = re.findall(r"`rim (data generate\s+largest_so_far [^`]*)`", SECTION)
    made = rim(edited, *command.split())
    assert made.returncode == 0, made.stderr
    lines = (edited / "test.jsonl").read_text("utf-8").splitlines()
    assert lines[0] in SECTION and len(lines) == 2000
    for record in map(json.loads, lines):
        digits = record["question"].rstrip("=").split()
        assert record["answer"] == max(digits) == record["steps"][-1]
        assert 4 <= len(digits) == len(record["steps"]) + 1 <= 6
    wrong = rim(edited, *command.split(), "--overwrite", "--set", "min_digits=9")
    assert wrong.returncode == 2 and "max_digits must be >= min_digits" in wrong.stderr
    unknown = rim(edited, *command.split(), "--overwrite", "--set", "min_digit=3")
    assert unknown.returncode == 2 and "did you mean 'min_digits'" in unknown.stderr
