"""Servers for tests of the client and of `rim serve`: they say what they are told to."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def event(content: str | None = None, reason: str | None = None, **more: Any) -> str:
    """One event of a streamed chat completion."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n"


@dataclass
class Reply:
    """What a server says to a question, piece by piece with a pause between the pieces."""

    pieces: list[str] = field(default_factory=lambda: [event("#### 7"), event(None, "stop")])
    status: int = 200
    kind: str = "text/event-stream"
    pause: float = 0.0
    promised: int | None = None  # bytes of the whole answer


@dataclass
class Stub:
    url: str
    bodies: list[dict[str, Any]]
    keys: list[str | None]


@contextlib.contextmanager
def stub(reply: Reply) -> Iterator[Stub]:
    bodies: list[dict[str, Any]] = []
    keys: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _headers(self, kind: str) -> None:
            """As an engine does that lets web pages in."""
            self.send_header("Content-Type", kind)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self._headers("text/plain")

        def do_OPTIONS(self) -> None:
            self.send_response(200)
            self._headers("text/plain")

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(length)) | {"path": self.path})
            keys.append(self.headers["Authorization"])
            self.send_response(reply.status)
            if reply.promised is not None:
                self.send_header("Content-Length", str(reply.promised))
            self._headers(reply.kind)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in reply.pieces:
                    time.sleep(reply.pause)
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Stub(f"http://127.0.0.1:{server.server_address[1]}", bodies, keys)
        finally:
            server.shutdown()
            thread.join()


FAKE_ENGINE = """#!{python}
import http.server, json, os, signal, subprocess, sys, threading, time
if "--help" in sys.argv:
    sys.exit(print("--cors-origins ORIGINS --cors-headers HEADERS"))
mode = {mode!r}
print("loading", *sys.argv[1:], flush=True)
if mode == "dies":
    sys.exit("no memory left")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = [subprocess.Popen(["sleep", "600"])] if mode == "leaves a child" else []
with open({pids!r}, "w") as file:
    print(os.getpid(), *[child.pid for child in children], file=file)
if mode == "opens no port":
    time.sleep(600)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mode == "never ready" else 200)
        self.end_headers()
        if mode == "dies later":
            threading.Timer(2, os._exit, [9]).start()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = mode == "takes no budget" and "--chat-template-kwargs" in sys.argv
        choice = dict(delta=dict(content=str(body["max_tokens"])), finish_reason="length")
        self.send_response(500 if refused else 200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        said = "blocks must be 0 to 64" if refused else json.dumps(dict(choices=[choice]))
        self.wfile.write(("" if refused else "data: ").encode() + said.encode() + b"\\n\\n")
    def log_message(self, *_):
        pass

value = dict(zip(sys.argv, sys.argv[1:]))
http.server.HTTPServer((value["--host"], int(value["--port"])), Handler).serve_forever()
"""


def fake_engine(folder: Path, mode: str = "") -> tuple[Path, Path]:
    """A program that acts as `llama-server` does, and the file where it writes process ids."""
    program, pids = folder / "llama-server", folder / "pids"
    program.write_text(FAKE_ENGINE.format(python=sys.executable, mode=mode, pids=str(pids)))
    program.chmod(0o755)
    return program, pids
