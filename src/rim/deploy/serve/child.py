"""An engine's process: its end is noticed, and brought about, without touching anybody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from rim.config import ConfigError

STOPPING_SECONDS = 20.0
_LOOKING_SECONDS = 0.05

Process = subprocess.Popen[bytes]


def start(command: Sequence[str], log: Path) -> Process:
    """Start an engine in a process group of its own; what it writes is added to the log.

    Raises:
        ConfigError: no such log can be written, or the program cannot be run.
    """
    with contextlib.ExitStack() as stack:
        try:
            output = stack.enter_context(log.open("ab"))
        except OSError as error:
            raise ConfigError(f"cannot write the log {log}: {error.strerror}") from None
        try:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches us alone, and we end the engine.
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(f"cannot run {command[0]}: {error.strerror}") from None


def exit_code(process: Process) -> int | None:
    """The engine's exit code, minus the number of a signal that ended it; None while it runs.

    An ended engine's process group is ended before its id is given back: later the id could be
    another's.
    """
    if process.returncode is not None:
        return process.returncode
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
    elif process.poll() is None:  # macOS before Python 3.13: its id is free for a moment
        return None
    _kill_group(process)
    return process.wait()


def is_taken(process: Process, port: int) -> bool:
    """Whether the port is open, and by a program that is older than the engine and so not of its
    making. False wherever that is not sure: a container's port, say, belongs to nobody we can see.
    """
    try:
        begun = psutil.Process(process.pid).create_time()
        owners = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and getattr(connection.laddr, "port", 0) == port
        }
        return bool(owners) and all(
            pid is not None and psutil.Process(pid).create_time() < begun for pid in owners
        )
    except (psutil.Error, OSError, RuntimeError):
        return False


def stopper(process: Process, folder: Path | None) -> Callable[[], object]:
    """Stops the engine when called, or else when Python ends; a second call does nothing.

    Args:
        folder: temporary, removed afterwards.
    """
    # It holds the process itself, so that it is called by the end of Python and never before.
    return weakref.finalize(process, _stop, process, folder, os.getpid())


def _stop(process: Process, folder: Path | None, owner: int) -> None:
    if os.getpid() != owner:  # a fork of ours ends: the engine is not its own
        return
    try:
        if exit_code(process) is None:
            os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOPPING_SECONDS
        while exit_code(process) is None and time.monotonic() < deadline:
            time.sleep(_LOOKING_SECONDS)
    except KeyboardInterrupt:  # a second Ctrl-C is impatience
        pass
    finally:
        if process.returncode is None:
            _kill_group(process)
            process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _kill_group(process: Process) -> None:
    """The engine leads its group: what it started, and perhaps left behind, is in there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
