"""Comparisons cut short on purpose: a trial of few steps, and a stop after some minutes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from comparisons import QUIET, raw_comparison, results, settings_of, stage, write
from typer.testing import CliRunner

from rim.cli import app
from rim.config import ConfigError
from rim.study.compare import runner
from rim.study.compare.plan import make_plan
from rim.study.compare.runner import run_comparison
from rim.study.compare.settings import load_comparison
from rim.study.compare.trial import trial
from rim.train.stopping import TERMINATED, TerminatedError, time_limit
from rim.train.trainer import ReadoutTrainer


def test_a_trial_shares_its_steps_among_the_stages_of_every_run(tmp_path):
    stages = [
        stage("remove", "remaining", 5, for_each={"removed_steps": [1, 2]}),
        stage("final", "remaining", 10, removed_steps="all"),
    ]
    raw = raw_comparison(tmp_path)
    raw["methods"]["coconut"] = {"from": "base", "method": "coconut", "stages": stages}
    raw["methods"]["rim"]["stages"] = [stage("answers", "answer", 20)]
    raw["methods"]["direct"]["stages"] = [stage("answers", "answer", 50)]
    raw["budget"] = {"exempt": {"direct": "2.5 times as long"}}
    short = trial(load_comparison(write(tmp_path, raw)), 8)
    assert short.name == "smoke-8steps"
    steps = {run.method: [s.max_steps for s in run.recipe.stages] for run in make_plan(short)}
    assert steps["coconut"] in ([2, 3, 3], [2, 2, 4])
    totals = {name: sum(counts) for name, counts in steps.items()}
    assert totals == dict.fromkeys(steps, 8) | {"direct": 20}  # its words are true in a trial, too
    with pytest.raises(ConfigError, match="3 stages, which need at least a step each"):
        trial(load_comparison(write(tmp_path, raw)), 2)


def test_epochs_become_steps_in_a_trial(tmp_path):
    epochs = [stage("answers", "answer", None, epochs=3)]
    raw = raw_comparison(tmp_path, methods={"direct": {"method": "direct", "stages": epochs}})
    raw["common"]["model"]["scratch"] = raw["starts"]["base"]["model"]["scratch"]
    raw["reference"] = "direct"
    del raw["methods"]["direct"]["stages"][0]["max_steps"]
    (run,) = make_plan(trial(load_comparison(write(tmp_path, raw)), 5))
    assert [(s.max_steps, s.epochs) for s in run.recipe.stages] == [(5, None)]


@pytest.mark.slow
def test_a_time_limit_ends_what_is_in_progress_and_nothing_after_it():
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(TerminatedError), time_limit(0.005):
        time.sleep(20)
    assert time.monotonic() - began < 10
    with time_limit(0.005):
        pass
    time.sleep(0.5)  # the timer was cancelled
    assert signal.getsignal(signal.SIGTERM) == before
    assert all(not isinstance(t, threading.Timer) for t in threading.enumerate())


@pytest.mark.slow
def test_a_comparison_that_ran_out_of_time_continues_to_the_same_end(tmp_path, whole, monkeypatch):
    settings, _ = whole
    recipe = write(tmp_path, raw_comparison(tmp_path))
    step, count = ReadoutTrainer.training_step, []

    def stop(self, *args, **kwargs):
        count.append(1)
        if len(count) == 5:  # in direct's training; the clock strikes
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ReadoutTrainer, "training_step", stop)
        words = ["compare", str(recipe), "--minutes", "30"]
        stopped = CliRunner().invoke(app, words)
    assert stopped.exit_code == TERMINATED
    assert "is saved. The same command continues." in stopped.stderr
    assert not list((tmp_path / "runs" / "smoke").glob("results/*/*.json"))
    _, failures = run_comparison(settings_of(tmp_path), QUIET)
    assert not failures
    assert results(tmp_path / "runs" / "smoke") == results(settings.folder)


def test_workers_have_time_to_save_before_their_parent_leaves(tmp_path):
    """All of them at the same time: the second is not kept at work while the first one saves."""
    code = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    path = pathlib.Path(sys.argv[1]); path.touch()\n"
        "    other = pathlib.Path(sys.argv[2])\n"
        "    begin = time.monotonic()\n"
        "    while not other.exists() and time.monotonic() < begin + 20: time.sleep(0.05)\n"
        "    time.sleep(0.3); sys.exit(143 if other.exists() else 1)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    saved = [tmp_path / name for name in "ab"]
    with contextlib.ExitStack() as stack:
        processes = []
        for own, other in (saved, reversed(saved)):
            words = [sys.executable, "-c", code, own, other]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
            assert process.stdout is not None and process.stdout.readline()
            processes.append(process)
        run: Any = None
        with runner._stopped([runner._Worker(run, process, 0.0) for process in processes]):
            pass
        assert [process.poll() for process in processes] == [TERMINATED, TERMINATED]
