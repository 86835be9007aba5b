"""rim compare never mixes: what finished runs were made with, against what is asked for now."""

from __future__ import annotations

import contextlib
import importlib
import json
from pathlib import Path

import pytest
from comparisons import QUIET, write
from test_cli import plain_console, rim_command  # noqa: F401

import rim.study.compare.measure as measure
from rim.config import ConfigError
from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import make_plan
from rim.study.compare.recorded import read_result, refuse_changes
from rim.study.compare.runner import run_comparison, sum_up
from rim.study.compare.settings import load_comparison

ROOT = Path(__file__).parents[1]


@pytest.fixture
def finished(whole, monkeypatch):
    """A finished comparison, whose results are put back after the test; training would fail."""
    monkeypatch.setattr(measure, "train", None)
    kept = {path: path.read_text() for path in whole[0].folder.glob("results/*/*.json")}
    yield whole
    for path, text in kept.items():
        path.write_text(text)


def changed(settings, tmp_path, *overrides):
    path = write(tmp_path, settings.model_dump(mode="json", by_alias=True))
    return load_comparison(path, overrides)


def run_named(settings, name):
    return next(run for run in make_plan(settings) if run.name == f"chains/{name}-seed0")


def lines(result):
    return [v["line"] for v in result["tasks"]["chains"]["controls"]]


@contextlib.contextmanager
def without(*paths):
    """These are not there for a while."""
    for path in paths:
        path.rename(f"{path}.away")
    try:
        yield
    finally:
        for path in paths:
            Path(f"{path}.away").rename(path)


NEW_BASE = "starts.base.recipe.stages.solutions.max_steps=3"


def test_a_changed_start_is_refused_though_every_method_is_done(finished, tmp_path):
    settings, _ = finished
    other = changed(settings, tmp_path, NEW_BASE)
    for summed in (lambda: run_comparison(other, QUIET), lambda: sum_up(other)):
        with pytest.raises(
            ConfigError, match=r"another recipe \(stages.solutions.max_steps: 2, now 3\)"
        ) as e:
            summed()
        for name in ("base", "direct", "rim"):  # all that must go, at once
            assert str(run_named(settings, name).folder.path) in str(e.value)
    # Without the start's folder its methods still know what they began with.
    with pytest.raises(ConfigError, match=r"rim-seed0.json was made with another start_recipe"):
        refuse_changes(other, [run_named(other, "rim")])


def test_a_model_without_a_result_still_knows_its_recipe_and_its_start(finished, tmp_path):
    settings, _ = finished
    run = run_named(settings, "rim")
    base = changed(settings, tmp_path, NEW_BASE)
    with without(run.result, run_named(settings, "base").folder.path):
        refuse_changes(settings, make_plan(settings))
        with pytest.raises(
            ConfigError, match=r"/rim-seed0 was made with another start_recipe \(st"
        ):
            refuse_changes(base, [run_named(base, "rim")])
        rate = changed(
            settings, tmp_path, "methods.rim.recipe.stages.refinement.learning_rate=5e-4"
        )
        with pytest.raises(
            ConfigError, match=r"recipe \(stages.refinement.learning_rate: 0.001, now 0.0005"
        ):
            refuse_changes(rate, [run_named(rate, "rim")])
        # As a model of unknown origin is.
        ((file, _),) = run.start_files
        with without(file), pytest.raises(ConfigError, match=r"start_recipe \(None, now"):
            refuse_changes(settings, [run])


def test_a_result_that_does_not_say_what_it_was_made_with_is_refused(finished):
    settings, _ = finished
    run = run_named(settings, "rim")
    record = read_result(run)
    del record["start_recipe"]
    run.result.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"another start_recipe \(None, now") as refused:
        run_comparison(settings, QUIET)
    assert f"delete {run.result} {run.folder.path} and start it again" in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.chains.test.arithmetic.num_examples=15", "another tests"),
        ("evaluation.max_new_tokens=5", "another evaluation"),
    ],
)
def test_changed_measurements_cost_the_results_alone(finished, tmp_path, override, message):
    settings, _ = finished
    with pytest.raises(ConfigError, match=message) as refused:
        run_comparison(changed(settings, tmp_path, override), QUIET)
    for name in ("direct", "rim"):
        run = run_named(settings, name)
        assert str(run.result) in str(refused.value)
        assert str(run.folder.path) not in str(refused.value).split()


def test_only_and_table_only_refuse_what_a_whole_comparison_would(finished, tmp_path):
    settings, _ = finished
    other = changed(settings, tmp_path, "methods.rim.recipe.stages.refinement.learning_rate=5e-4")
    message = (
        r"rim-seed0.json was made with another recipe \(stages.refinement.learning_rate: 0.001, now"
    )
    with pytest.raises(ConfigError, match=message):
        run_comparison(other, QUIET, only=["direct"])
    path = write(tmp_path, other.model_dump(mode="json", by_alias=True))
    assert "another recipe" in rim_command("compare", path, "--table-only", code=2)
    for options in (["--only", "rim"], ["--jobs", "2"]):
        output = rim_command("compare", path, "--table-only", *options, code=2)
        assert "leave out --only and --jobs" in output


