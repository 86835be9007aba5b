"""rim study: the grid, what is trained where, continuing, the table and the picture."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ET

import pytest
import yaml
from comparisons import QUIET, raw_comparison
from rich.console import Console
from typer.testing import CliRunner

from rim.cli import app
from rim.config import ConfigError
from rim.config.recipe_yaml import settings_from_dict
from rim.report.sweep import study_notes, study_rows, study_svg
from rim.study.compare.plan import make_plan
from rim.study.sweep.running import comparisons_of, reach, run_study, sum_up_study
from rim.study.sweep.settings import Study, known_studies, load_study


def raw_study(tmp_path, **changes):
    """Direct answers once, RiM with two and three blocks."""
    comparison = raw_comparison(tmp_path)
    for key in ("name", "runs_dir", "seeds"):
        del comparison[key]
    comparison["controls"] = {"run": "none"}
    raw = {
        "name": "grid",
        "question": "What is a block worth?",
        "runs_dir": str(tmp_path / "runs"),
        "seeds": [0],
        "axes": {
            "blocks": {"setting": "common.memory.blocks", "values": [3, 2], "methods": ["rim"]}
        },
        "comparison": comparison,
    }
    return raw | changes


def settings_of(raw):
    return settings_from_dict(Study, raw, "study")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = settings_of(raw_study(tmp_path_factory.mktemp("study")))
    result, failures = run_study(study, QUIET)
    assert not failures
    return study, result


@pytest.mark.slow
def test_an_axis_repeats_the_methods_that_it_changes_and_no_others(finished):
    study, result = finished
    places = [(cell["method"], cell["at"]["blocks"]) for cell in result["cells"]]
    assert sorted(places) == [("direct", 3), ("rim", 2), ("rim", 3)]
    blocks = {
        point["blocks"]: {run.recipe.memory.blocks for run in make_plan(comparison)}
        for point, comparison in comparisons_of(study)
    }
    assert blocks == {3: {3}, 2: {2}}
    per_block = {
        c["at"]["blocks"]: len(c["per_block"]) for c in result["cells"] if "per_block" in c
    }
    assert per_block == {3: 3, 2: 2}


def test_a_trial_has_a_folder_of_its_own_and_so_many_steps(finished, tmp_path, monkeypatch):
    study, _ = finished
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json")))
    seen = []

    def perform(settings, run, console):
        seen.append((run.name, run.recipe.runs_dir, sum(s.max_steps for s in run.recipe.stages)))
        raise ConfigError("stopped here")

    monkeypatch.setattr("rim.study.compare.runner.perform", perform)
    monkeypatch.setattr(
        "rim.study.compare.runner.aggregate", lambda *_: {"tasks": {}, "missing": []}
    )
    ended = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["study", str(file), "--steps", "4"])
    # A start is a run, too: one at each of the two points.
    assert "grid: 2 points, 5 runs of 4 training steps (5 to do: 20 steps)" in ended.output
    folder = f"{study.runs_dir}/grid-4steps"
    assert seen == [
        (f"chains/{name}-seed0", f"{folder}/blocks-{blocks}/chains", 4)
        for blocks, name in ((3, "base"), (2, "base"))
    ]
    assert study.folder.name == "grid"


def test_a_trial_too_short_for_the_stages_is_refused(finished):
    study, _ = finished
    with pytest.raises(ConfigError, match="stages"):
        comparisons_of(study.model_copy(update={"steps": 1}))


def test_a_study_says_first_what_it_takes(finished, monkeypatch, capsys):
    study, _ = finished
    run_study(study, Console(width=200))
    said = capsys.readouterr().out
    assert said.startswith("grid: 2 points, 5 runs of 2 to 6 training steps (0 to do: 0 steps).")


def test_a_finished_study_trains_nothing_again(finished, monkeypatch):
    study, result = finished
    monkeypatch.setattr("rim.study.compare.runner.perform", lambda *_: pytest.fail("trained again"))
    again, _ = run_study(study, QUIET)
    assert again["cells"] == result["cells"] == sum_up_study(study)["cells"]


def test_the_table_and_the_picture_show_every_cell(finished):
    _, result = finished
    heading, rows = study_rows(result, "chains")
    assert heading == ["method", "blocks", "2 steps", "3 steps", "4 steps", "all", "learned up to"]
    assert [row[:2] for row in rows] == [["direct", "-"], ["rim", "3"], ["rim", "2"]]
    for row, cell in zip(rows, (result["cells"][i] for i in (0, 1, 2)), strict=True):
        assert row[5] == f"{100 * cell['final']['mean']:.1f}"
    texts = [t.text for t in ET.fromstring(study_svg(result, "chains")).iter() if t.text]
    assert {"direct", "rim", "blocks 3", "blocks 2"} <= {text.strip() for text in texts}


def test_rows_of_fewer_seeds_are_marked(finished):
    _, result = finished
    short = copy.deepcopy(result)
    short["seeds"] = [0, 1]
    _, rows = study_rows(short, "chains")
    assert all(row[-2].endswith(" (1)") for row in rows)
    assert any("Of fewer seeds so far" in note for note in study_notes(short))
    assert not any("fewer" in note for note in study_notes(result))


def test_reach_ends_at_the_first_number_of_steps_that_is_not_learned():
    rows = [{"steps": n, "mean": mean} for n, mean in ((3, 0.5), (1, 1.0), (2, 0.9), (4, 1.0))]
    assert reach(rows, 0.9) == 2
    assert reach(rows, 0.95) == 1
    assert reach(rows[:1], 0.9) == 0


@pytest.mark.parametrize("name", known_studies())
def test_every_point_of_the_studies_that_come_along_can_be_trained(name):
    points = comparisons_of(load_study(name))
    assert len(points) > 1
    for _, comparison in points:
        assert make_plan(comparison)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"blocks": {"setting": "common.memory.blocks", "values": []}}}, "axes.blocks"),
        (
            {"axes": {"blocks": {"setting": "common.memory.blocks", "values": [2, 2]}}},
            "values repeat",
        ),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(raw_study(tmp_path, **change))


def test_an_axis_names_methods_that_exist(tmp_path):
    raw = raw_study(tmp_path)
    raw["axes"]["blocks"]["methods"] = ["rims"]
    with pytest.raises(ConfigError, match="no 'rims' here, there are direct, rim"):
        comparisons_of(settings_of(raw))


def test_a_setting_that_does_not_exist_is_told_with_its_point(tmp_path):
    raw = raw_study(tmp_path)
    raw["axes"]["blocks"]["setting"] = "common.memory.block"
    with pytest.raises(ConfigError, match=r"grid at blocks-3.*unknown key|unknown key"):
        for _, comparison in comparisons_of(settings_of(raw)):
            make_plan(comparison)


def test_the_command_sums_up_what_is_finished(finished, tmp_path, monkeypatch):
    study, result = finished
    file, out = tmp_path / "grid.yaml", tmp_path / "grid.json"
    raw = yaml.safe_load(yaml.safe_dump(study.model_dump(mode="json")))
    file.write_text(yaml.safe_dump(raw))
    ended = CliRunner().invoke(app, ["study", str(file), "--table-only", "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert json.loads(out.read_text())["cells"] == result["cells"]
    assert "What is a block worth?" in ended.output
    assert out.with_name("grid-chains.svg").exists()


def test_a_point_with_nothing_finished_is_missing(finished, tmp_path):
    study, _ = finished
    away = tmp_path / "away"
    (study.folder / "blocks-2").rename(away)
    try:
        result = sum_up_study(study)
    finally:
        away.rename(study.folder / "blocks-2")
    assert result["missing"] == ["blocks-2/chains/rim-seed0"]


def test_what_is_said_of_a_method_goes_where_the_method_goes(tmp_path):
    raw = raw_study(tmp_path)
    raw["comparison"]["budget"] = {"exempt": {"direct": "it has no stages of its own"}}
    raw["comparison"]["methods"]["rim"]["control_of"] = "direct"
    raw["comparison"]["selection"] = {"held_out": 5, "candidates": {"one": ["rim", "direct"]}}
    first, second = (comparison for _, comparison in comparisons_of(settings_of(raw)))
    assert set(first.budget.exempt) == {"direct"} and not second.budget.exempt
    assert first.methods["rim"].control_of == "direct"
    assert second.methods["rim"].control_of is None
    assert second.selection.candidates == {"one": ("rim",)}
    raw["comparison"]["budget"] = {"exempt": {"dirct": "a name that no method has"}}
    with pytest.raises(ConfigError, match="dirct"):
        list(comparisons_of(settings_of(raw)))


def test_an_unknown_study_names_those_that_there_are():
    ended = CliRunner().invoke(app, ["study", "hight"])
    assert ended.exit_code == 2
    assert "there are depth, width" in ended.output
