"""Servers for tests of the client and of `rim serve`: they say what they are told to."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Generator
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
    headers: list[dict[str, str]]

    @property
    def keys(self) -> list[str | None]:
        return [headers.get("Authorization") for headers in self.headers]


@contextlib.contextmanager
def stub(*replies: Reply) -> Generator[Stub]:
    """Answers its questions one after the other with these, the last of them for ever."""
    bodies: list[dict[str, Any]] = []
    headers: list[dict[str, str]] = []

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
            headers.append({name.title(): value for name, value in self.headers.items()})
            said = replies[min(len(bodies), len(replies)) - 1]
            self.send_response(said.status)
            if said.promised is not None:
                self.send_header("Content-Length", str(said.promised))
            self._headers(said.kind)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in said.pieces:
                    time.sleep(said.pause)
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Stub(f"http://127.0.0.1:{server.server_address[1]}", bodies, headers)
        finally:
            server.shutdown()
            thread.join()


FAKE_ENGINE = """#!/bin/sh
case "$*" in *--help*) echo "--cors-origins ORIGINS --cors-headers HEADERS"; exit;; esac
echo "engine $$ $*"
exit 7
"""


def fake_engine(folder: Path) -> Path:
    """A program that has the options of `llama-server`, says who it is, and ends."""
    program = folder / "llama-server"
    program.write_text(FAKE_ENGINE)
    program.chmod(0o755)
    return program
