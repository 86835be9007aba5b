"""Python processes that begin with the libraries imported.

Importing torch, transformers and peft takes seconds of a processor; a test that wants a process of
its own (to kill it, for its exit code, as one of two that train together) wants none of them. So a
server imports them once and forks for each process asked for:

    result = warm.run([sys.executable, "-m", "rim", "train", "recipe.yaml"])
    process = warm.Popen([sys.executable, "-c", "...", "an argument"])

Arguments are those of `subprocess`, as far as tests need them. A few tests start the real thing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
TimeoutExpired = subprocess.TimeoutExpired

#: Imported before the first fork. What a process imports beyond that it pays for itself.
PRELOADED = (
    "rim.train.curriculum",
    "rim.infer.reasoner",
    "rim.study.compare.runner",
    "rim.cli",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
)


# --- in the server ---


def serve(listener: socket.socket) -> None:
    """Forks for whoever connects, until the one who started it closes its standard input."""
    for name in PRELOADED:
        __import__(name)
    gc.collect()
    gc.freeze()  # collecting in a process would look through all of it, and copy its pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            attend(connection)
        connection.close()


def attend(connection: socket.socket) -> None:
    """Forks the process, tells its number, waits for it and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    if not message:
        os._exit(0)  # who connected only wanted to see that we are here
    wanted = json.loads(message)
    process = os.fork()
    if not process:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        os._exit(become(**wanted))
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{process}\n".encode())
    for file in files:
        os.close(file)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(arguments: list[str], cwd: str, env: dict[str, str]) -> int:
    """What `python ARGUMENTS` does, in this process; its exit code."""
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, if all began behind an "&"
    os.environ.clear()
    os.environ.update(env)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, mode), encoding="utf-8", line_buffering=number == 2)
        for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
    )
    kind, *rest = arguments
    code = 0
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = rest
            sys.path.insert(0, cwd)
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(kind).parent))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


# --- in the test ---


class _Server:
    """Started by the first process that is asked for; it ends with this one."""

    address: str | None = None

    @classmethod
    def connect(cls) -> socket.socket:
        if cls.address is None:
            folder = tempfile.mkdtemp(prefix="warm")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            cls.address = f"{folder}/socket"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(cls.address)
            listener.listen(64)
            command = [sys.executable, str(Path(__file__).resolve()), str(listener.fileno())]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            cls.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=env
            )
            listener.close()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(cls.address)
        return connection


class Popen:
    """As `subprocess.Popen([sys.executable, ...])`; `text` is how its pipes are read."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = False,
    ):
        python, *arguments = map(str, command)
        assert python == sys.executable, "only Python is warm"
        self.args, self.returncode = command, None
        self.stdin, self.stdout = None, None
        null = os.open(os.devnull, os.O_RDWR)
        given, mine = [null], [null]

        def file(wanted: int | IO[Any] | None, own: int) -> int:
            if wanted is None:
                return own
            if wanted == subprocess.DEVNULL:
                return null
            return wanted if isinstance(wanted, int) else wanted.fileno()

        if stdin == subprocess.PIPE:
            given[0], end = os.pipe()
            mine.append(given[0])
            self.stdin = os.fdopen(end, "w" if text else "wb")
        elif stdin not in (None, subprocess.DEVNULL):
            given[0] = file(stdin, 0)
        if stdout == subprocess.PIPE:
            end, out = os.pipe()
            mine.append(out)
            self.stdout = os.fdopen(end, "r" if text else "rb")
        else:
            out = file(stdout, 1)
        given += [out, out if stderr == subprocess.STDOUT else file(stderr, 2)]
        wanted = {
            "arguments": arguments,
            "cwd": str(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
        }
        self._connection = _Server.connect()
        socket.send_fds(self._connection, [json.dumps(wanted).encode()], given)
        for number in mine:
            os.close(number)
        self._told = b""
        self.pid = self._number()

    def _number(self) -> int:
        """The next line of what the server says; raises as the socket does when time is up."""
        while b"\n" not in self._told:
            said = self._connection.recv(64)
            assert said, "the server of warm processes ended"
            self._told += said
        line, _, self._told = self._told.partition(b"\n")
        return int(line)

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)  # 0 asks without waiting
            try:
                self.returncode = self._number()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._connection.close()
        return self.returncode

    def communicate(self) -> tuple[Any, None]:
        if self.stdin:
            self.stdin.close()
        read = self.stdout.read() if self.stdout else None
        if self.stdout:
            self.stdout.close()
        self.wait()
        return read, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


def run(
    command: Sequence[str | Path],
    *,
    check: bool = False,
    timeout: float | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(..., capture_output=True, text=True)`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=env)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        result = subprocess.CompletedProcess(command, code, out.read(), err.read())
    if check:
        result.check_returncode()
    return result


def stand_in(arguments: Sequence[str]) -> list[str]:
    """A command for others to start: a small process that has a warm one do its work."""
    _Server.connect().close()
    assert _Server.address
    return [sys.executable, "-S", "-E", str(Path(__file__).resolve()), _Server.address, *arguments]


def stand(address: str, arguments: Sequence[str]) -> int:
    _Server.address = address
    process = Popen([sys.executable, *arguments])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(stand(sys.argv[1], sys.argv[2:]))
