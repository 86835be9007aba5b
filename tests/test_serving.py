"""`rim serve` without a real engine: command lines, what is served, and processes that go wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from export_models import make_run
from stub_server import fake_engine
from test_cli import plain_console, rim_command  # noqa: F401

import rim.serving.engines
import rim.serving.process
from rim.config import ConfigError
from rim.export import plan_push
from rim.export.record import EXPORT_FILE, ExportRecord, read_record
from rim.results import write_json
from rim.serving import (
    Engine,
    Server,
    Subject,
    command_line,
    find_engine,
    find_subject,
    page_url,
    serve,
)
from rim.serving.engines import LLAMA_VARIABLE
from rim.serving.greeting import greeting
from rim.serving.page import PAGE

RECORD = ExportRecord(default_blocks=3, most_blocks=64, sha256={}, source_sha256={})
DIRECT = ExportRecord(default_blocks=0, most_blocks=0, sha256={}, source_sha256={})
FOLDER = Subject(Path("out"), None, RECORD, (7, 8, 9))
GGUF = Subject(None, Path("m.gguf"), None)
BOTH = Subject(Path("out"), Path("out/m.gguf"), RECORD, (7, 8))
TRANSFORMERS = Engine("transformers", ("transformers", "serve"))
VLLM = Engine("vllm", ("vllm", "serve"))
LLAMA = Engine("llama.cpp", ("llama-server",))
OLD_LLAMA = Engine("llama.cpp", ("llama-server",), origins="fixed")
BLOCKS = shlex.quote('{"memory_blocks": 5}')
GREEDY = "--override-generation-config " + shlex.quote('{"temperature": 0}')


@pytest.mark.parametrize(
    ("engine", "subject", "options", "expected"),
    [
        (TRANSFORMERS, FOLDER, {}, "transformers serve out --host h --port 1"),
        (
            TRANSFORMERS,
            FOLDER,
            {"budget": 5, "page": True, "extra": ["--device", "cpu"]},
            f"transformers serve out --chat-template-kwargs {BLOCKS} --enable-cors "
            "--host h --port 1 --device cpu",
        ),
        (VLLM, FOLDER, {}, f"vllm serve out {GREEDY} --allowed-origins '[]' --host h --port 1"),
        (
            VLLM,
            BOTH,
            {"budget": 5, "page": True, "extra": ["--dtype", "half"]},
            f"vllm serve out {GREEDY} --default-chat-template-kwargs {BLOCKS} "
            "--host h --port 1 --dtype half",
        ),
        (
            LLAMA,
            GGUF,
            {},
            "llama-server -m m.gguf --jinja --skip-chat-parsing --temp 0 --cors-origins localhost "
            "--host h --port 1",
        ),
        (
            LLAMA,
            BOTH,
            {"budget": 5, "page": True, "extra": ["-c", "512"]},
            "llama-server -m out/m.gguf --jinja --skip-chat-parsing --temp 0 "
            f"--chat-template-kwargs {BLOCKS} --logit-bias 7-inf --logit-bias 8-inf "
            "--cors-origins '*' --host h --port 1 -c 512",
        ),
        (
            OLD_LLAMA,
            GGUF,
            {},
            "llama-server -m m.gguf --jinja --skip-chat-parsing --temp 0 --host h --port 1",
        ),
    ],
)
def test_command_lines_of_the_engines(engine, subject, options, expected):
    command = command_line(engine, subject, host="h", port=1, **options)
    assert shlex.join(command) == expected


@pytest.mark.parametrize(
    ("subject", "budget", "message"),
    [
        (FOLDER, 65, "this model takes 0 to 64 memory blocks, got 65"),
        (FOLDER, -1, "this model takes 0 to 64 memory blocks, got -1"),
        (Subject(Path("d"), None, DIRECT), 1, "was trained without memory blocks, got 1"),
        (Subject(Path("a@b"), None, RECORD), None, "reads '@' as a revision"),
    ],
)
def test_what_an_engine_would_misread_is_refused(subject, budget, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        command_line(TRANSFORMERS, subject, host="h", port=1, budget=budget)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Says which engines are installed; none at first."""
    found: set[str] = set()
    monkeypatch.delenv(LLAMA_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("vllm", "llama-server"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(
        rim.serving.engines,
        "_program",
        lambda name: str(tmp_path / "bin" / name) if name in found else None,
    )
    monkeypatch.setattr(
        rim.serving.engines.importlib.util,
        "find_spec",
        lambda name: name if "transformers" in found else None,
    )
    return found


@pytest.mark.parametrize(
    ("programs", "subject", "wanted", "chosen"),
    [
        ({"vllm", "transformers", "llama-server"}, BOTH, "auto", "vllm"),
        ({"transformers", "llama-server"}, BOTH, "auto", "transformers"),
        ({"llama-server"}, BOTH, "auto", "llama.cpp"),
        ({"vllm", "transformers", "llama-server"}, GGUF, "auto", "llama.cpp"),
        ({"vllm", "transformers"}, FOLDER, "transformers", "transformers"),
    ],
)
def test_the_engine_is_the_first_one_that_can(programs, subject, wanted, chosen, installed):
    installed |= programs
    assert find_engine(wanted, subject).name == chosen


@pytest.mark.parametrize(
    ("wanted", "subject", "message"),
    [
        (
            "auto",
            FOLDER,
            'install one of\n- vllm: .*\n- transformers: pip install "transformers\\[',
        ),
        ("auto", GGUF, "install one of\n- llama.cpp: put its `llama-server` on PATH"),
        ("vllm", FOLDER, "install one of\n- vllm: [^\n]*$"),
        ("llama.cpp", FOLDER, "reads GGUF files, and out has none; make one with `rim gguf out"),
        ("vllm", GGUF, "vllm reads an exported folder, not m.gguf"),
        ("ollama", FOLDER, "unknown engine 'ollama'; there are auto, vllm, transformers"),
    ],
)
def test_a_missing_engine_says_what_to_install(wanted, subject, message, installed):
    with pytest.raises(ConfigError, match=message):
        find_engine(wanted, subject)


def test_llama_server_is_taken_from_the_environment_and_asked_what_it_can(
    tmp_path, monkeypatch, installed
):
    program, _ = fake_engine(tmp_path)
    monkeypatch.setenv(LLAMA_VARIABLE, str(program))
    assert find_engine("auto", GGUF) == Engine("llama.cpp", (str(program),), origins="flag")
    monkeypatch.delenv(LLAMA_VARIABLE)
    installed.add("llama-server")  # this one prints no help at all
    assert find_engine("auto", GGUF).origins == "fixed"
    monkeypatch.setenv(LLAMA_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"RIM_LLAMA_SERVER is .*none, which is no program"):
        find_engine("auto", GGUF)


@pytest.fixture(scope="module")
def exported_run(plain_tokenizer, tmp_path_factory):
    """A run that was served once: its export stands in its folder."""
    run = make_run("gpt2", plain_tokenizer, tmp_path_factory.mktemp("run"))
    steps: list[str] = []
    assert find_subject(run, steps.append).folder == run / "exported"
    assert steps == ["loading", "writing", "checking", "describing"]
    return run


def test_a_run_is_exported_once(exported_run):
    before = (exported_run / "exported" / EXPORT_FILE).stat().st_mtime_ns
    steps: list[str] = []
    subject = find_subject(exported_run, steps.append)
    assert steps == []
    assert (exported_run / "exported" / EXPORT_FILE).stat().st_mtime_ns == before
    assert subject.record == read_record(exported_run / "exported")
    assert subject.record is not None
    assert (subject.record.default_blocks, subject.record.most_blocks) == (3, 64)
    assert len(subject.forbidden_ids) == 3 and subject.gguf is None


def test_a_gguf_file_is_found_beside_its_export(exported_run):
    folder = exported_run / "exported"
    first, second = folder / "a.gguf", folder / "b.gguf"
    first.touch()
    try:
        assert find_subject(exported_run).gguf == find_subject(folder).gguf == first
        assert find_subject(first) == find_subject(folder)
        second.touch()
        with pytest.raises(ConfigError, match=r"several GGUF files \(a.gguf, b.gguf\)"):
            find_subject(folder)
    finally:
        first.unlink()
        second.unlink(missing_ok=True)


def test_a_stale_or_changed_export_is_not_served(exported_run):
    for file, message in {
        exported_run / "model" / "rim.json": "was exported from another model",
        exported_run / "exported" / "chat_template.jinja": "chat_template.jinja changed after",
    }.items():
        before = file.read_text()
        file.write_text(before + " ")
        with pytest.raises(ConfigError, match=f"{message}.*; remove .*exported to have it"):
            find_subject(exported_run)
        file.write_text(before)
    assert find_subject(exported_run)


def test_an_export_of_an_earlier_version_is_not_served(tmp_path):
    write_json(tmp_path / EXPORT_FILE, {"sha256": {}})
    for use in (find_subject, lambda folder: plan_push(folder, "a/b")):
        with pytest.raises(ConfigError, match="an earlier version wrote it; export the run again"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "no such run or model folder: nothing"),
        ("none.gguf", "no such file: none.gguf"),
    ],
)
def test_nothing_to_serve(path, message):
    assert message in rim_command("serve", path, code=2)


