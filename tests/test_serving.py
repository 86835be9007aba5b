"""`rim serve` with an engine that is none: processes that start, end and go wrong."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from stub_server import Reply, fake_engine, stub
from test_cli import plain_console, rim_command  # noqa: F401

import rim.cli.serving
import rim.deploy.serve.child
import rim.deploy.serve.process
from rim.config import ConfigError
from rim.deploy.serve import Engine, serve
from rim.deploy.serve.engines import LLAMA_VARIABLE


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Installs a fake llama-server of a certain behaviour; gives the file of its process ids."""
    monkeypatch.setattr(rim.deploy.serve.child, "STOPPING_SECONDS", 0.5)
    (tmp_path / "m.gguf").touch()

    def install(mode: str = "") -> Path:
        program, pids = fake_engine(tmp_path, mode)
        monkeypatch.setenv(LLAMA_VARIABLE, str(program))
        return pids

    return install


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and not yet collected by whoever adopted it


def all_gone(pids: Path, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(lives(int(pid)) for pid in pids.read_text().split()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("mode", ["", "stubborn", "leaves a child"])
def test_stopping_leaves_no_process_and_no_log(mode, engine, tmp_path):
    pids = engine(mode)
    with serve(tmp_path / "m.gguf", port=0) as server:
        assert server.client().is_ready()
        assert lives(server.process.pid)
        assert "loading -m" in server.log.read_text()
    assert all_gone(pids)
    assert not server.log.parent.exists()


def test_a_named_log_stays_and_is_added_to(engine, tmp_path):
    engine()
    log = tmp_path / "rim-serve-mine" / "engine.log"
    log.parent.mkdir()
    log.write_text("of before\n")
    with serve(tmp_path / "m.gguf", port=0, log=log):
        pass
    assert log.read_text().startswith("of before\nloading ")
    engine("dies")
    with pytest.raises(ConfigError) as error:
        serve(tmp_path / "m.gguf", port=0, log=log)
    assert str(error.value).endswith("no memory left")
    assert str(error.value).count("loading") == 1


@pytest.mark.parametrize(
    ("log", "message"), [("none/x.log", "there is no folder "), (".", "it is a folder")]
)
def test_a_log_that_cannot_be_is_refused_before_an_export(log, message, tmp_path):
    # The run is looked at later, or this would be the error.
    output = rim_command("serve", "no-such-run", "--log", tmp_path / log, code=2)
    assert f"cannot write the log {tmp_path / log}: {message}" in output


def test_an_engine_that_cannot_be_started_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    gone = Engine("llama.cpp", (str(tmp_path / "gone"),))
    monkeypatch.setattr(rim.deploy.serve.process, "find_engine", lambda *_: gone)
    with pytest.raises(ConfigError, match=r"cannot run .*gone: No such file"):
        serve(tmp_path / "m.gguf", port=0)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_server_that_nobody_stops_ends_with_python(engine, tmp_path):
    pids = engine("leaves a child")
    code = f"import rim.deploy.serve; s = rim.deploy.serve.serve({str(tmp_path / 'm.gguf')!r}, port=0); 1 / 0"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"ZeroDivisionError" in ended.stderr
    assert all_gone(pids)


def test_stopping_again_ends_nobody_else(engine, tmp_path, monkeypatch):
    """The id of an engine that ended may be another's later."""
    pids = engine("leaves a child")
    ended, kill = [], os.killpg
    monkeypatch.setattr(os, "killpg", lambda *given: (ended.append(given), kill(*given)))
    with serve(tmp_path / "m.gguf", port=0) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        with pytest.raises(ConfigError, match=r"ended \(signal 9\)"):
            server.wait()
    server.stop()
    assert ended == [(server.process.pid, signal.SIGKILL)]
    assert all_gone(pids)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("dies", r"ended \(exit code 1\)"),
        ("opens no port", "did not answer within 2 s; another program answers on its port"),
    ],
)
def test_another_process_on_the_port_is_not_taken_for_ours(
    mode, message, engine, tmp_path, monkeypatch
):
    engine(mode)
    with stub(Reply()) as other:
        # It took the port after we had seen that it was free.
        port = int(other.url.rpartition(":")[2])
        monkeypatch.setattr(rim.deploy.serve.process, "_free_port", lambda *_: port)
        with pytest.raises(ConfigError, match=message):
            serve(tmp_path / "m.gguf", timeout=2)


