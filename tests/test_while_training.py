"""What a run shows while it trains and leaves behind: curves, time left, a closing summary."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_cli import rim_command, rim_json
from test_training import raw_recipe

import rim.train.callbacks
from rim.config.recipe_yaml import recipe_from_dict
from rim.evaluate.statistics import wilson_interval
from rim.report.curves import curves_svg, read_curves
from rim.results import write_json
from rim.train.callbacks import Curves, draw_curves
from rim.train.curriculum import train
from rim.train.run_folder import RunFolder


def line(stage, step, **values):
    return json.dumps({"stage": stage, "step": step, **values}) + "\n"


def test_stages_stand_in_a_row_and_a_resumed_run_has_the_last_word(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        line("a", 2, token_loss=3.0)
        + line("a", 4, token_loss=9.0)  # killed here, and resumed from step 2
        + line("a", 4, token_loss=2.0)
        + line("a", 4, eval_token_loss=2.5, eval_accuracy=0.25)
        + line("b", 3, eval_accuracy=0.75)
        + line("b", 3, ended="ended after 3 of 5 steps", planned=5)
        + '{"stage": "b", "st'
    )
    curves, ends = read_curves(metrics)
    assert curves["token_loss"] == [(2, 3.0), (4, 2.0)]
    assert curves["eval_accuracy"] == [(4, 0.25), (7, 0.75)]
    assert ends == [("a", 4), ("b", 7)]
    picture = curves_svg("my run", metrics)
    assert picture and picture.startswith("<?xml")
    for text in (
        "my run: learning curves",
        "validation accuracy, %",
        " a<",
        " b<",
        "optimizer step",
    ):
        assert text in picture, text
    assert picture == curves_svg("my run", metrics), "the same numbers give the same bytes"
    metrics.write_text("")
    assert curves_svg("my run", metrics) is None


def test_a_picture_is_drawn_after_a_validation_but_not_after_each(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rim.train.callbacks.time, "monotonic", lambda: now[0])
    run = RunFolder(tmp_path)
    run.metrics_file.write_text(line("a", 1, eval_accuracy=0.5, eval_token_loss=1.0))
    curves, state = Curves(run), SimpleNamespace(is_world_process_zero=True)
    curves.on_evaluate(None, state, None)
    assert not run.curves_file.exists()
    now[0] = 61.0
    curves.on_evaluate(None, state, None)
    assert run.curves_file.exists()
    run.curves_file.unlink()
    now[0] = 100.0
    curves.on_evaluate(None, state, None)
    assert not run.curves_file.exists()


@pytest.mark.slow
def test_validations_say_how_long_the_stage_will_go_on(tmp_path, capsys):
    raw = raw_recipe(tmp_path)
    raw["stages"] = raw["stages"][:1]
    train(recipe_from_dict(raw), console=Console(width=200))
    said = [x for x in capsys.readouterr().out.splitlines() if "validation accuracy" in x]
    assert len(said) == 2
    assert "left of this stage" in said[0] and " s left" in said[0]
    assert "left" not in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_ends_with_one_summary(tmp_path, monkeypatch, as_json):
    monkeypatch.setattr("rim.train.curriculum.draw_curves", draw_curves)
    raw = raw_recipe(tmp_path)
    for stage in raw["stages"]:
        stage["max_steps"] = 2
    write_json(tmp_path / "r.json", raw)
    folder = tmp_path / "runs" / "run"
    if as_json:
        summary = rim_json("train", tmp_path / "r.json", "--json")
        assert summary["run"] == str(folder) and summary["questions"] == 8
        low, high = wilson_interval(round(8 * summary["accuracy"]), 8)
        assert (summary["low"], summary["high"]) == (low, high)
        assert summary["training"]["steps"] == 4
    else:
        output = rim_command("train", tmp_path / "r.json")
        closing = [x.partition(":")[0] for x in output.splitlines()[-6:] if x]
        assert closing[-5:] == ["Validation", "Curves", "Ask it", "Evaluate it", "Export it"]
        assert "of 8 questions" in output and "-" in output
    assert (folder / "curves.svg").read_text().count("grounding") >= 1
    assert "refinement" in (folder / "curves.svg").read_text()
