"""Documents: tables come from results, links lead somewhere, the example runs."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "CONTRIBUTING.md", "LOG.md", "CHANGELOG.md", "results/README.md")
DOCUMENTS = [*(ROOT / name for name in BESIDE), *sorted((ROOT / "docs").glob("*.md"))]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, *arguments], cwd=ROOT)


def test_the_documents_tables_are_those_of_the_results():
    result = run("docs/make_tables.py", "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_documents_pictures_are_those_that_the_code_draws():
    result = run("docs/figures/make.py", "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_of_the_repository_that_are_named_exist(document):
    if document.name in ("LOG.md", "CHANGELOG.md"):
        return  # they tell what was
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|docs|recipes|examples|benchmarks|rim)/[\w/.-]*\w)/?`", text)
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "src" / name).exists(), name


def test_every_result_has_the_command_that_made_it():
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / "results" / "README.md").read_text(), re.M)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    patterns = [name for name in named if not name.startswith(".")]
    for file in (ROOT / "results").glob("*.json"):
        assert any(file.match(pattern) for pattern in patterns), file.name


def test_every_setting_is_documented():
    from rim.config import MemoryConfig, Recipe, StageConfig, TemplatesConfig

    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for settings in (Recipe, StageConfig, MemoryConfig, TemplatesConfig):
        for name in settings.model_fields:
            assert f"`{name}" in text or f".{name}" in text, f"{settings.__name__}.{name}"


def test_every_setting_of_a_comparison_is_documented():
    from pydantic import BaseModel

    from rim.study.compare.settings import (
        BudgetSettings,
        Comparison,
        ControlSettings,
        EvaluationSettings,
        LatencySettings,
        MethodSettings,
        SelectionSettings,
        StartSettings,
        TaskSettings,
    )

    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    for name in Comparison.model_fields:
        assert f"`{name}" in text, name
    parts: dict[str, type[BaseModel]] = {
        "tasks": TaskSettings,
        "starts": StartSettings,
        "methods": MethodSettings,
        "budget": BudgetSettings,
        "evaluation": EvaluationSettings,
        "latency": LatencySettings,
        "controls": ControlSettings,
        "selection": SelectionSettings,
    }
    described = {n: "".join(re.findall(rf"^\| `{n}\b.*$", text, re.MULTILINE)) for n in parts}
    for part, settings in parts.items():
        for name, field in settings.model_fields.items():
            if part in ("starts", "methods") and name == "recipe":
                continue  # never written: its keys stand beside `from`
            assert re.search(rf"[`.]{field.alias or name}\b", described[part]), f"{part}.{name}"
    nested = {
        cls.__name__
        for field in Comparison.model_fields.values()
        for cls in _settings_in(field.annotation)
    }
    assert nested == {settings.__name__ for settings in parts.values()}, "a part is not looked at"


def _settings_in(annotation):
    """The settings classes that an annotation is made of."""
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _settings_in(part)]


@pytest.mark.slow
def test_the_examples_of_tasks_are_what_the_commands_write(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from rim.cli import app

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    pairs = re.findall(r"```bash\nrim (.*)\n```\n\n```json\n(.*)\n```", text)
    assert len(pairs) == 9
    for command, line in pairs:
        assert CliRunner().invoke(app, [*command.split(), "--overwrite"]).exit_code == 0
        assert Path("test.jsonl").read_text(encoding="utf-8").splitlines()[0] == line


def test_every_knob_of_a_task_is_documented():
    from rim.config import DataSource
    from rim.data.sources import GENERATORS

    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    for task in GENERATORS:
        assert f"## {task}" in text
        for knob in DataSource.model_fields[task].annotation.model_fields:
            assert f"`{knob}`" in text, f"{task}.{knob}"


@pytest.mark.slow
def test_the_minimal_loop_runs(monkeypatch, capsys):
    file = str(ROOT / "examples" / "minimal_loop.py")
    monkeypatch.setattr(sys, "argv", [file, "--steps", "2", "--batch-size", "4"])
    runpy.run_path(file, run_name="__main__")
    assert capsys.readouterr().out.count("right answers after block 1, 2, 3") == 2


def test_the_minimal_loop_stays_minimal():
    lines = (ROOT / "examples" / "minimal_loop.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200


def test_the_encoding_benchmark_ends_with_one_json_line(monkeypatch, capsys):
    import json

    import encoding

    monkeypatch.setattr(encoding, "EXAMPLES", 300)
    monkeypatch.setattr(encoding, "REPEATS", 1)
    encoding.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["speedup"] > 0


def test_the_benchmark_of_answer_parsers_finds_what_the_document_says(tmp_path):
    import json

    file = tmp_path / "test.jsonl"
    records = ({"question": "q", "answer": answer} for answer in ("7", "1,250", "-0.5", "2e-06"))
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    forms = json.loads(run("benchmarks/answer_parsers.py", str(file)).stdout)["forms"]
    published = json.loads((ROOT / "results" / "answer_parsers.json").read_text(encoding="utf-8"))
    differing = {form for form, row in forms.items() if row["disagreements"]}
    assert differing == {form for form, row in published["forms"].items() if row["disagreements"]}


@pytest.mark.slow
def test_the_shortcuts_benchmark_repeats_its_published_figures():
    import json

    published = json.loads((ROOT / "results" / "graph_shortcuts.json").read_text(encoding="utf-8"))
    result = run("benchmarks/graph_shortcuts.py", "--seed", str(published["seed"]))
    assert json.loads(result.stdout.splitlines()[-1])["graph_search"] == published["graph_search"]
