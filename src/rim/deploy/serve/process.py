"""A server as a child process: started, waited for, stopped by its id."""

from __future__ import annotations

import errno
import shutil
import socket
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from rim.config import ConfigError
from rim.deploy.serve import child
from rim.deploy.serve.client import Client
from rim.deploy.serve.engines import Engine, EngineName, api_key, command_line, find_engine
from rim.deploy.serve.subject import Subject, find_subject

HOST = "127.0.0.1"
PORT = 8000
STARTING_SECONDS = 600.0
_LOOKING_SECONDS = 0.25
_LAST_LINES = 15


@dataclass(frozen=True)
class Server:
    """A running server; as a context manager it stops at the end of the block, and otherwise when
    Python ends, at the latest.

    `log_begin` is the byte of the log where its part begins; `api_key` is what the engine asks for.
    """

    engine: Engine
    subject: Subject
    url: str
    process: child.Process
    log: Path
    stop_engine: Callable[[], object]
    log_begin: int = 0
    api_key: str | None = None

    @property
    def model(self) -> str:
        """The model's name in a request, for clients that insist on one."""
        return str(self.subject.folder or self.subject.gguf)

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Tokens that a request itself must forbid, because the engine cannot be told to."""
        return self.subject.forbidden_ids if self.engine.name == "vllm" else ()

    def client(self) -> Client:
        return Client(self.url, forbidden_ids=self.forbidden_ids, api_key=self.api_key)

    def wait(self) -> None:
        """Wait until the engine ends.

        Raises:
            ConfigError: it always does, for an engine is not meant to end by itself.
        """
        while child.exit_code(self.process) is None:
            time.sleep(_LOOKING_SECONDS)
        raise ConfigError(self._how_it_ended())

    def wait_until_ready(self, seconds: float, progress: Callable[[float], None]) -> None:
        """Wait for the first good answer to a health check.

        Raises:
            ConfigError: the engine ended, or took longer.
        """
        begin, client = time.monotonic(), self.client()
        port = urllib.parse.urlsplit(self.url).port or 0
        while True:
            answers = client.is_ready()
            self._check_alive()
            # Another program may have taken the port before ours had loaded.
            if answers and not child.is_taken(self.process, port):
                return
            passed = time.monotonic() - begin
            if passed > seconds:
                advice = (
                    "another program answers on its port, choose one with --port"
                    if answers
                    else "a large model may need a longer --timeout"
                )
                raise ConfigError(
                    f"{self.engine.name} did not answer within {seconds:.0f} s; {advice}. "
                    f"The end of its log:\n{self._end_of_log()}"
                )
            progress(passed)
            time.sleep(_LOOKING_SECONDS)

    def check_budget(self, budget: int) -> None:
        """Ask once with the server's default number of blocks.

        Raises:
            ConfigError: the server refuses; the message says what it said.
        """
        try:
            self.client().ask("1", max_new_tokens=1)
        except ConfigError as error:
            raise ConfigError(f"no answer with --budget {budget}: {error}") from None

    def stop(self) -> None:
        """End the engine and the processes it started; its temporary log goes with it."""
        self.stop_engine()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _check_alive(self) -> None:
        if child.exit_code(self.process) is not None:
            raise ConfigError(self._how_it_ended())

    def _how_it_ended(self) -> str:
        code = child.exit_code(self.process) or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self.engine.name} ended ({how}). The end of its log:\n{self._end_of_log()}"

    def _end_of_log(self) -> str:
        written = self.log.read_bytes()[self.log_begin :].decode("utf-8", "replace")
        return "\n".join(written.strip().splitlines()[-_LAST_LINES:]) or "(empty)"


def serve(
    path: str | Path,
    *,
    engine: EngineName | Literal["auto"] = "auto",
    host: str = HOST,
    port: int = PORT,
    budget: int | None = None,
    page: bool = False,
    extra: Sequence[str] = (),
    timeout: float = STARTING_SECONDS,
    log: str | Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Server:
    """Start an installed engine on a model and wait until it answers.

    Args:
        path: exported folder, GGUF file, or run folder (exported into RUN/exported first).
        engine: "auto" takes the first of vllm, transformers, llama.cpp that is installed.
        port: 0 takes any free one.
        budget: memory blocks of a request that names no number; None: as in training.
        page: let web pages ask the server (see docs/serving.md for what that means).
        extra: further arguments of the engine.
        timeout: seconds until the first answer.
        log: file to which is added what the engine writes; a temporary one if left out.
        progress: called with one line at every step.

    Raises:
        ConfigError: nothing to serve, no engine, a port in use, or an engine that does not start.
    """
    if log is not None:
        _check_log(Path(log))
    subject = find_subject(path, lambda step: progress(f"exporting the run: {step}"))
    found = find_engine(engine, subject)
    port = _free_port(host, port)
    command = command_line(
        found, subject, host=host, port=port, budget=budget, page=page, extra=extra
    )
    url = f"http://{_reachable(host)}:{port}"
    server = _start(found, subject, url, command, log, api_key(found.name, extra))
    try:
        server.wait_until_ready(
            timeout, lambda passed: progress(f"starting {found.name}: {passed:.0f} s")
        )
        if budget is not None:
            progress(f"asking with {budget} memory blocks")
            server.check_budget(budget)
    except BaseException:
        server.stop()
        raise
    return server


def _start(
    engine: Engine,
    subject: Subject,
    url: str,
    command: Sequence[str],
    log: str | Path | None,
    key: str | None,
) -> Server:
    temporary = None if log is not None else Path(tempfile.mkdtemp(prefix="rim-serve-"))
    file = temporary / "log.txt" if temporary else Path(str(log))
    begin = file.stat().st_size if file.exists() else 0
    try:
        process = child.start(command, file)
    except BaseException:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    stop = child.stopper(process, temporary)
    return Server(engine, subject, url, process, file, stop, begin, key)


def _check_log(log: Path) -> None:
    """
    Raises:
        ConfigError: no file can be written there; better known before a long export.
    """
    if not log.parent.is_dir():
        raise ConfigError(f"cannot write the log {log}: there is no folder {log.parent}")
    if log.is_dir():
        raise ConfigError(f"cannot write the log {log}: it is a folder")


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        ConfigError: it is in use, or the host is none of this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use; choose another with --port (0: any free one)"
            ) from None
        raise ConfigError(f"cannot serve on {host}, port {port}: {error.strerror}") from None


def _reachable(host: str) -> str:
    """An address of this machine at which a server on `host` is found, as it stands in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
