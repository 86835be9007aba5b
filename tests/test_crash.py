"""Nothing is lost: kills, SIGTERM, torn checkpoints, full disks, folders closed to writing."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import warm
import yaml
from rich.console import Console
from test_cli import rim_command
from test_training import losses, raw_recipe, run, weights_of

import rim.train.trainer
from rim.config import ConfigError
from rim.config.recipe_yaml import recipe_from_dict
from rim.train.checkpoints import ASIDE, CHECKSUMS, CheckpointError, what_is_torn
from rim.train.curriculum import train
from rim.train.run_folder import check_run_folder, one_writer, open_run_folder
from rim.train.stopping import TERMINATED, TerminatedError

ROOT = Path(__file__).parents[1]


def short(folder: Path, **changes) -> dict:
    raw = raw_recipe(folder, **changes)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 8, "evaluate_every": 2, "dropout": 0.1}]
    return raw


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(short(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def in_front():
    """Ctrl-C as a terminal's foreground job has it: a shell's "&" has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def before_step(monkeypatch, step: int, do) -> None:
    """Call `do` before the training step of that number, once."""
    original = rim.train.trainer.ReadoutTrainer.training_step
    todo = [do]

    def training_step(self, *args, **kwargs):
        if todo and self.state.global_step + 1 == step:
            todo.pop()()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "training_step", training_step)


def assert_same(one, two) -> None:
    for key in ("loss", "token_loss", "eval_loss", "eval_accuracy"):
        assert {x[:2]: x[2] for x in losses(one, key)} == {x[:2]: x[2] for x in losses(two, key)}
    first, second = weights_of(one), weights_of(two)
    assert all(torch.equal(first[name], second[name]) for name in first)


def interrupt() -> None:
    raise KeyboardInterrupt


def checkpoints(raw: dict) -> list[Path]:
    stage = Path(raw["runs_dir"]) / "run" / "stages" / "01-grounding"
    return sorted(stage.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))


