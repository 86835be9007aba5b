"""A client of chat completions: asks any server that speaks them, ours or not."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rim.config import ConfigError
from rim.deploy.serve.events import is_completion
from rim.infer.answers import extract_answer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Ends the hope of a token; the value that servers take for "never".
_NEVER = -100


@dataclass(frozen=True)
class ServerAnswer:
    """`answer` is parsed from the `text`; `blocks` None is the server's default number.

    `first_ms` and `answer_ms` are milliseconds from sending the question to the first piece of text
    and to the end, as seen from here; `num_tokens` is None where the server does not say.
    `logprob` is the log-probability of the text and its end, None unless asked for; an answer
    with one comes in one piece, so that its `first_ms` is its `answer_ms`.
    """

    answer: str
    text: str
    blocks: int | None
    finished: bool
    num_tokens: int | None
    first_ms: float
    answer_ms: float
    logprob: float | None = None


class Client:
    """Asks one server.

    Args:
        url: its address, with or without `/v1`.
        timeout: seconds without a sign of life.
        forbidden_ids: tokens an answer may not contain, for engines that do not read
            `suppress_tokens`.
        model: the model's name, for servers of several or that insist on one.
        api_key: sent as a bearer token to this address alone, never along a redirection.
        marker: what stands before the answer in a text, see `extract_answer`.
        separator: what stands between the steps and the answer of a worked solution.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        forbidden_ids: Sequence[int] = (),
        model: str | None = None,
        api_key: str | None = None,
        marker: str = "####",
        separator: str = "\n",
    ):
        self.url = normal_url(url)
        self.timeout = timeout
        self.forbidden_ids = tuple(forbidden_ids)
        self.model = model
        self.api_key = _checked_key(api_key)
        self.marker = marker
        self.separator = separator
        host = urllib.parse.urlsplit(self.url).hostname
        # A proxy that the environment names knows nothing of this machine's own addresses.
        handlers = [urllib.request.ProxyHandler({})] if host in _LOOPBACK else []
        self._opener = urllib.request.build_opener(*handlers)

    def is_ready(self) -> bool:
        """Whether the server answers its health check."""
        try:
            with self._opener.open(f"{self.url}/health", timeout=5):
                return True
        except (OSError, http.client.HTTPException):
            return False

    def ask(
        self,
        question: str,
        *,
        blocks: int | None = None,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        logprobs: bool = False,
    ) -> ServerAnswer:
        """Ask one question; `blocks` None leaves the number to the server.

        Args:
            logprobs: ask for log-probabilities, which not every engine gives. They are the
                engine's own: memory tokens, which an answer never has, are among the tokens that
                could have come.

        Raises:
            ConfigError: no server, one that refuses the question, or one that is not what it seems.
        """
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "stream": True,
        } | ({"model": self.model} if self.model else {})
        if blocks is not None:
            body["chat_template_kwargs"] = {"blocks": blocks}
        if temperature:
            body |= {"top_p": top_p} | ({} if seed is None else {"seed": seed})
        if self.forbidden_ids:
            body["logit_bias"] = {str(token): _NEVER for token in self.forbidden_ids}
        if logprobs:
            # A stream leaves out the stop token's, without which 1 and 12 begin alike.
            return self._ask_whole(body | {"logprobs": True, "stream": False}, blocks)
        return self._ask(body, blocks)

    def _ask_whole(self, body: dict[str, Any], blocks: int | None) -> ServerAnswer:
        begin = time.perf_counter()
        with self._response(body, "application/json") as response:
            content = response.read()
        answer_ms = 1000 * (time.perf_counter() - begin)
        told = _parsed(content)
        try:
            choice, tokens = told["choices"][0], told["usage"]["completion_tokens"]
            text, reason = choice["message"]["content"] or "", choice["finish_reason"]
            each = [t["logprob"] for t in (choice.get("logprobs") or {}).get("content") or []]
        except (KeyError, TypeError, IndexError):  # a part that every completion has is missing
            raise ConfigError(f"{self.url} is no chat completions server") from None
        answer = extract_answer(text, self.marker, self.separator)
        # Fewer than its tokens are another quantity, not the same less exactly.
        logprob = sum(each) if each and len(each) == tokens else None
        finished = reason != "length"
        return ServerAnswer(answer, text, blocks, finished, tokens, answer_ms, answer_ms, logprob)

    def _ask(self, body: dict[str, Any], blocks: int | None) -> ServerAnswer:
        begin, first_ms = time.perf_counter(), None
        body = body | {"stream_options": {"include_usage": True}}  # for the number of tokens
        parts: list[str] = []
        reason, tokens = None, None
        for event in self._events(body):
            usage = event.get("usage") or {}
            tokens = usage.get("completion_tokens", tokens)
            for choice in event.get("choices") or []:
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    first_ms = first_ms or 1000 * (time.perf_counter() - begin)
                    parts.append(piece)
                reason = choice.get("finish_reason") or reason
        answer_ms = 1000 * (time.perf_counter() - begin)
        if reason is None:
            raise ConfigError(f"{self.url} broke its answer off; its log says more")
        text = "".join(parts)
        answer = extract_answer(text, self.marker, self.separator)
        finished = reason != "length"
        first_ms = answer_ms if first_ms is None else first_ms
        return ServerAnswer(answer, text, blocks, finished, tokens, first_ms, answer_ms)

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The server's events, one JSON object each."""
        with self._response(body, "text/event-stream") as response:
            for line in response:
                yield from self._event(line.decode("utf-8", "replace").strip())

    @contextlib.contextmanager
    def _response(self, body: dict[str, Any], wanted: str) -> Iterator[Any]:
        """The server's response, of the kind wanted; whatever goes wrong is told in a sentence."""
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                kind = response.headers.get_content_type()
                if kind != wanted:
                    raise ConfigError(f"{self.url} is no chat completions server: it sent {kind}")
                yield response
        except urllib.error.HTTPError as error:
            with error:
                raise ConfigError(self._refusal(error)) from None
        except TimeoutError:
            raise ConfigError(f"{self.url} gave no sign of life for {self.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(self._unreachable(error)) from None

    def _event(self, line: str) -> Iterator[dict[str, Any]]:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            # An engine may put an error between its events without escaping it.
            raise ConfigError(f"{self.url} sent: {data[:300]}") from None
        if isinstance(event, dict) and event.get("error") is not None:
            raise ConfigError(f"{self.url} sent: {_message(event)}")
        if not is_completion(event):
            raise ConfigError(f"{self.url} is no chat completions server: it sent {data[:300]}")
        yield event

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        content = error.read(4000).decode("utf-8", "replace")
        try:
            said = _message(json.loads(content))
        except json.JSONDecodeError:
            said = content.strip()[:300]
        hint = ""
        if error.code == 404:
            hint = "; is it a chat completions server?"
        elif error.code >= 500:
            # So does `transformers serve` where the chat template raises.
            hint = "; it may answer so to a number of blocks that the model does not take"
        return f"{self.url} answered {error.code}: {said}{hint}"

    def _unreachable(self, error: Exception) -> str:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"{self.url} gave no sign of life for {self.timeout:g} s"
        if isinstance(reason, ConnectionRefusedError):
            return f"no server at {self.url}; start one with `rim serve RUN`"
        if isinstance(error, http.client.HTTPException):
            return f"{self.url} is no web server: {error or type(error).__name__}"
        return f"{self.url} cannot be asked: {reason}"


def _parsed(content: bytes) -> dict[str, Any]:
    """A completion in one piece; nothing where it is none."""
    try:
        told = json.loads(content)
    except ValueError:
        return {}
    return told if is_completion(told) else {}


def normal_url(url: str) -> str:
    """An address as people write it, without its path.

    Raises:
        ConfigError: not an address of a web server.
    """
    full = url.strip() if "://" in url else f"http://{url.strip()}"
    full = full.rstrip("/").removesuffix("/v1")
    if not _is_web_address(full):
        raise ConfigError(f"a server's address is http://HOST:PORT, got {url!r}")
    return full


def _is_web_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        # Both raise where there is none that could be reached.
        (parts.hostname or "").encode("idna")
        known = parts.port is None or parts.port > 0
    except ValueError:
        return False
    more = parts.query or parts.fragment or "@" in parts.netloc or not parts.path.isascii()
    return known and parts.scheme in ("http", "https") and bool(parts.hostname) and not more


def _checked_key(key: str | None) -> str | None:
    """
    Raises:
        ConfigError: no header can hold it.
    """
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError("a server's key is of printable ASCII characters alone")
    return key


def _message(content: Any) -> str:
    """What an error says, in any of the forms that engines give it."""
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and key in content:
            return _message(content[key])
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)[:300]
