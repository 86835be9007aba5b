"""rim compare never mixes: what finished runs were made with, against what is asked for now."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from test_cli import plain_console, rim_command  # noqa: F401
from test_compare import QUIET, raw_comparison, settings_of, write

import rim.study.compare.measure as measure
from rim.config import ConfigError
from rim.data.examples import DataError
from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import make_plan
from rim.study.compare.recorded import refuse_changes
from rim.study.compare.runner import run_comparison, sum_up
from rim.study.compare.settings import load_comparison

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A comparison that is done; no test may leave it changed."""
    settings = settings_of(tmp_path_factory.mktemp("finished"))
    result, failures = run_comparison(settings, QUIET)
    assert not failures
    return settings, result


@pytest.fixture
def untrained(monkeypatch):
    """Training anything would fail."""
    monkeypatch.setattr(measure, "train", None)


def changed(settings, tmp_path, *overrides):
    path = write(tmp_path, settings.model_dump(mode="json", by_alias=True))
    return load_comparison(path, overrides)


def run_named(settings, name):
    return next(run for run in make_plan(settings) if run.name == f"chains/{name}-seed0")


NEW_BASE = "starts.base.stages.solutions.max_steps=3"


def test_a_changed_start_is_refused_though_every_method_is_done(finished, tmp_path, untrained):
    settings, _ = finished
    other = changed(settings, tmp_path, NEW_BASE)
    for summed in (lambda: run_comparison(other, QUIET), lambda: sum_up(other)):
        with pytest.raises(ConfigError, match=r"stages.0.max_steps: 2, now 3") as refused:
            summed()
        for name in ("base", "direct", "rim"):  # all that must go, at once
            assert str(run_named(settings, name).folder.path) in str(refused.value)
    # Without the start's folder its methods still know what they began with.
    run = run_named(other, "rim")
    with pytest.raises(ConfigError, match=r"rim-seed0.json was made with another start_recipe"):
        refuse_changes(other, [run])


def test_a_model_from_an_earlier_start_is_not_measured_beside_a_new_one(tmp_path):
    settings = settings_of(tmp_path)
    run_comparison(settings, QUIET)
    other = changed(settings, tmp_path, NEW_BASE)
    for run in make_plan(settings):
        if run.method == "base":
            shutil.rmtree(run.folder.path)
        else:
            run.result.unlink()
    with pytest.raises(ConfigError, match="direct-seed0 was trained from another start"):
        run_comparison(other, QUIET)
    run_named(settings, "direct").start_file.unlink()
    with pytest.raises(ConfigError, match="did not record its start"):
        run_comparison(other, QUIET)


def test_a_result_of_an_earlier_version_is_refused_with_what_to_delete(finished, untrained):
    settings, _ = finished
    run = run_named(settings, "rim")
    text = run.result.read_text()
    record = json.loads(text)
    del record["start_recipe"]
    run.result.write_text(json.dumps(record))
    try:
        with pytest.raises(ConfigError, match="did not record its start_recipe") as refused:
            run_comparison(settings, QUIET)
    finally:
        run.result.write_text(text)
    assert f"delete {run.result} {run.folder.path} and start it again" in str(refused.value)


def test_a_result_from_before_a_setting_existed_is_one_with_its_default(finished):
    settings, _ = finished
    run = run_named(settings, "rim")
    text = run.result.read_text()
    record = json.loads(text)
    del record["recipe"]["model"]["trust_remote_code"]
    del record["start_recipe"]["model"]["scratch"]["initializer_range"]
    run.result.write_text(json.dumps(record))
    try:
        refuse_changes(settings, [run])
    finally:
        run.result.write_text(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.chains.test.arithmetic.num_examples=15", "another tests"),
        ("evaluation.max_new_tokens=5", "another evaluation"),
    ],
)
def test_changed_measurements_cost_the_results_alone(
    finished, tmp_path, untrained, override, message
):
    settings, _ = finished
    with pytest.raises(ConfigError, match=message) as refused:
        run_comparison(changed(settings, tmp_path, override), QUIET)
    for name in ("direct", "rim"):
        run = run_named(settings, name)
        assert str(run.result) in str(refused.value)
        assert str(run.folder.path) not in str(refused.value).split()


def test_only_and_table_only_refuse_what_a_whole_comparison_would(finished, tmp_path, untrained):
    settings, _ = finished
    other = changed(settings, tmp_path, "methods.rim.recipe.stages.refinement.learning_rate=5e-4")
    with pytest.raises(ConfigError, match=r"rim-seed0.json was made with another recipe"):
        run_comparison(other, QUIET, only=["direct"])
    path = write(tmp_path, other.model_dump(mode="json", by_alias=True))
    assert "another recipe" in rim_command("compare", path, "--table-only", code=2)
    for options in (["--only", "rim"], ["--jobs", "2"]):
        output = rim_command("compare", path, "--table-only", *options, code=2)
        assert "leave out --only and --jobs" in output


