"""`rim serve`: what is refused before anything is exported, and what this process becomes."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from export_models import checked_in_process, make_run, prompt_format
from stub_server import fake_engine
from test_cli import plain_console, rim_command  # noqa: F401

import rim.cli.serve
import rim.deploy.serve.engines
from rim.deploy.serve import plan_server
from rim.deploy.serve.engines import LLAMA_VARIABLE


@pytest.fixture
def llama(tmp_path, monkeypatch) -> Path:
    """A GGUF file and a llama-server for it, beside transformers."""
    monkeypatch.setenv(LLAMA_VARIABLE, str(fake_engine(tmp_path)))
    (tmp_path / "m.gguf").touch()
    return tmp_path / "m.gguf"


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without an engine."""
    monkeypatch.delenv(LLAMA_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rim.deploy.serve.engines, "_program", lambda name: None)
    monkeypatch.setattr(rim.deploy.serve.engines.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def transformers(monkeypatch):
    """`transformers serve` is installed."""
    monkeypatch.setattr(rim.deploy.serve.engines.importlib.util, "find_spec", lambda name: name)


@pytest.fixture
def executed(monkeypatch) -> list[list[str]]:
    """Command lines that this process would have become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, command: commands.append(command))
    return commands


@pytest.fixture(scope="module")
def run(plain_tokenizer, tmp_path_factory) -> Path:
    return make_run("gpt2", plain_tokenizer, tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_a_run_is_exported_and_this_process_becomes_its_engine(run, transformers, executed):
    options = ["--port", 9, "--host", "::", "--blocks", 5, "--page", "--", "--device", "cpu"]
    with checked_in_process():
        output = rim_command("serve", run, *options)
    folder = str(run / "exported")
    start = [sys.executable, "-P", "-m", "transformers.cli.transformers", "serve", folder]
    chosen = ["--chat-template-kwargs", '{"blocks": 5}', "--enable-cors"]
    (command,) = executed
    assert command == [*start, *chosen, "--host", "::", "--port", "9", "--device", "cpu"]
    assert "Exporting the run into" in output
    assert "Starting transformers on http://[::1]:9;" in output
    assert "page.html#server=http%3A%2F%2F%5B%3A%3A1%5D%3A9&blocks=0%2C5&most=64" in output
    assert "Exporting" not in rim_command("serve", run)  # it is there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blocks", 65], "this model takes 0 to 64 memory blocks, got 65"),
        (["--engine", "vllm"], "no engine to serve with is installed; install one of\n- vllm: "),
        (["--engine", "llama.cpp"], "has none; make one: `rim export "),
        (["runs/b"], "one model at a time: 'runs/b' is one too many"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_exported(
    arguments, message, plain_tokenizer, tmp_path, bare, executed, request
):
    if "--blocks" in arguments:
        request.getfixturevalue("transformers")
    run = make_run("gpt2", plain_tokenizer, tmp_path)
    assert message in rim_command("serve", run, *arguments, code=2)
    assert not (run / "exported").exists() and not executed


def test_an_address_is_given_where_the_printed_lines_can_have_it(
    plain_tokenizer, tmp_path, transformers, executed
):
    run = make_run("gpt2", plain_tokenizer, tmp_path)
    told = rim_command("serve", run, "--", "--port=9000", code=2)
    assert "give --port before `--`" in told and not executed


def test_without_an_engine_nothing_is_exported(plain_tokenizer, tmp_path, bare, executed):
    run = make_run("gpt2", plain_tokenizer, tmp_path)
    assert "install one of" in rim_command("serve", run, code=2)
    assert not (run / "exported").exists() and not executed


def test_a_model_that_no_engine_serves_is_refused_before_an_engine_is_looked_for(
    plain_tokenizer, tmp_path, bare
):
    wanted = prompt_format("gpt2", method="coconut")
    run = make_run("gpt2", plain_tokenizer, tmp_path, wanted=wanted)
    assert "feeds hidden states back" in rim_command("serve", run, code=2)


def test_a_gguf_file_without_llama_server_is_refused(tmp_path, bare, executed):
    (tmp_path / "m.gguf").touch()
    output = rim_command("serve", tmp_path / "m.gguf", code=2)
    assert "install one of\n- llama.cpp: put its `llama-server` on PATH" in output
    assert not executed


def test_the_greeting_comes_first_and_then_the_process_is_the_engine(llama):
    """One process: Ctrl-C, its output and its exit code are the engine's."""
    code = "from rim.cli import app; app()"
    command = [sys.executable, "-c", code, "serve", str(llama), "--blocks", "2", "--", "-c", "512"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    shown, _, said = output.partition("engine ")
    assert "Starting llama.cpp on http://127.0.0.1:8000;" in shown
    assert said.startswith(f"{process.pid} -m {llama} ") and said.endswith("-c 512\n")
    assert process.returncode == 7


def test_a_program_that_cannot_be_run_is_told(llama, monkeypatch):
    plan = plan_server(llama)
    Path(plan.command[0]).unlink()
    with pytest.raises(ValueError, match=r"cannot run .*llama-server: No such file"):
        plan.start()


def test_the_commands_defaults_are_the_librarys():
    """Importing them would make every `rim --help` wait for what serving imports."""
    ours = inspect.signature(rim.cli.serve.serve).parameters
    theirs = inspect.signature(plan_server).parameters
    shared = (ours.keys() & theirs.keys()) - {"path", "extra"}
    assert shared == {"engine", "host", "port", "blocks", "page"}
    assert all(ours[name].default == theirs[name].default for name in shared)


@pytest.mark.slow
def test_a_mistyped_path_is_told_before_anything_heavy_is_imported(tmp_path):
    for command in (
        ["serve", "no/run"],
        ["export", "no/run", "--out", str(tmp_path / "x")],
        ["gguf", "no/run", "--out", str(tmp_path / "x.gguf")],
        ["lm-eval", "no/run", "--out", str(tmp_path / "x")],
        ["push", "no/run", "a/b"],
    ):
        code = (
            "import sys\nfrom rim.cli import app\n"
            f"try: app({command!r})\n"
            "except SystemExit as end:\n"
            "    sys.exit(9 if {'torch', 'transformers'} & set(sys.modules) else end.code)"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert result.returncode == 2, result.stderr
        assert re.search(r"no such .*no/run|no/run is not an exported folder", result.stderr)
    assert not list(tmp_path.iterdir())
