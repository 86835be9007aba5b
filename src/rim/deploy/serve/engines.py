"""Engines: which are installed, and the command line that starts each."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rim.config import ConfigError
from rim.deploy.serve.subject import Subject
from rim.results import cache_folder

EngineName = Literal["transformers", "vllm", "llama.cpp"]
EngineChoice = Literal["auto", EngineName]
#: In the order in which "auto" takes them. transformers takes every family and size; vLLM does not.
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
#: Names the program where it is not on PATH.
LLAMA_VARIABLE = "RIM_LLAMA_SERVER"
#: llama-cpp-python's sdist whose llama.cpp `make llama-server` compiles.
LLAMA_VERSION = "0.3.36"
#: Where engines that ask for a key find it, if their command line has none.
KEY_VARIABLES: dict[EngineName, str] = {"vllm": "VLLM_API_KEY", "llama.cpp": "LLAMA_API_KEY"}

_HOW_TO_INSTALL: dict[EngineName, str] = {
    "transformers": 'transformers: pip install "transformers[serving]"',
    "vllm": "vllm: pip install vllm (into an environment whose `vllm` is on PATH)",
    "llama.cpp": (
        f"llama.cpp: put its `llama-server` on PATH, or its path into {LLAMA_VARIABLE}, and make "
        "a GGUF file with `rim gguf`"
    ),
}


@dataclass(frozen=True)
class Engine:
    """An installed engine. `web_pages` "chosen": its command line says whether they are let in;
    "always": it lets them all in. `names_headers`: it says which headers they may send.
    """

    name: EngineName
    program: tuple[str, ...]
    web_pages: Literal["chosen", "always"] = "chosen"
    names_headers: bool = False


def find_engine(wanted: EngineChoice, subject: Subject) -> Engine:
    """The engine that serves this model here.

    Args:
        wanted: "auto" takes the first of transformers, vllm, llama.cpp that is installed.

    Raises:
        ConfigError: none; the message says what to install.
    """
    if wanted != "auto" and wanted not in ENGINES:
        raise ConfigError(f"unknown engine {wanted!r}; there are auto, {', '.join(ENGINES)}")
    names: list[EngineName] = [
        name
        for name in ENGINES
        if wanted in ("auto", name)
        and (subject.gguf if name == "llama.cpp" else subject.folder) is not None
    ]
    for name in names:
        if engine := _installed(name):
            return engine
    raise ConfigError(_why_none(wanted, subject, names))


def _why_none(wanted: EngineChoice, subject: Subject, names: Sequence[EngineName]) -> str:
    """What to do where none of `names`, those that could serve a model, is installed."""
    if names:
        listed = "\n".join(f"- {_HOW_TO_INSTALL[name]}" for name in names)
        return f"no engine to serve with is installed; install one of\n{listed}"
    if subject.several:
        listed = ", ".join(file.name for file in subject.several)
        return f"{subject.folder} has several GGUF files ({listed}); name the one to serve"
    if subject.folder is None:
        return f"{wanted} reads an exported folder, not {subject.gguf}; llama.cpp reads GGUF files"
    folder = str(subject.folder)
    steps = [["rim", "gguf", folder, "--out", f"{folder}/model.gguf"]]
    if subject.run is not None:
        steps.insert(0, ["rim", "export", str(subject.run), "--out", folder])
    commands = " and then ".join(f"`{shlex.join(step)}`" for step in steps)
    source = subject.run or folder
    return f"llama.cpp reads GGUF files, and {source} has none; make one: {commands}"


def _installed(name: EngineName) -> Engine | None:
    if name == "transformers":
        needed = ("transformers", "fastapi", "uvicorn", "openai")
        if any(importlib.util.find_spec(module) is None for module in needed):
            return None
        # -P: a folder of the current directory never stands in for a package.
        program = (sys.executable, "-P", "-m", "transformers.cli.transformers", "serve")
        return Engine(name, program)
    if name == "vllm":
        return Engine(name, (vllm, "serve")) if (vllm := _program("vllm")) else None
    if (llama := find_llama()) is None:
        return None
    try:
        shown = subprocess.run([llama, "--help"], capture_output=True, check=False)
    except OSError as error:
        raise ConfigError(f"cannot run {llama}: {error.strerror}") from None
    # Older ones let every web page in, and have no option for it.
    options = shown.stdout + shown.stderr
    chosen = "chosen" if b"--cors-origins" in options else "always"
    return Engine(name, (llama,), chosen, b"--cors-headers" in options)


def find_llama(name: str = "llama-server") -> str | None:
    """A program of llama.cpp: named by `RIM_LLAMA_SERVER` (others than the server: beside it), of
    this environment, on PATH, or compiled by `make llama-server`.

    Raises:
        ConfigError: the variable names no program.
    """
    named = os.environ.get(LLAMA_VARIABLE)
    if named:
        server = shutil.which(named)
        if server is None:
            raise ConfigError(f"{LLAMA_VARIABLE} is {named}, which is no program")
        if name == "llama-server":
            return server
        if beside := shutil.which(str(Path(server).with_name(name))):
            return beside
    return _program(name) or shutil.which(str(llama_cache() / name))


def llama_cache() -> Path:
    """Where `make llama-server` puts its programs."""
    return cache_folder(f"llama.cpp-{LLAMA_VERSION}")


def _program(name: str) -> str | None:
    """A program of this environment, or one on PATH."""
    beside = Path(sys.executable).with_name(name)
    return shutil.which(str(beside)) or shutil.which(name)


def command_line(
    engine: Engine,
    subject: Subject,
    *,
    host: str,
    port: int,
    blocks: int | None = None,
    page: bool = False,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command that starts a server.

    Args:
        blocks: memory blocks of a request that names no number; None: as in training.
        page: whether web pages, ours among them, may ask the server.
        extra: further arguments of the engine; they come last, and so win.

    Raises:
        ConfigError: a number of blocks, or a path, that this engine cannot take.
    """
    if blocks is not None and subject.blocks is not None:
        subject.blocks.check(blocks)
    kwargs = [] if blocks is None else [json.dumps({"blocks": blocks})]
    arguments = _ARGUMENTS[engine.name](engine, subject, kwargs, page)
    return [*engine.program, *arguments, "--host", host, "--port", str(port), *extra]


