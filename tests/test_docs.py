"""Documents: tables come from results, links lead somewhere, the example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "LOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_documents_tables_are_those_of_the_results():
    result = run("docs/make_tables.py", "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_every_setting_is_documented():
    from rim.config import BlocksConfig, Recipe, StageConfig, TemplatesConfig

    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for settings in (Recipe, StageConfig, BlocksConfig, TemplatesConfig):
        for name in settings.model_fields:
            assert f"`{name}" in text or f".{name}" in text, f"{settings.__name__}.{name}"


def test_the_minimal_loop_runs():
    result = run("examples/minimal_loop.py", "--steps", "2", "--batch-size", "4")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("right answers after block 1, 2, 3") == 2


def test_the_minimal_loop_stays_minimal():
    lines = (ROOT / "examples" / "minimal_loop.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200


def test_the_encoding_benchmark_ends_with_one_json_line():
    import json

    result = run("benchmarks/encoding.py")
    assert json.loads(result.stdout.splitlines()[-1])["speedup"] > 0
