"""A client of chat completions: asks any server that speaks them, ours or not.

The `openai` package speaks HTTP; here are the number of blocks, the times as seen from here, and
sentences for what can go wrong.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.parse
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from rim.config import ConfigError
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


class ServerRefusal(ConfigError):
    """A server's answer is an error; `status` is HTTP's, from 500 on the server's own fault. Of an
    answer that never comes, or breaks off, it is what a gateway would say, and 500 of an error in
    the midst of an answer.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class _Interrupted(ServerRefusal):
    """A stream began and did not end: another one may."""


class Client:
    """Asks one server.

    Args:
        url: its address, with or without `/v1`.
        timeout: seconds without a sign of life.
        retries: how often a question is sent again, after a pause that grows, where the connection
            fails, before its answer or in the midst of it, or the server says that it is busy or
            broken.
        forbidden_ids: tokens an answer may not contain, for engines that do not read
            `suppress_tokens`.
        model: the model's name, for servers of several or that insist on one.
        api_key: sent as a bearer token to this address alone; redirections are not followed.
        marker: what stands before the answer in a text, see `extract_answer`.
        separator: what stands between the steps and the answer of a worked solution.
        tail: what stands behind the answer.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        retries: int = 0,
        forbidden_ids: Sequence[int] = (),
        model: str | None = None,
        api_key: str | None = None,
        marker: str = "####",
        separator: str = "\n",
        tail: str = "",
    ):
        import openai  # it takes its time, which `rim ask RUN` need not wait for

        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("a server's key is of printable ASCII characters alone")
        self.url = normal_url(url)
        self.timeout = timeout
        self.retries = retries
        self.forbidden_ids = tuple(forbidden_ids)
        self.model = model
        self._omitted = openai.omit
        self.marker = marker
        self.separator = separator
        self.tail = tail
        # What the environment says of OpenAI's own servers concerns no other.
        self._headers: dict[str, Any] = {
            "Authorization": f"Bearer {api_key}" if api_key else openai.omit,
            "OpenAI-Organization": openai.omit,
            "OpenAI-Project": openai.omit,
            "Connection": "close",  # a client has no end at which to close one that is kept
        }
        # A proxy that the environment names knows nothing of this machine's own addresses.
        proxies = urllib.parse.urlsplit(self.url).hostname not in _LOOPBACK
        client = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=api_key or "none",
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(trust_env=proxies, follow_redirects=False),
        )
        self._create: Any = client.chat.completions.create

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
        request: dict[str, Any] = {
            "model": self.model or self._omitted,
            "extra_headers": self._headers,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_new_tokens,
            "temperature": temperature,
        }
        if blocks is not None:
            request["extra_body"] = {"chat_template_kwargs": {"blocks": blocks}}
        if temperature:
            request |= {"top_p": top_p} | ({} if seed is None else {"seed": seed})
        if self.forbidden_ids:
            request["logit_bias"] = {str(token): _NEVER for token in self.forbidden_ids}
        with self._clear_errors():
            # A stream leaves out the stop token's probability, without which 1 and 12 begin alike.
            read = self._whole if logprobs else self._patiently
            text, reason, told = read(request)
        answer = extract_answer(text, self.marker, self.separator, self.tail)
        finished = reason not in ("length", "content_filter")
        return ServerAnswer(answer, text, blocks, finished, **told)

    def _patiently(self, request: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Ask again where a stream breaks off; before its headers the library does so itself."""
        for attempt in range(self.retries):
            with contextlib.suppress(_Interrupted):
                return self._streamed(request)
            time.sleep(min(0.5 * 2**attempt, 8.0))
        return self._streamed(request)

    def _streamed(self, request: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Text, reason of its end, and what else a `ServerAnswer` has."""
        import openai

        begin, first_ms = time.perf_counter(), None
        parts: list[str] = []
        reason, tokens = None, None
        usage = {"include_usage": True}  # which has the number of tokens
        with self._create(**request, stream=True, stream_options=usage) as stream:
            kind = stream.response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise self._stranger(f"it sent {kind}")
            try:
                for event in stream:
                    tokens = event.usage.completion_tokens if event.usage else tokens
                    for choice in event.choices or []:
                        if piece := choice.delta and choice.delta.content:
                            first_ms = first_ms or 1000 * (time.perf_counter() - begin)
                            parts.append(piece)
                        reason = choice.finish_reason or reason
            except openai.APITimeoutError:
                raise _Interrupted(self._silent(), 504) from None
            except openai.APIConnectionError:
                raise _Interrupted(self._broken(), 502) from None
        answer_ms = 1000 * (time.perf_counter() - begin)
        if reason is None:
            raise _Interrupted(self._broken(), 502)
        times = {"first_ms": first_ms or answer_ms, "answer_ms": answer_ms}
        return "".join(parts), reason, {"num_tokens": tokens, **times}

    def _whole(self, request: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        begin = time.perf_counter()
        told = self._create(**request, logprobs=True)
        answer_ms = 1000 * (time.perf_counter() - begin)
        choice, tokens = told.choices[0], told.usage.completion_tokens
        each = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
        # Fewer than its tokens are another quantity, not the same less exactly.
        logprob = sum(each) if each and len(each) == tokens else None
        times = {"first_ms": answer_ms, "answer_ms": answer_ms}
        more = {"num_tokens": tokens, "logprob": logprob, **times}
        return choice.message.content or "", choice.finish_reason, more

    @contextlib.contextmanager
    def _clear_errors(self) -> Generator[None]:
        """Turn whatever goes wrong into one sentence."""
        import openai

        try:
            yield
        except ConfigError:
            raise
        except openai.APITimeoutError:
            raise ServerRefusal(self._silent(), 504) from None
        except openai.APIStatusError as error:
            raise ServerRefusal(self._refusal(error), error.status_code) from None
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ != "ConnectError":
                raise ServerRefusal(self._broken(), 502) from None
            raise ConfigError(
                f"no server at {self.url} ({error.__cause__}); start one with `rim serve RUN`"
            ) from None
        except openai.APIError as error:
            # In a stream whose status was 200: what went wrong, went wrong with this question.
            raise ServerRefusal(f"{self.url} sent: {_message(error.body)}", 500) from None
        except json.JSONDecodeError as error:
            # An engine may put an error between its events without escaping it.
            raise ServerRefusal(f"{self.url} sent: {error.doc[:300]}", 500) from None
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            # A part that every completion has is missing, or of another type.
            raise self._stranger("its answer is of another form") from None

    def _broken(self) -> str:
        return f"{self.url} broke its answer off; its log says more"

    def _silent(self) -> str:
        return f"{self.url} gave no sign of life for {self.timeout:g} s"

    def _stranger(self, why: str) -> ConfigError:
        return ConfigError(f"{self.url} is no chat completions server: {why}")

    def _refusal(self, error: Any) -> str:
        status, hint = error.status_code, ""
        if status == 404:
            hint = "; is it a chat completions server?"
        elif status >= 500:  # so does `transformers serve` where the chat template raises
            hint = "; it may answer so to a number of blocks that the model does not take"
        said = _message(error.body if error.body is not None else error.response.text)
        return f"{self.url} answered {status}: {said}{hint}"


def normal_url(url: str) -> str:
    """An address as people write it, without its path.

    Raises:
        ConfigError: not an address of a web server.
    """
    full = url.strip() if "://" in url else f"http://{url.strip()}"
    full = full.rstrip("/").removesuffix("/v1")
    try:
        parts = urllib.parse.urlsplit(full)
        # Both raise where there is none that could be reached.
        known = (parts.hostname or "").encode("idna") and parts.port != 0
    except ValueError:
        known, parts = False, urllib.parse.urlsplit("")
    more = parts.query or parts.fragment or "@" in parts.netloc or not parts.path.isascii()
    if not known or parts.scheme not in ("http", "https") or more:
        raise ConfigError(f"a server's address is http://HOST:PORT, got {url!r}")
    return full


def _message(content: Any) -> str:
    """Return the message of an error in any of the forms that engines give it."""
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and key in content:
            return _message(content[key])
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text.strip()[:300]
