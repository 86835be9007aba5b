"""`rim serve`: checks, a greeting that says how to ask, and then this process is the engine."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rim.config import ConfigError
from rim.config.recipe_yaml import load_recipe
from rim.data.examples import DataError
from rim.data.sources import read_source
from rim.deploy.serve.engines import (
    KEY_VARIABLES,
    Engine,
    EngineChoice,
    asks_for_key,
    command_line,
    find_engine,
)
from rim.deploy.serve.subject import Subject, find_subject

#: Asks a server from a browser: one file, opened as it is.
PAGE = Path(__file__).with_name("page.html")
#: What is asked where no run says what it was trained on, and the longest that is printed.
QUESTION, LONGEST_QUESTION = "3+4-5=", 300
_MAX_TOKENS = 64


@dataclass(frozen=True)
class Plan:
    """A server that can be started; `blocks` is the server's own default number, if it has one.

    Where `subject.run` is a run, that is to be exported first, and then planned for again.
    """

    engine: Engine
    subject: Subject
    command: list[str]
    url: str
    blocks: int | None = None
    page: bool = False
    has_key: bool = False

    @property
    def model(self) -> str:
        """The model's name in a request, for clients that insist on one."""
        return str(self.subject.folder or self.subject.gguf)

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Tokens that a request itself must forbid, because the engine cannot be told to."""
        return self.subject.forbidden_ids if self.engine.name == "vllm" else ()

    @property
    def default_blocks(self) -> int | None:
        """Blocks of a request that names no number; None where only the GGUF file knows."""
        stated = self.subject.blocks
        return stated.default if self.blocks is None and stated else self.blocks

    @property
    def key_variable(self) -> str:
        """The key itself is not printed: lines are copied, and shells remember them."""
        return KEY_VARIABLES.get(self.engine.name, "API_KEY")

    def start(self) -> NoReturn:
        """Become the engine: it has the terminal, its signals and its exit code from now on.

        Raises:
            ConfigError: its program cannot be run.
        """
        try:
            os.execvp(self.command[0], self.command)
        except OSError as error:
            raise ConfigError(f"cannot run {self.command[0]}: {error.strerror}") from None


def plan_server(
    path: str | Path,
    *,
    engine: EngineChoice = "auto",
    host: str = "127.0.0.1",
    port: int = 8000,
    blocks: int | None = None,
    page: bool = False,
    extra: Sequence[str] = (),
) -> Plan:
    """Find a model and an engine for it; nothing is exported or started yet.

    Args:
        path: exported folder, GGUF file, or run folder (to be exported into RUN/exported).
        engine: "auto" takes the first of transformers, vllm, llama.cpp that is installed.
        blocks: memory blocks of a request that names no number; None: as in training.
        page: let web pages ask the server (see docs/serving.md for what that means).
        extra: further arguments of the engine.

    Raises:
        ConfigError: nothing to serve, no engine, or a number of blocks that the model does not
            take.
    """
    for argument in extra:
        if (own := argument.partition("=")[0]) in ("--host", "--port"):
            raise ConfigError(f"give {own} before `--`: the lines that are printed need it, too")
    subject = find_subject(path)
    found = find_engine(engine, subject)
    command = command_line(
        found, subject, host=host, port=port, blocks=blocks, page=page, extra=extra
    )
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    return Plan(found, subject, command, url, blocks, page, asks_for_key(found.name, extra))


def check_port(host: str, port: int) -> None:
    """Whether a server can listen there: an engine finds that out after it has loaded the model.

    Raises:
        ConfigError: something else does, or the address is not of this machine.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from None
    missing: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        try:
            _bind_once(family, kind, protocol, address)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise _cannot_listen(host, port, error) from None
            missing.append(error)  # as ::1 where IPv6 is off
    if missing and len(missing) == len(addresses):
        raise _cannot_listen(host, port, missing[0])


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> ConfigError:
    taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    hint = "; give another one with --port" if taken else ""
    why = getattr(error, "strerror", None) or error
    return ConfigError(f"cannot listen on port {port} of {host}: {why}{hint}")


def _bind_once(family: int, kind: int, protocol: int, address: Any) -> None:
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # as servers do: what is only just closing is not in the way
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)


