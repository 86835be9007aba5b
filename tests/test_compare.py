"""rim compare: runs, continued and side by side, what is shown, command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import warm
import yaml
from comparisons import QUIET, raw_comparison, results, settings_of, write
from rich.console import Console
from test_cli import plain_console, rim_command  # noqa: F401  (a fixture that acts by itself)
from test_training import raw_recipe

import rim.study.compare.measure as measure
import rim.train.curriculum
import rim.train.trainer
from rim.config import ConfigError
from rim.infer.reasoner import load
from rim.results import read_json
from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import make_plan
from rim.study.compare.runner import _give_up, run_comparison
from rim.study.compare.settings import load_comparison
from rim.study.compare.worker import PARENT_GONE

# --- running -------------------------------------------------------------------------------------


def same_results(settings, whole, *methods):
    """These methods, and no others, are finished, and as in the comparison never interrupted."""
    names = [f"{name}-seed0.json" for name in methods]
    expected = results(whole[0].folder)
    assert results(settings.folder) == {name: expected[name] for name in names}


@pytest.mark.slow
def test_a_comparison_states_accuracy_costs_and_latency_of_every_method(whole):
    settings, result = whole
    assert not result["missing"]
    methods = result["tasks"]["chains"]["methods"]
    assert set(methods) == {"direct", "rim"}
    for row in methods.values():
        assert row["steps"]["mean"] == 6 and row["examples"]["mean"] == 48
        assert row["seconds"]["mean"] > 0 and row["latency"]["answer_ms"]["mean"] > 0
        assert row["parameters"]["trainable"] > 0
        assert [d["steps"] for d in row["by_steps"]] == [2, 3, 4]
    # Blocks and more read-outs of the same examples: more tokens.
    assert methods["rim"]["tokens"]["mean"] > methods["direct"]["tokens"]["mean"]
    assert "any_block" in methods["rim"] and "any_block" not in methods["direct"]
    assert result["tasks"]["chains"]["starts"]["base"]["steps"]["mean"] == 2
    assert aggregate(settings, make_plan(settings))["tasks"] == result["tasks"]


def test_trained_tokens_are_those_of_the_batches(tmp_path, monkeypatch):
    """Against the layouts themselves, padding and all."""
    seen = []
    original = rim.train.trainer.collate

    def collate(layouts, **options):
        seen.append(list(layouts))
        return original(layouts, **options)

    monkeypatch.setattr(rim.train.trainer, "collate", collate)
    from rim.config.recipe_yaml import recipe_from_dict
    from rim.train.curriculum import train

    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 8, "evaluate_every": 8}]
    folder = train(recipe_from_dict(raw), console=QUIET)
    total = json.loads(folder.training_file.read_text())["total"]
    # 64 examples in 8 steps of 8: each once. Then one validation batch of 8.
    batches = [batch for batch in seen if len(batch) == 8][:8]
    lengths = [len(layout.fields_TF) for batch in batches for layout in batch]
    assert total["examples"] == 64 == len(lengths)
    assert total["tokens"] == sum(lengths)
    assert 0 < total["target_tokens"] < total["tokens"]


def test_finished_results_are_not_run_again(whole, monkeypatch):
    settings, result = whole
    monkeypatch.setattr(measure, "train", None)
    monkeypatch.setattr(measure, "load", None)
    again, failures = run_comparison(settings, QUIET)
    assert again["tasks"] == result["tasks"] and not failures


# Before a run's first checkpoint, and behind one in its second stage.
@pytest.mark.slow
@pytest.mark.parametrize("where", [("grounding", 1), ("refinement", 3)])
def test_an_interrupted_comparison_continues_to_the_same_results(
    whole, tmp_path, monkeypatch, where
):
    settings = settings_of(tmp_path, "controls.run=none")
    original = rim.train.trainer.ReadoutTrainer.training_step

    def stop(self, *args, **kwargs):
        if (self.stage.name, self.state.global_step + 1) == where:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(rim.train.trainer.ReadoutTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run_comparison(settings, QUIET, only=["rim"])
    run_comparison(settings, QUIET, only=["rim"])
    same_results(settings, whole, "rim")


# Saved are the base's stage and model, then RiM's two stages and model.
@pytest.mark.slow
@pytest.mark.parametrize("saving", [4, 5])
def test_a_stop_between_the_last_checkpoint_and_the_model_takes_no_step_too_many(
    whole, tmp_path, monkeypatch, saving
):
    settings = settings_of(tmp_path, "controls.run=none")
    original, saved = rim.train.curriculum.save_trained, []

    def stop(*args, **kwargs):
        saved.append(args)
        if len(saved) == saving:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(rim.train.curriculum, "save_trained", stop)
        with pytest.raises(KeyboardInterrupt):
            run_comparison(settings, QUIET, only=["rim"])
    run_comparison(settings, QUIET, only=["rim"])
    same_results(settings, whole, "rim")
    weights = {
        folder: load(folder / "chains/rim-seed0").model.state_dict()
        for folder in (settings.folder, whole[0].folder)
    }
    first, second = weights.values()
    assert all(torch.equal(first[name], second[name]) for name in first)


def command_line(path, *options):
    code = "from rim.cli import app; app()"
    return warm.Popen(
        [sys.executable, "-c", code, "compare", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )


@pytest.mark.slow
def test_a_comparison_killed_inside_a_run_continues_to_the_same_results(whole, tmp_path):
    path = write(tmp_path, raw_comparison(tmp_path))
    process = command_line(path)
    inside = "chains/rim-seed0/stages/*/checkpoint-*/trainer_state.json"
    folder = tmp_path / "runs" / "smoke"
    deadline = time.monotonic() + 240
    while not any(folder.glob(inside)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output  # it did not end by itself
    run_comparison(load_comparison(path), QUIET)
    same_results(load_comparison(path), whole, "direct", "rim")


@pytest.mark.slow
def test_a_run_killed_before_its_first_stage_begins_again(whole, tmp_path):
    settings = settings_of(tmp_path)
    run = make_plan(settings)[0]
    run.folder.path.mkdir(parents=True)
    run.folder.config_file.write_text("name: half a fi")
    run_comparison(settings, QUIET, only=["direct"])
    same_results(settings, whole, "direct")


@pytest.mark.slow
def test_a_worker_ends_when_its_parent_does(tmp_path):
    settings = settings_of(tmp_path)
    path = write(tmp_path, settings.model_dump(mode="json"))
    command = [
        sys.executable,
        "-m",
        "rim.study.compare.worker",
        str(path),
        "chains/base-seed0",
        "1",
    ]
    # An ended pipe is all that is left of a parent that was killed.
    process = warm.run(command, timeout=240)
    assert process.returncode == PARENT_GONE, process.stderr
    assert not make_plan(settings)[0].done


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_failing_run_is_reported_and_the_others_finish_as_ever(
    whole, tmp_path, jobs, monkeypatch
):
    raw = raw_comparison(tmp_path)
    # So large a rate that the loss is no number any more.
    raw["methods"]["direct"]["stages"][0] |= {"learning_rate": 1e30, "max_grad_norm": 1e30}
    settings = load_comparison(write(tmp_path, raw))
    with monkeypatch.context() as patched:
        patched.setattr("rim.study.compare.runner.subprocess", warm)
        result, failures = run_comparison(settings, QUIET, jobs=jobs)
    assert [failure.run.name for failure in failures] == ["chains/direct-seed0"]
    assert "Try a lower learning_rate" in failures[0].reason
    assert set(result["tasks"]["chains"]["methods"]) == {"rim"}
    assert result["missing"] == ["chains/direct-seed0"]
    same_results(settings, whole, "rim")


def test_methods_whose_start_failed_are_given_up(tmp_path):
    raw = raw_comparison(tmp_path)
    broken = {"learning_rate": 1e30, "max_grad_norm": 1e30, "max_steps": 6}
    raw["starts"]["base"]["stages"][0] |= broken
    settings = load_comparison(write(tmp_path, raw))
    result, failures = run_comparison(settings, QUIET)
    assert [f.run.method for f in failures] == ["base", "direct", "rim"]
    assert failures[2].reason == "its start chains/base-seed0 failed"
    assert result["missing"] == ["chains/direct-seed0", "chains/rim-seed0"]
    # Side by side nothing is left to wait for either.
    waiting = make_plan(settings)[1:]
    assert _give_up(waiting, failures[:1]) == failures[1:] and not waiting


@pytest.mark.slow
def test_only_runs_what_is_asked_for(tmp_path):
    settings = settings_of(tmp_path)
    result, _ = run_comparison(settings, QUIET, only=["direct"])
    assert result["missing"] == ["chains/rim-seed0"]
    with pytest.raises(ConfigError, match="no method 'rin', there are direct, rim"):
        run_comparison(settings, QUIET, only=["rin"])


# --- what is shown -------------------------------------------------------------------------------


def test_the_command_prints_tables_of_80_columns_and_writes_json_and_plot(whole, monkeypatch):
    monkeypatch.setattr(rim.cli.common, "console", Console(width=80))
    settings, result = whole
    raw = settings.model_dump(mode="json") | {"selection": {"splits": 4, "held_out": 5}}
    path = settings.folder / "again.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    out = settings.folder / "out.json"
    output = rim_command("compare", path, "--table-only", "--out", out)
    tables = [line for line in output.splitlines() if line[:1] in "┏┃┡│└"]
    assert tables and max(map(len, tables)) <= 80
    assert "…" not in output, "a table cut something off"
    flat = " ".join(output.split())
    for words in ("chains: accuracy %", "chains: cost", "with TEST questions", "Equal budgets"):
        assert words in flat
    written = json.loads(out.read_text())
    assert written["tasks"]["chains"]["methods"] == result["tasks"]["chains"]["methods"]
    assert written["tasks"]["chains"]["selection"]["rim"]["chosen"] == {"rim-seed0": 4}
    learning = out.with_name("out-learning.svg")
    for picture in (out.with_suffix(".svg"), learning):
        assert ET.parse(picture).getroot().tag.endswith("svg")
    assert all(name in learning.read_text() for name in result["tasks"]["chains"]["methods"])


def test_a_result_has_the_validations_of_its_training(whole):
    settings, result = whole
    for name, row in result["tasks"]["chains"]["methods"].items():
        run = next(r for r in make_plan(settings) if r.name == f"chains/{name}-seed0")
        lines = map(json.loads, run.folder.metrics_file.read_text().splitlines())
        shares = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line]
        ((seed, points),) = [(each["seed"], each["points"]) for each in row["learning"]]
        assert seed == 0 and [share for _, share in points] == shares
        assert points[-1][0] == row["steps"]["mean"]
    (sweep,) = [v for v in result["tasks"]["chains"]["controls"] if "accuracies" in v]
    depths = Counter(read_json(run.result)["test_steps"])
    for control, share in sweep["accuracies"].items():
        by = sweep["by_steps"][control]
        assert set(by) == set(map(str, depths))
        weighed = sum(by[str(n)] * count for n, count in depths.items()) / depths.total()
        assert weighed == pytest.approx(share)


def test_a_failure_ends_in_one_sentence_and_code_2(tmp_path):
    path = write(tmp_path, raw_comparison(tmp_path))
    output = rim_command("compare", path, "--table-only", code=2)
    assert "has no results yet" in output
    assert "no such recipe" in rim_command("compare", tmp_path / "x.yaml", code=2)


def test_workers_have_a_gpu_each(monkeypatch, tmp_path):
    from rim.study.compare import runner

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert runner.visible_gpus() == ["3", "5"]
    started = []

    def popen(command, env, **_):
        started.append(env["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    run = SimpleNamespace(log=tmp_path / "log", name="x")
    workers = []
    for _ in range(4):
        gpu = runner._free_gpu(runner.visible_gpus(), workers)
        runner._start(tmp_path / "c.yaml", run, 1, gpu)
        workers.append(SimpleNamespace(gpu=gpu))
    assert started == ["3", "5", "3", "5"]
    workers.pop(0)
    assert runner._free_gpu(runner.visible_gpus(), workers) == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert runner._free_gpu(runner.visible_gpus(), []) is None
