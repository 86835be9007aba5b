"""`rim serve` without a process: which engine is taken, and its command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from serving_subjects import (
    BLOCKS,
    BOTH,
    DIRECT,
    FOLDER,
    GGUF,
    LLAMA,
    NEW_LLAMA,
    OLD_LLAMA,
    TRANSFORMERS,
    VLLM,
)
from stub_server import fake_engine

import rim.deploy.serve.engines
from rim.config import ConfigError
from rim.deploy.serve import Engine, Subject, command_line, find_engine
from rim.deploy.serve.engines import KEY_VARIABLES, LLAMA_VARIABLE, asks_for_key

KWARGS = shlex.quote('{"blocks": 5}')
GREEDY = "--override-generation-config " + shlex.quote('{"temperature": 0}')


@pytest.mark.parametrize(
    ("engine", "subject", "options", "expected"),
    [
        (TRANSFORMERS, FOLDER, {}, "transformers serve out --host h --port 1"),
        (
            TRANSFORMERS,
            FOLDER,
            {"blocks": 5, "page": True, "extra": ["--device", "cpu"]},
            f"transformers serve out --chat-template-kwargs {KWARGS} --enable-cors "
            "--host h --port 1 --device cpu",
        ),
        (VLLM, FOLDER, {}, f"vllm serve out {GREEDY} --allowed-origins '[]' --host h --port 1"),
        (
            VLLM,
            BOTH,
            {"blocks": 5, "page": True, "extra": ["--dtype", "half"]},
            f"vllm serve out {GREEDY} --default-chat-template-kwargs {KWARGS} "
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
            {"blocks": 5, "page": True, "extra": ["-c", "512"]},
            "llama-server -m out/m.gguf --jinja --skip-chat-parsing --temp 0 "
            f"--chat-template-kwargs {KWARGS} --logit-bias 7-inf --logit-bias 8-inf "
            "--cors-origins '*' --host h --port 1 -c 512",
        ),
        (
            NEW_LLAMA,
            GGUF,
            {"page": True},
            "llama-server -m m.gguf --jinja --skip-chat-parsing --temp 0 --cors-origins '*' "
            "--cors-headers Authorization,Content-Type --host h --port 1",
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
    ("subject", "blocks", "message"),
    [
        (FOLDER, 65, "this model takes 0 to 64 memory blocks, got 65"),
        (FOLDER, -1, "this model takes 0 to 64 memory blocks, got -1"),
        (Subject(Path("d"), None, DIRECT), 1, "was trained without memory blocks, got 1"),
        (Subject(Path("a@b"), None, BLOCKS), None, "reads '@' as a revision"),
    ],
)
def test_what_an_engine_would_misread_is_refused(subject, blocks, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        command_line(TRANSFORMERS, subject, host="h", port=1, blocks=blocks)


@pytest.mark.parametrize(
    ("name", "extra", "variable", "asks"),
    [
        ("llama.cpp", [], "", False),
        ("llama.cpp", ["--api-key", "a"], "", True),
        ("vllm", ["--api-key=a"], "", True),
        ("vllm", ["--dtype", "half"], "c", True),
        ("transformers", [], "c", False),
    ],
)
def test_an_engine_that_asks_for_a_key_is_known(name, extra, variable, asks, monkeypatch):
    for each in KEY_VARIABLES.values():
        monkeypatch.setenv(each, variable)
    assert asks_for_key(name, extra) == asks


def test_a_program_that_cannot_be_run_is_named(tmp_path, monkeypatch):
    program = tmp_path / "llama-server"
    program.write_text("neither a program nor a script")
    program.chmod(0o755)
    monkeypatch.setenv(LLAMA_VARIABLE, str(program))
    with pytest.raises(ConfigError, match=r"cannot run .*llama-server: Exec format error"):
        find_engine("auto", GGUF)
    monkeypatch.setattr(rim.deploy.serve.engines.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "vllm").touch(mode=0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no engine to serve with is installed"):
        find_engine("vllm", FOLDER)


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
        rim.deploy.serve.engines,
        "_program",
        lambda name: str(tmp_path / "bin" / name) if name in found else None,
    )
    monkeypatch.setattr(
        rim.deploy.serve.engines.importlib.util,
        "find_spec",
        lambda name: name if "transformers" in found else None,
    )
    return found


@pytest.mark.parametrize(
    ("programs", "subject", "wanted", "chosen"),
    [
        ({"vllm", "transformers", "llama-server"}, BOTH, "auto", "transformers"),
        ({"vllm", "llama-server"}, BOTH, "auto", "vllm"),
        ({"llama-server"}, BOTH, "auto", "llama.cpp"),
        ({"vllm", "transformers", "llama-server"}, GGUF, "auto", "llama.cpp"),
        ({"vllm", "transformers"}, FOLDER, "vllm", "vllm"),
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
            'install one of\n- transformers: pip install "transformers\\[serving.*\n- vllm: ',
        ),
        ("auto", GGUF, "install one of\n- llama.cpp: put its `llama-server` on PATH"),
        ("vllm", FOLDER, "install one of\n- vllm: [^\n]*$"),
        ("llama.cpp", FOLDER, "reads GGUF files, and out has none; make one: `rim gguf out"),
        ("vllm", GGUF, "vllm reads an exported folder, not m.gguf"),
        ("ollama", FOLDER, "unknown engine 'ollama'; there are auto, transformers, vllm"),
    ],
)
def test_a_missing_engine_says_what_to_install(wanted, subject, message, installed):
    with pytest.raises(ConfigError, match=message):
        find_engine(wanted, subject)


def test_llama_server_is_taken_from_the_environment_and_asked_what_it_can(
    tmp_path, monkeypatch, installed
):
    program = fake_engine(tmp_path)
    monkeypatch.setenv(LLAMA_VARIABLE, str(program))
    assert find_engine("auto", GGUF) == Engine(
        "llama.cpp", (str(program),), web_pages="chosen", names_headers=True
    )
    monkeypatch.delenv(LLAMA_VARIABLE)
    installed.add("llama-server")  # this one prints no help at all
    assert find_engine("auto", GGUF).web_pages == "always"
    monkeypatch.setenv(LLAMA_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"RIM_LLAMA_SERVER is .*none, which is no program"):
        find_engine("auto", GGUF)