def asks_for_key(name: EngineName, extra: Sequence[str] = ()) -> bool:
    """Whether an engine wants a key: one of its arguments, or from its environment."""
    told = any(argument.partition("=")[0] == "--api-key" for argument in extra)
    return told or bool(os.environ.get(KEY_VARIABLES.get(name, "")))


def _transformers(engine: Engine, subject: Subject, kwargs: list[str], page: bool) -> list[str]:
    folder = str(subject.folder)
    if "@" in folder:
        raise ConfigError(f"transformers serve reads '@' as a revision: rename or move {folder}")
    cors = ["--enable-cors"] if page else []
    return [folder, *_option("--chat-template-kwargs", kwargs), *cors]


def _vllm(engine: Engine, subject: Subject, kwargs: list[str], page: bool) -> list[str]:
    return [
        str(subject.folder),
        # Of generation_config.json it reads neither `do_sample` nor `suppress_tokens`.
        *("--override-generation-config", '{"temperature": 0}'),
        *_option("--default-chat-template-kwargs", kwargs),
        # It lets every web page in unless told otherwise.
        *([] if page else ["--allowed-origins", "[]"]),
    ]


def _llama(engine: Engine, subject: Subject, kwargs: list[str], page: bool) -> list[str]:
    # Its own chat parser shows the memory tokens of some templates as part of the answer.
    arguments = ["-m", str(subject.gguf), "--jinja", "--skip-chat-parsing", "--temp", "0"]
    arguments += _option("--chat-template-kwargs", kwargs)
    arguments += _option("--logit-bias", [f"{token}-inf" for token in subject.forbidden_ids])
    if engine.web_pages == "chosen":
        arguments += ["--cors-origins", "*" if page else "localhost"]
    if page and engine.names_headers:
        # Its "*" has no room for a key: browsers want that header named.
        arguments += ["--cors-headers", "Authorization,Content-Type"]
    return arguments


def _option(name: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (name, value)]


_ARGUMENTS = {"vllm": _vllm, "transformers": _transformers, "llama.cpp": _llama}
