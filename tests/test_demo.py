"""`rim demo`: it runs, continues where it was stopped, and trains nothing twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_cli import README, plain_console, rim_command, rim_json, work  # noqa: F401

import rim.study.demo as demo


@pytest.fixture
def small(work, monkeypatch):  # noqa: F811
    """A demo of two steps a stage."""
    for name in ("BASE_STEPS", "GROUNDING_STEPS", "REFINEMENT_STEPS", "CHAIN_OF_THOUGHT_STEPS"):
        monkeypatch.setattr(demo, name, 2)
    monkeypatch.setattr(demo, "TEST_QUESTIONS", 30)
    monkeypatch.setattr(demo, "TIMED_QUESTIONS", 2)
    monkeypatch.setattr(demo, "TRAINING_EXAMPLES", 200)
    of_full_size = demo.demo_recipes

    def small_recipes(seed, folder):
        found = of_full_size(seed, folder)
        validation = found["base"].validation.model_copy(update={"num_examples": 8})
        found = {n: r.model_copy(update={"validation": validation}) for n, r in found.items()}
        model = found["base"].model
        scratch = model.scratch.model_copy(update={"layers": 2})
        smaller = {"model": model.model_copy(update={"scratch": scratch})}
        return found | {"base": found["base"].model_copy(update=smaller)}

    monkeypatch.setattr(demo, "demo_recipes", small_recipes)
    return work


@pytest.mark.slow
def test_demo_runs_and_prints_one_json_document(small, monkeypatch):
    result = rim_json("demo", "--seed", 3, "--out", "demo.json")
    assert set(result["methods"]) == {"direct", "cot", "rim"}
    for row in result["methods"].values():
        assert {"accuracy", "ttft_ms", "answer_ms", "tokens"} <= row.keys()
    assert len(result["methods"]["rim"]["per_block"]) == 5
    assert result["seed"] == 3 and result["seconds"] > 0
    assert json.loads(Path("demo.json").read_text())["methods"] == result["methods"]
    # The README's Python lines, on the demo's own model.
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(code.replace("demo-seed0", "demo-seed3"), "README", "exec"), {})
    # Of a finished demo the same command shows the result, to a person and to a program.
    monkeypatch.setattr(demo, "train", lambda *_, **__: pytest.fail("trained again"))
    said = rim_command("demo", "--seed", 3)
    assert "demo-seed3 is finished" in said and "Held-out questions" in said
    assert rim_json("demo", "--seed", 3, "--out", "again.json") == result
    assert Path("again.json").read_text() == Path("demo.json").read_text()
    assert [path.name for path in Path("runs").glob("demo-*")] == ["demo-seed3"]


@pytest.mark.slow
def test_a_stopped_demo_goes_on_and_ends_as_an_unbroken_one(small, monkeypatch):
    unbroken = rim_json("demo", "--runs-dir", "unbroken")
    train, begun = demo.train, []

    def stopped(recipe, **options):
        begun.append((recipe.name, options["resume"]))
        if begun == [("base", False), ("direct", False)]:
            (Path(recipe.runs_dir) / "direct").mkdir()
            (Path(recipe.runs_dir) / "direct" / "config.yaml.partial").touch()
            raise KeyboardInterrupt
        run = train(recipe, **options)
        if begun[-1] == ("cot", False):  # killed as the last stage was done
            run.model_dir.rename(run.path / "model.partial")
            raise KeyboardInterrupt
        return run

    monkeypatch.setattr(demo, "train", stopped)
    assert "The same command continues." in rim_command("demo", code=130)
    assert "The same command continues." in rim_command("demo", code=130)
    said = rim_command("demo")
    assert "Done before: runs/demo-seed0/base/model" in said
    assert begun == [
        ("base", False), ("direct", False), ("direct", False),
        ("cot", False), ("cot", True), ("rim", False),
    ]  # fmt: skip
    result = json.loads(Path("runs/demo-seed0/demo.json").read_text())
    assert result["seconds"] is None and set(result["train_seconds"]) == {"rim"}
    for name, row in unbroken["methods"].items():
        assert row["accuracy"] == result["methods"][name]["accuracy"], name
        curves = "demo-seed0", name, "metrics.jsonl"
        assert losses(Path("runs", *curves)) == losses(Path("unbroken", *curves))


def losses(file):
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [r["loss"] for r in records if "loss" in r]


def test_a_demo_of_other_settings_is_not_continued(small, monkeypatch):
    from rim.config.recipe_yaml import dump_yaml

    folder = Path("runs/demo-seed0")
    recipe = demo.demo_recipes(0, folder)["base"].model_copy(update={"seed": 7})
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.yaml").write_text(dump_yaml(recipe))
    said = rim_command("demo", code=2)
    assert "begun with other settings (seed: 7, now 0); delete runs/demo-seed0" in said