def test_a_budget_that_the_model_does_not_take_is_told_before_ready(engine, tmp_path):
    pids = engine("takes no budget")
    output = rim_command("serve", tmp_path / "m.gguf", "--port", 0, "--budget", 999, code=2)
    assert re.search(r"no answer with --budget 999: .* answered 500: blocks must be", output)
    assert "Ready" not in output
    assert all_gone(pids)


def test_a_second_model_is_no_argument_of_the_engine(engine, tmp_path):
    pids = engine()
    output = rim_command("serve", tmp_path / "m.gguf", "runs/b", "--port", 0, code=2)
    assert "one model at a time: 'runs/b' is one too many" in output
    assert not pids.exists()


def test_the_commands_defaults_are_the_librarys():
    """Importing them would make every `rim --help` wait for what serving imports."""
    ours = inspect.signature(rim.cli.serving.serve).parameters
    theirs = inspect.signature(serve).parameters
    shared = (ours.keys() & theirs.keys()) - {"path", "extra"}
    assert shared == {"host", "port", "timeout", "engine", "budget", "page", "log"}
    assert all(ours[name].default == theirs[name].default for name in shared)


def started(tmp_path: Path, *before: str) -> subprocess.Popen[str]:
    code = "from rim.cli import app; app()"
    serving = ["serve", str(tmp_path / "m.gguf"), "--port", "0"]
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, *serving],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_before_it_was_ready_is_no_success(engine, tmp_path):
    pids = engine("never ready")
    with started(tmp_path) as command:
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.05)
        command.send_signal(signal.SIGINT)
        output, errors = command.communicate(timeout=20)
        assert (command.returncode, "Interrupted." in errors) == (130, True)
        assert "Stopped." not in output
    assert all_gone(pids)


def test_nohup_is_respected(engine, tmp_path):
    pids = engine()
    with started(tmp_path, "env", "--ignore-signal=HUP") as command:
        assert command.stdout is not None
        while "Ctrl-C stops" not in command.stdout.readline():
            pass
        command.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert command.poll() is None and all(lives(int(p)) for p in pids.read_text().split())
        command.terminate()
        assert command.stdout.read() == "Stopped.\n"
    assert all_gone(pids)


def test_an_engine_that_dies_shows_the_end_of_its_log(engine, tmp_path):
    engine("dies")
    output = rim_command("serve", tmp_path / "m.gguf", "--port", 0, code=2)
    assert "llama.cpp ended (exit code 1). The end of its log:" in output
    assert output.rstrip().endswith("no memory left")


def test_an_engine_that_dies_later_is_noticed(engine, tmp_path):
    engine("dies later")
    output = rim_command("serve", tmp_path / "m.gguf", "--port", 0, code=2)
    assert "Ready: http://127.0.0.1:" in output
    assert "llama.cpp ended (exit code 9)" in output


def test_an_engine_that_never_answers_is_given_up(engine, tmp_path):
    pids = engine("never ready")
    with pytest.raises(ConfigError, match=r"did not answer within 1 s; .*--timeout.*\nloading"):
        serve(tmp_path / "m.gguf", port=0, timeout=1)
    assert all_gone(pids)


def test_a_port_in_use_is_refused_before_anything_starts(engine, tmp_path):
    pids = engine()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = rim_command("serve", tmp_path / "m.gguf", "--port", port, code=2)
    assert f"port {port} of 127.0.0.1 is in use; choose another with --port" in output
    assert not pids.exists()
    output = rim_command("serve", tmp_path / "m.gguf", "--host", "192.0.2.1", code=2)
    assert "cannot serve on 192.0.2.1, port 8000" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_command_and_its_engine(number, engine, tmp_path):
    pids = engine("leaves a child")
    code = "from rim.cli import app; app()"
    arguments = ["serve", str(tmp_path / "m.gguf"), "--port", "0", "--budget", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--", "-c", "512"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    ) as command:
        assert command.stdout is not None
        lines = iter(command.stdout.readline, "")
        shown = [next(lines)]
        while "Ctrl-C stops" not in shown[-1]:
            shown.append(next(lines))
        assert all(lives(int(pid)) for pid in pids.read_text().split())
        command.send_signal(number)
        assert command.stdout.read() == "Stopped.\n"
        assert command.wait(timeout=20) == 0
    assert all_gone(pids)
    curl = next(line for line in shown if "curl" in line)
    body = json.loads(shlex.split(curl)[-1])
    assert body["chat_template_kwargs"] == {"blocks": 2}