@pytest.mark.slow
def test_the_crash_test_as_anyone_runs_it(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/crash.py", "--stops", "1", "--steps", "8"]
    result = warm.run(command, check=True)
    told = json.loads(result.stdout.splitlines()[-1])["signals"]
    assert {row["same_bit_for_bit"] for row in told.values()} == {True}
    assert set(told["SIGTERM"]["exit_codes"]) == {"143"}
    assert set(told["SIGINT"]["exit_codes"]) == {"130"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ([signal.SIGTERM], "Terminated"),
        ([signal.SIGINT], "Interrupted"),
        ([signal.SIGINT, signal.SIGTERM], "Interrupted"),  # as a comparison's workers hear it
    ],
)
def test_a_signal_saves_the_step_and_says_so(tmp_path, monkeypatch, whole, capsys, numbers, word):
    raw = short(tmp_path)

    def stop() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    before_step(monkeypatch, 5, stop)
    handlers = [signal.getsignal(number) for number in numbers]
    with pytest.raises(TerminatedError, match=rf"{word}; step 5 is saved\.") as raised:
        run(raw)
    assert raised.value.exit_code == 128 + numbers[0]
    assert ("Ctrl-C again" in capsys.readouterr().err) == (signal.SIGINT in numbers)
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert [path.name for path in checkpoints(raw)][-1] == "checkpoint-5"
    assert_same(run(raw, resume=True), whole)


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(tmp_path, monkeypatch, number):
    raw = short(tmp_path)
    before_step(monkeypatch, 5, lambda: [os.kill(os.getpid(), number) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run(raw)
    assert "checkpoint-5" not in [path.name for path in checkpoints(raw)]


def test_a_run_that_a_process_trains_is_not_resumed_by_another(tmp_path):
    raw = short(tmp_path)
    folder = check_run_folder(recipe_from_dict(raw), resume=False)
    folder.path.mkdir(parents=True)
    open_run_folder(recipe_from_dict(raw), resume=False)
    with one_writer(folder), pytest.raises(ConfigError, match="another process is training"):
        run(raw, resume=True)


def test_sigterm_has_an_exit_code_of_its_own(tmp_path, monkeypatch):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(short(tmp_path)))
    before_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    said = rim_command("train", file, code=TERMINATED)
    assert "step 2 is saved" in said
    assert "--resume continues" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("model.safetensors", lambda f: os.truncate(f, f.stat().st_size // 2), "as it was written"),
        ("optimizer.pt", lambda f: f.unlink(), "optimizer.pt is missing"),
        ("trainer_state.json", lambda f: f.write_bytes(b"\0" * 100), "as it was written"),
        (CHECKSUMS, lambda f: f.write_text("{"), "cannot be read"),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path, monkeypatch, whole, name, damage, reason
):
    raw = short(tmp_path)
    with monkeypatch.context() as patch:
        before_step(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw)
    older, newest = checkpoints(raw)
    assert what_is_torn(newest) is None
    damage(newest / name)
    console = Console(record=True, width=300, file=io.StringIO())
    resumed = train(recipe_from_dict(raw), resume=True, console=console)
    said = console.export_text()
    assert f"{newest} is torn" in said
    assert reason in said
    assert_same(resumed, whole)
    assert older != newest


@pytest.mark.slow
def test_a_checkpoint_whose_best_is_torn_is_not_taken(tmp_path, monkeypatch, whole):
    raw = short(tmp_path)
    with monkeypatch.context() as patch:
        before_step(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw)
    for path in checkpoints(raw):
        shutil.rmtree(path / "nothing", ignore_errors=True)
        (path / "model.safetensors").write_bytes(b"")
    console = Console(record=True, width=300, file=io.StringIO())
    resumed = train(recipe_from_dict(raw), resume=True, console=console)
    said = console.export_text()
    assert said.count("is torn") == 2
    assert said.count("; the stage begins anew") == 1
    assert_same(resumed, whole)


@pytest.mark.slow
def test_a_run_that_was_moved_keeps_its_best_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(rim.train.trainer, "_TIE_BREAK", -1e3)  # the first validation is the best
    whole = run(short(tmp_path / "whole"))
    raw = short(tmp_path / "before")
    with monkeypatch.context() as patch:
        before_step(patch, 5, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw)
    Path(raw["runs_dir"]).rename(tmp_path / "after")
    raw["runs_dir"] = str(tmp_path / "after")
    best = checkpoints(raw)[0]
    assert best.name == "checkpoint-2"
    with monkeypatch.context() as patch:
        before_step(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw, resume=True)
    assert best in checkpoints(raw)
    assert_same(run(raw, resume=True), whole)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["weights", "optimizer", "state"])
def test_a_full_disk_keeps_the_last_whole_checkpoint(tmp_path, monkeypatch, whole, what):
    raw = short(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_the_disk():
        if what == "weights":
            place = "transformers.PreTrainedModel.save_pretrained"
        elif what == "optimizer":
            # What torch makes of a full disk.
            def write(*_, **__):
                raise RuntimeError("PytorchStreamWriter failed writing file data/0")

            monkeypatch.setattr("torch.save", write)
            return
        else:
            place = "transformers.TrainerState.save_to_json"

        def write(*_, **__):
            raise full

        monkeypatch.setattr(place, write)

    with monkeypatch.context() as patch:
        before_step(patch, 6, fill_the_disk)
        with pytest.raises(CheckpointError) as caught:
            run(raw)
    said = str(caught.value)
    assert "checkpoint of step 6 could not be written" in said
    assert "failed writing" in said if what == "optimizer" else "No space left on device" in said
    assert "checkpoint-4" in said
    assert "--resume" in said
    (stage,) = {path.parent for path in checkpoints(raw)}
    assert not (stage / ASIDE).exists(), "the half of a checkpoint gives its room back"
    assert all(what_is_torn(path) is None for path in checkpoints(raw))
    monkeypatch.undo()
    assert_same(run(raw, resume=True), whole)


def test_a_command_says_in_a_sentence_that_the_disk_is_full(tmp_path, monkeypatch):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(short(tmp_path)))

    def write(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("transformers.TrainerState.save_to_json", write)
    said = " ".join(rim_command("train", file, code=3).split())
    assert "Training stopped: the checkpoint of step 2 could not be written" in said
    assert "last whole checkpoint: none yet" in said and "continue with --resume" in said
    monkeypatch.undo()
    rim_command("train", file, "--resume")


def test_a_disk_that_is_full_for_an_open_file_is_said_too(tmp_path, monkeypatch):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(short(tmp_path)))

    def write(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of write(2): no name

    monkeypatch.setattr("rim.train.callbacks.MetricsFile.write", write)
    assert f"Error: {os.strerror(errno.ENOSPC)}" in rim_command("train", file, code=2)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    file = tmp_path / "recipe.yaml"
    blocked = tmp_path / "a file"
    blocked.write_text("")
    file.write_text(yaml.safe_dump(short(tmp_path, runs_dir=str(blocked / "runs"))))
    assert "is a file" in " ".join(rim_command("train", file, code=2).split())
    if os.geteuid() == 0:
        return  # who may write everywhere
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    file.write_text(yaml.safe_dump(short(tmp_path, runs_dir=str(locked))))
    assert "no permission" in " ".join(rim_command("train", file, code=2).split())


def test_a_log_that_cannot_be_written_ends_in_a_sentence(tmp_path, monkeypatch):
    """A folder whose permission goes while the run is in it."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(short(tmp_path)))
    metrics = tmp_path / "runs/run/metrics.jsonl"

    def in_the_way():
        if metrics.exists():
            metrics.unlink()
        metrics.mkdir()

    before_step(monkeypatch, 2, in_the_way)
    said = " ".join(rim_command("train", file, code=2).split())
    assert "metrics.jsonl: Is a directory" in said


@pytest.mark.slow
def test_a_folder_that_a_kill_left_without_a_recipe_is_taken(tmp_path):
    raw = short(tmp_path)
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml.partial").write_text("name:")
    assert run(raw).finished


@pytest.mark.slow
def test_a_torn_line_of_the_log_is_cut_off(tmp_path, monkeypatch, whole):
    raw = short(tmp_path)
    with monkeypatch.context() as patch:
        before_step(patch, 5, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw)
    with (tmp_path / "runs/run/metrics.jsonl").open("a") as file:
        file.write('{"stage": "grounding", "st')
    assert_same(run(raw, resume=True), whole)