def trained_question(path: Path) -> str:
    """A question of the data that a run (or the run around an export) was trained on."""
    recipes = [folder / "config.yaml" for folder in (path, path.parent)]
    recipe = next((file for file in recipes if file.exists()), None)
    if recipe is None:
        return QUESTION
    try:
        source = load_recipe(recipe).data.train
        if source.task is None and not Path(source.path or "").is_file():
            return QUESTION  # a set of the hub is no reason to ask the network
        first = next(read_source(source)).question
    except (ConfigError, DataError, OSError, StopIteration):  # changed since
        return QUESTION
    return first if len(first) <= LONGEST_QUESTION else QUESTION


def greeting(plan: Plan, question: str = QUESTION) -> str:
    """The address, and how to ask there: curl, our command, Python and our page."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": _MAX_TOKENS}
    extra: dict[str, Any] = {}
    if plan.default_blocks is not None:
        extra = {"chat_template_kwargs": {"blocks": plan.default_blocks}}
    if plan.forbidden_ids:
        options["logit_bias"] = {str(token): -100 for token in plan.forbidden_ids}
    messages = [{"role": "user", "content": question}]
    variable = plan.key_variable
    curl = " ".join(
        [
            f"curl -s {shlex.quote(plan.url + '/v1/chat/completions')}",
            '-H "Content-Type: application/json"',
            *([f'-H "Authorization: Bearer ${variable}"'] if plan.has_key else []),
            f"-d {shlex.quote(json.dumps({'messages': messages, **options, **extra}))}",
        ]
    )
    key = ["--api-key-env", variable] if plan.has_key else []
    ids = ",".join(map(str, plan.forbidden_ids))
    never = ["--forbid", ids] if ids else []
    ask = shlex.join(["rim", "ask", "--server", plan.url, question, *key, *never])
    if extra:  # unknown to the client, so it goes as it is
        options["extra_body"] = extra
    arguments = {"model": plan.model, "messages": messages, **options}
    python = [
        *(["import os"] if plan.has_key else []),
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{plan.url}/v1", api_key='
        + (f'os.environ["{variable}"])' if plan.has_key else '"none")'),
        "answer = client.chat.completions.create(",
        *(f"    {name}={value!r}," for name, value in arguments.items()),
        ")",
        "print(answer.choices[0].message.content)",
    ]
    lines = "\n  ".join(python)
    return (
        f"Starting {plan.engine.name} on {plan.url}; when it says that it is up, ask it:\n\n"
        f"  {curl}\n\n  {ask}\n\n  {lines}\n\n{_page_line(plan)}\nCtrl-C stops the server.\n"
    )


def _page_line(plan: Plan) -> str:
    if not plan.page and plan.engine.web_pages == "chosen":
        return "Web page: start with --page to ask from a browser."
    stated, blocks = plan.subject.blocks, plan.default_blocks
    address = page_url(
        plan.url,
        blocks=[] if blocks is None else sorted({0, blocks}),
        most_blocks=stated.most if stated else None,
        trained_blocks=stated.default if stated else None,
        forbidden_ids=plan.forbidden_ids,
    )
    return f"Web page: {address}"


def page_url(
    server: str,
    *,
    question: str = "",
    blocks: Sequence[int] = (),
    most_blocks: int | None = None,
    trained_blocks: int | None = None,
    forbidden_ids: Sequence[int] = (),
    run: bool = False,
) -> str:
    """The page's file address with its fields filled in.

    Args:
        blocks: numbers of memory blocks to ask with.
        most_blocks: end of the slider.
        trained_blocks: blocks of the model's training; the page warns of more.
        forbidden_ids: tokens an answer may not contain, see `Client`.
        run: ask at once.
    """
    fields = {
        "server": server,
        "question": question,
        "blocks": ",".join(map(str, blocks)),
        "most": "" if most_blocks is None else str(most_blocks),
        "trained": "" if trained_blocks is None else str(trained_blocks),
        "forbid": ",".join(map(str, forbidden_ids)),
        "run": "1" if run else "",
    }
    kept = {name: value for name, value in fields.items() if value}
    return f"{PAGE.as_uri()}#{urllib.parse.urlencode(kept, quote_via=urllib.parse.quote)}"
