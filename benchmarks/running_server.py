"""A server as a child process, for measurements and tests (`rim serve` becomes the engine)."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from pathlib import Path

from rim.deploy.serve import Client, Plan, plan_server

#: vLLM takes minutes on a busy CPU; a process that ends is noticed at once.
STARTING_SECONDS = 900.0


@contextlib.contextmanager
def running(path: Path, engine: str, extra: Sequence[str] = ()) -> Generator[Plan]:
    """Start an engine on a free port and wait until it answers; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    plan = plan_server(path, engine=engine, port=port, extra=extra)  # type: ignore[arg-type]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            plan.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            if not is_up(plan.url, process):
                log.seek(0)
                said = log.read().decode(errors="replace")
                raise RuntimeError(f"{engine} does not answer: {why(said)}\n{said[-2000:]}")
            yield plan
        finally:
            process.terminate()
            process.wait()


def why(log: str) -> str:
    """The first error that a log names: later ones are those of processes that missed the first."""
    found = re.search(r"\b[A-Z]\w*Error: .*", log)
    return found[0] if found else "its log names no error"


def is_up(url: str, process: subprocess.Popen) -> bool:
    """Whether a server passes its health check in time; False as soon as its process ended."""
    deadline = time.monotonic() + STARTING_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return True
        time.sleep(0.2)
    return False


def client_of(plan: Plan) -> Client:
    return Client(plan.url, forbidden_ids=plan.forbidden_ids)