def test_changed_controls_are_made_again_without_training(finished, tmp_path):
    settings, before = finished

    fewer = changed(settings, tmp_path, "controls.questions=10", "methods.direct.control_of=rim")
    with pytest.raises(ConfigError, match="controls measured with other settings"):
        sum_up(fewer)
    result, _ = run_comparison(fewer, QUIET)
    assert lines(sum_up(fewer)) == lines(result)
    starts = (
        "rim, no blocks: accuracy",
        "rim, block states zeroed: accuracy",
        "rim, blocks shuffled: accuracy",
        "rim, blocks of another question: accuracy",
        "rim, question hidden from the read-out: accuracy",
        "rim, number of blocks at test time, K = 1 to K = 10:",
        "direct instead of rim: accuracy",
    )
    for line, start in zip(lines(result), starts, strict=True):
        assert line.startswith(start)
    assert "(10 questions, 1 seed," in lines(result)[0]
    assert "(20 questions, 1 seed," in lines(result)[-1]
    assert "% give the other question's answer (" in lines(result)[3]
    assert lines(result)[3].endswith("% a third one's, as chance would)")
    # The sweep at the trained number of blocks is the model as it is.
    controls = result["tasks"]["chains"]["controls"]
    assert controls[5]["accuracies"]["K = 5"] == controls[0]["from"]
    none, _ = run_comparison(changed(settings, tmp_path, "controls.run=none"), QUIET)
    assert lines(none) == []
    again, _ = run_comparison(settings, QUIET)
    assert again["tasks"] == before["tasks"]


def test_changed_latency_settings_are_measured_again_without_training(finished, tmp_path):
    settings, _ = finished
    other = changed(settings, tmp_path, "latency.questions=3")
    with pytest.raises(ConfigError, match="latency measured with other settings"):
        sum_up(other)
    run_comparison(other, QUIET)
    for name in ("direct", "rim"):
        assert read_result(run_named(other, name))["latency_settings"]["questions"] == 3
    sum_up(other)


def test_a_comparison_says_what_its_runs_were_made_of(finished, monkeypatch):
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
    record = json.loads(run.result.read_text())
    record["trained"]["git_commit"] = "f" * 40 + "-dirty"
    run.result.write_text(json.dumps(record))
    summed = aggregate(settings, make_plan(settings))
    assert "f" * 40 + "-dirty" in summed["tasks"]["chains"]["commits"]
    for row in summed["tasks"]["chains"]["methods"].values():
        row["extra_tests"] = {"longer": row["final"]}
    monkeypatch.syspath_prepend(ROOT / "docs")
    table = importlib.import_module("tables.comparisons").comparison_of(summed)
    assert "fffffff-dirty" in table and "seeds 0; 20 test questions" in table


def test_files_that_changed_in_place_are_noticed_by_their_hashes(finished, tmp_path):
    settings, _ = finished
    run = run_named(settings, "rim")
    record = json.loads(run.result.read_text())
    record["trained"]["data"]["train"] = "another"
    run.result.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="direct and rim, seed 0, were trained on different data"):
        aggregate(settings, make_plan(settings))
    record["trained"]["data"] = read_result(run_named(settings, "direct"))["trained"]["data"]
    run.result.write_text(json.dumps(record))
    start = next(each for each in make_plan(settings) if each.result is None)
    kept = start.folder.environment_file.read_text()
    start.folder.environment_file.write_text(kept.replace('"train": "', '"train": "other'))
    try:
        with pytest.raises(ConfigError, match=f"and the start {start.name}, seed 0, were trained"):
            aggregate(settings, make_plan(settings))
    finally:
        start.folder.environment_file.write_text(kept)
    for name in ("direct", "rim"):
        record = json.loads(run_named(settings, name).result.read_text())
        record["results"]["test"]["data"]["hash"] = "another"
        run_named(settings, name).result.write_text(json.dumps(record))
    for change in ("controls.questions=10", "latency.questions=3"):
        with pytest.raises(ConfigError, match="was made on other questions than test has now"):
            run_comparison(changed(settings, tmp_path, change), QUIET)


def test_controls_that_nobody_asks_for_stay_where_they_are(finished, tmp_path):
    settings, result = finished
    kept = read_result(run_named(settings, "rim"))["controls"]
    assert kept
    none = changed(settings, tmp_path, "controls.run=none")
    summed, failures = run_comparison(none, QUIET)
    shown = [line for line in lines(summed) if not line.startswith("direct instead of")]
    assert not shown and not failures
    assert read_result(run_named(settings, "rim"))["controls"] == kept
    assert lines(sum_up(none)) == lines(summed)
    assert lines(sum_up(settings)) == lines(result)


def test_a_model_that_is_gone_keeps_its_times(finished, tmp_path):
    settings, _ = finished
    runs = [run_named(settings, name) for name in ("direct", "rim")]
    kept = read_result(runs[1])["latency"]
    with without(runs[1].folder.model_dir):
        measure.measure_latency(settings, runs, QUIET)  # all are timed as is wanted
        assert read_result(runs[0])["latency_settings"]["together"] == ["direct", "rim"]
        other = changed(settings, tmp_path, "latency.questions=3")
        measure.measure_latency(other, [run_named(other, n) for n in ("direct", "rim")], QUIET)
    assert read_result(runs[0])["latency_settings"]["together"] == ["direct"]
    assert read_result(runs[1])["latency"] == kept
