"""A small OpenAI-compatible server whose answers a test decides, over real HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

#: Problems of this form are solved by `solve`.
PROBLEM = "Problem: "


@dataclass
class Said:
    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reason: str = "stop"


@dataclass
class Teacher:
    url: str
    bodies: list[dict[str, Any]]
    keys: list[str | None]

    def asked(self) -> list[str]:
        return [question_of(body) for body in self.bodies]


def question_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"].rpartition(PROBLEM)[2]


@contextlib.contextmanager
def teacher(say: Callable[[str, dict[str, Any]], Said]) -> Generator[Teacher]:
    """`say` gets the question and the whole request."""
    bodies: list[dict[str, Any]] = []
    keys: list[str | None] = []
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                bodies.append(body)
                keys.append(self.headers.get("Authorization"))
                said = say(question_of(body), body)
            time.sleep(said.delay)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(said)

        def _send(self, said: Said) -> None:
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            good = said.status == 200
            self.send_header("Content-Type", "text/event-stream" if good else "application/json")
            self.end_headers()
            if not good:
                self.wfile.write(json.dumps({"error": {"message": said.text}}).encode())
                return
            pieces = [said.text[i : i + 40] for i in range(0, len(said.text), 40)]
            for piece in pieces:
                self._event({"choices": [{"index": 0, "delta": {"content": piece}}]})
            end = {"index": 0, "delta": {}, "finish_reason": said.reason}
            self._event({"choices": [end]})
            self._event({"choices": [], "usage": {"completion_tokens": 9, "prompt_tokens": 1}})
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, content: dict[str, Any]) -> None:
            usage = {"usage": None} | content
            self.wfile.write(f"data: {json.dumps(usage)}\n\n".encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Teacher(f"http://127.0.0.1:{server.server_address[1]}", bodies, keys)
        finally:
            server.shutdown()
            thread.join()