def test_a_model_folder_is_to_be_exported_first(exported_run):
    with pytest.raises(ConfigError, match="is a model folder; export it first: `rim export"):
        find_subject(exported_run / "model")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Installs a fake llama-server of a certain behaviour; gives the file of its process ids."""
    monkeypatch.setattr(rim.serving.process, "STOPPING_SECONDS", 0.5)
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


def test_a_named_log_stays(engine, tmp_path):
    engine()
    with serve(tmp_path / "m.gguf", port=0, log=tmp_path / "engine.log"):
        pass
    assert "loading" in (tmp_path / "engine.log").read_text()


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
    assert body["chat_template_kwargs"] == {"memory_blocks": 2}


def greeting_of(engine: Engine, subject: Subject, **options: Any) -> str:
    with subprocess.Popen(["true"]) as process:
        server = Server(engine, subject, "http://127.0.0.1:1", process, Path("log"))
        return greeting(server, **options)


@pytest.mark.parametrize(
    ("engine", "subject", "options", "body"),
    [
        (TRANSFORMERS, FOLDER, {}, {"chat_template_kwargs": {"memory_blocks": 3}}),
        (LLAMA, GGUF, {}, {}),
        (LLAMA, GGUF, {"budget": 0}, {"chat_template_kwargs": {"memory_blocks": 0}}),
        (
            VLLM,
            FOLDER,
            {"budget": 5},
            {
                "chat_template_kwargs": {"memory_blocks": 5},
                "logit_bias": {"7": -100, "8": -100, "9": -100},
            },
        ),
    ],
)
def test_what_is_printed_asks_with_the_default_and_forbids_memory_tokens(
    engine, subject, options, body
):
    text = greeting_of(engine, subject, **options)
    curl = next(line for line in text.splitlines() if "curl" in line)
    sent = json.loads(shlex.split(curl)[-1])
    assert sent.keys() - body.keys() == {"messages", "temperature", "max_tokens"}
    assert sent | body == sent
    code = text[text.index("from openai") : text.index("content)") + 8]
    call = re.search(r"create\((.*?)\n  \)", code, re.DOTALL)
    assert call is not None
    python = eval(f"dict({call[1]})")
    assert python.pop("model") == str(subject.folder or subject.gguf)
    assert python.pop("extra_body", {}) | python == sent


@pytest.mark.parametrize(
    ("engine", "subject", "page", "line"),
    [
        (TRANSFORMERS, FOLDER, False, "Web page: start with --page"),
        (OLD_LLAMA, GGUF, False, f"Web page: {PAGE.as_uri()}#server=http%3A%2F%2F127.0.0.1%3A1"),
        (VLLM, FOLDER, True, "&blocks=0%2C3&most=64&forbid=7%2C8%2C9"),
    ],
)
def test_the_pages_address_is_printed_where_a_page_may_ask(engine, subject, page, line):
    assert line in greeting_of(engine, subject, page=page)


def test_the_page_is_one_file_that_loads_nothing_and_trusts_nothing():
    source = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"\ssrc=|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", source)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in source
    addresses = set(re.findall(r"https?://[\w.:]+", source))
    assert addresses == {"http://127.0.0.1:8000", "http://HOST:PORT."}


def test_the_pages_address_carries_its_fields():
    url = page_url("http://h:1", question="3+4 & 5?", blocks=(0, 5), most_blocks=64, run=True)
    assert url == (
        f"{PAGE.as_uri()}#server=http%3A%2F%2Fh%3A1&question=3%2B4%20%26%205%3F&blocks=0%2C5&most=64"
        "&run=1"
    )
    assert page_url("http://h") == f"{PAGE.as_uri()}#server=http%3A%2F%2Fh"
