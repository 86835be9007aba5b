"""The GSM8K comparison for one GPU: its recipe, on files of GSM8K's formats and a tiny base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rim.cli import app
from rim.study.compare.plan import resolve_runs, training_steps
from rim.study.compare.settings import load_comparison

RECIPE = Path(__file__).parents[1] / "recipes" / "compare_gsm8k.yaml"


def write_files(folder: Path) -> None:
    """Training and test files in the four sets' own formats."""

    def problem(i: int) -> dict:
        worked = f"He has {i}+2 = <<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}"
        return {"question": f"Tom has {i} apples and buys 2. How many has he?", "answer": worked}

    lines = {
        "gsm8k_train.jsonl": [problem(i) for i in range(340)],
        "gsm8k_test.jsonl": [problem(i) for i in range(400, 404)],
        "gsm_hard.jsonl": [
            {"input": f"What is {i} million and 2?", "target": i * 1e6 + 2} for i in range(4)
        ],
    }
    for name, rows in lines.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    svamp = [
        {"Body": "Ann has 3 pens.", "Question": f"And {i} more?", "Answer": 3 + i} for i in (1, 2)
    ]
    (folder / "svamp.json").write_text(json.dumps(svamp))


def test_all_methods_have_the_same_steps_and_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("RIM_DATA", str(tmp_path))
    runs = resolve_runs(load_comparison(RECIPE))
    assert len(runs) == 4 * 3
    assert {training_steps(run.recipe) for run in runs} == {(336, 336 * 128)}
    for run in runs:
        assert run.recipe.data.validation is None and run.recipe.data.holdout == 300
        assert "test" not in Path(run.recipe.data.train.path or "").name


@pytest.mark.slow
def test_a_trial_goes_the_whole_way(tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.setenv("RIM_DATA", str(tmp_path))
    monkeypatch.setenv("RIM_BATCH", "4")
    changes = {
        "runs_dir": str(tmp_path / "runs"),
        "common.model": "{tuning: full, scratch: {layers: 2, width: 32, heads: 2}}",
        "common.validation.num_examples": 4,
        "common.validation.max_new_tokens": 4,
        "evaluation.max_new_tokens": 8,
        "latency.questions": 1,
    }
    words = [f"--set={key}={value}" for key, value in changes.items()]
    out = tmp_path / "result.json"
    arguments = ["--steps", "4", "--seeds", "0", "--only", "rim_blind", "--out", str(out)]
    result = CliRunner().invoke(app, ["compare", str(RECIPE), *arguments, *words])
    assert result.exit_code == 0, result.output
    row = json.loads(out.read_text())["tasks"]["gsm8k"]["methods"]["rim_blind"]
    assert row["steps"]["mean"] == 4 and row["examples"]["mean"] == 16
    assert set(row["extra_tests"]) == {"gsm_hard", "svamp"}
    assert (tmp_path / "runs" / "compare_gsm8k-4steps").is_dir()