def test_changed_controls_are_made_again_without_training(finished, tmp_path, untrained):
    settings, before = finished

    def lines(result):
        return [v["line"] for v in result["tasks"]["chains"]["controls"]]

    fewer = changed(settings, tmp_path, "controls.questions=10")
    with pytest.raises(ConfigError, match="controls measured with other settings"):
        sum_up(fewer)
    result, _ = run_comparison(fewer, QUIET)
    assert "(10 questions, 1 seed," in lines(result)[0]
    assert lines(sum_up(fewer)) == lines(result)
    none, _ = run_comparison(changed(settings, tmp_path, "controls.run=none"), QUIET)
    assert lines(none) == []
    again, _ = run_comparison(settings, QUIET)
    assert again["tasks"] == before["tasks"]


def test_latencies_measured_otherwise_are_not_summed_up(finished, tmp_path):
    settings, _ = finished
    with pytest.raises(ConfigError, match="latency measured with other settings"):
        sum_up(changed(settings, tmp_path, "latency.questions=3"))


def test_a_comparison_says_what_its_runs_were_made_of(finished):
    settings, result = finished
    task = result["tasks"]["chains"]
    records = [json.loads(p.read_text()) for p in settings.folder.glob("results/*/*.json")]
    assert len(records) == 2
    for record in records:
        assert task["data"]["tests"]["test"] == record["results"]["test"]["data"]
        assert task["data"]["train"] == [record["trained"]["data"]["train"]]
        assert task["data"]["validation"] == [record["trained"]["data"]["validation"]]
        assert (record["environment"]["git_commit"] or "unknown") in task["commits"]
    assert "environment" not in result
    # A run of another commit shows.
    run = run_named(settings, "rim")
    text = run.result.read_text()
    record = json.loads(text)
    record["trained"]["git_commit"] = "f" * 40 + "-dirty"
    run.result.write_text(json.dumps(record))
    try:
        summed = aggregate(settings, make_plan(settings))
    finally:
        run.result.write_text(text)
    assert "f" * 40 + "-dirty" in summed["tasks"]["chains"]["commits"]
    for row in summed["tasks"]["chains"]["methods"].values():
        row["extra_tests"] = {"longer": row["final"]}
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    table = make_tables.comparison_of(summed)
    assert "fffffff-dirty" in table and "seeds 0; 20 test questions" in table


# --- before anything trains ----------------------------------------------------------------------


def test_selection_that_leaves_no_question_is_refused_before_training(tmp_path, untrained):
    settings = settings_of(tmp_path, selection={"held_out": 20})
    with pytest.raises(ConfigError, match="held_out 20 leaves nothing to score of 20 test"):
        run_comparison(settings, QUIET)


@pytest.mark.parametrize("kind", ["train", "validation"])
def test_a_test_question_that_was_trained_on_is_refused_before_training(tmp_path, untrained, kind):
    raw = raw_comparison(tmp_path)
    known = {"question": "1+1=", "steps": ["1+1=2"], "answer": 2}
    other = {"question": "1+2=", "steps": ["1+2=3"], "answer": 3}
    for name, rows in {"known": [other, known], "other": [other | {"question": "2+1="}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kinds = {"train": "other", "validation": "other"} | {kind: "known"}
    raw["tasks"]["chains"]["data"] = {
        part: {"format": "jsonl", "path": str(tmp_path / f"{name}.jsonl")}
        for part, name in kinds.items()
    }
    test = {"format": "jsonl", "path": str(tmp_path / "test.jsonl")}
    (tmp_path / "test.jsonl").write_text(json.dumps(known | {"question": " 1+1=\n"}))
    raw["tasks"]["chains"]["extra_tests"] = {"seen": test}
    settings = load_comparison(write(tmp_path, raw))
    word = {"train": "training", "validation": "validation"}[kind]
    message = rf"test.jsonl, line 1 \(of seen\) is also the {word} question .*known.jsonl, line 2"
    with pytest.raises(DataError, match=message):
        run_comparison(settings, QUIET)
    assert not settings.folder.exists()


# --- the demo is the comparison ------------------------------------------------------------------


def test_the_demo_trains_as_the_comparison_of_the_same_task_does(tmp_path):
    from rim.study.demo import demo_recipes

    def relevant(recipe):
        raw = recipe.model_dump(mode="json")
        del raw["name"], raw["runs_dir"]
        if raw["model"]["base"]:
            raw["model"]["base"] = "the start"
        return raw

    comparison = load_comparison(ROOT / "recipes" / "compare_arithmetic.yaml")
    plan = {run.method: run.recipe for run in make_plan(comparison) if run.seed == 0}
    demo = demo_recipes(0, tmp_path)
    for name in ("base", "direct", "rim"):
        assert relevant(plan[name]) == relevant(demo[name])
