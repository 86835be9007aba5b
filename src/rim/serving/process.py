"""A server as a child process: started, waited for, stopped by its id."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from rim.config import ConfigError
from rim.serving.client import Client
from rim.serving.engines import Engine, EngineName, command_line, find_engine
from rim.serving.subject import Subject, find_subject

HOST = "127.0.0.1"
PORT = 8000
STARTING_SECONDS = 600.0
STOPPING_SECONDS = 20.0
_LAST_LINES = 15


@dataclass(frozen=True)
class Server:
    """A running server; as a context manager it stops at the end of the block."""

    engine: Engine
    subject: Subject
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def model(self) -> str:
        """The model's name in a request, for clients that insist on one."""
        return str(self.subject.folder or self.subject.gguf)

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Tokens that a request itself must forbid, because the engine cannot be told to."""
        return self.subject.forbidden_ids if self.engine.name == "vllm" else ()

    def client(self) -> Client:
        return Client(self.url, forbidden_ids=self.forbidden_ids)

    def wait(self) -> None:
        """Wait until the engine ends.

        Raises:
            ConfigError: it always does, for an engine is not meant to end by itself.
        """
        self.process.wait()
        raise ConfigError(self._how_it_ended())

    def wait_until_ready(self, seconds: float, progress: Callable[[float], None]) -> None:
        """Wait for the first good answer to a health check.

        Raises:
            ConfigError: the engine ended, or took longer.
        """
        begin, client = time.monotonic(), self.client()
        while not client.is_ready():
            if self.process.poll() is not None:
                raise ConfigError(self._how_it_ended())
            passed = time.monotonic() - begin
            if passed > seconds:
                raise ConfigError(
                    f"{self.engine.name} did not answer within {seconds:.0f} s; a large model may "
                    f"need a longer --timeout. The end of its log:\n{self._end_of_log()}"
                )
            progress(passed)
            time.sleep(0.25)

    def stop(self) -> None:
        """End the engine and the processes it started; its temporary log goes with it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOPPING_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C is impatience
                self.process.kill()
                self.process.wait()
        # The engine leads a process group of its own: what it left behind is in there.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.log.parent.name.startswith(_LOG_FOLDER):
            shutil.rmtree(self.log.parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _how_it_ended(self) -> str:
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self.engine.name} ended ({how}). The end of its log:\n{self._end_of_log()}"

    def _end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-_LAST_LINES:]) or "(empty)"


_LOG_FOLDER = "rim-serve-"


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
        log: file for what the engine writes; a temporary one if left out.
        progress: called with one line at every step.

    Raises:
        ConfigError: nothing to serve, no engine, a port in use, or an engine that does not start.
    """
    subject = find_subject(path, lambda step: progress(f"exporting the run: {step}"))
    found = find_engine(engine, subject)
    port = _free_port(host, port)
    command = command_line(
        found, subject, host=host, port=port, budget=budget, page=page, extra=extra
    )
    log = Path(log) if log else Path(tempfile.mkdtemp(prefix=_LOG_FOLDER)) / "log.txt"
    url = f"http://{_reachable(host)}:{port}"
    server = Server(found, subject, url, _start(command, log), log)
    try:
        server.wait_until_ready(
            timeout, lambda passed: progress(f"starting {found.name}: {passed:.0f} s")
        )
    except BaseException:
        server.stop()
        raise
    return server


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal reaches us alone, and we end the engine.
            start_new_session=True,
        )


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
