"""What a person can do with a server that is up: lines to copy."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rim.serving.page import page_url
from rim.serving.process import Server

QUESTION = "3+4-5="
_MAX_TOKENS = 64


def greeting(server: Server, budget: int | None = None, page: bool = False) -> str:
    """The address, and how to ask there: curl, Python, our command and our page.

    Args:
        budget: the server's default number of memory blocks, where one was chosen.
        page: whether the server lets web pages ask.
    """
    client = openai_lines(server, budget).replace("\n", "\n  ")
    return (
        f"Ready: {server.url} ({server.engine.name})\n\n"
        f"  {curl_line(server, budget)}\n\n"
        f"  rim ask --server {server.url} {shlex.quote(QUESTION)}\n\n"
        f"  {client}\n\n"
        f"{_page_line(server, budget, page)}\n"
        "Ctrl-C stops the server."
    )


def curl_line(server: Server, budget: int | None = None) -> str:
    """A command that asks the server, for a POSIX shell."""
    body = {"messages": [{"role": "user", "content": QUESTION}], **_options(server, budget)}
    return (
        f'curl -s {server.url}/v1/chat/completions -H "Content-Type: application/json" '
        f"-d {shlex.quote(json.dumps(body))}"
    )


def openai_lines(server: Server, budget: int | None = None) -> str:
    """Python that asks the server with the OpenAI client."""
    options = _options(server, budget)
    extra = {"chat_template_kwargs": options.pop("chat_template_kwargs")}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in options.items())
    return f"""from openai import OpenAI

client = OpenAI(base_url="{server.url}/v1", api_key="none")
answer = client.chat.completions.create(
    model={server.model!r},
    messages=[{{"role": "user", "content": {QUESTION!r}}}],
{arguments}    extra_body={extra!r},
)
print(answer.choices[0].message.content)"""


def _options(server: Server, budget: int | None) -> dict[str, Any]:
    record = server.subject.record
    default = record.default_blocks if record else 0
    options: dict[str, Any] = {
        "chat_template_kwargs": {"memory_blocks": default if budget is None else budget},
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
    }
    if server.forbidden_ids:
        options["logit_bias"] = {str(token): -100 for token in server.forbidden_ids}
    return options


def _page_line(server: Server, budget: int | None, page: bool) -> str:
    if not page and server.engine.origins == "flag":
        return "Web page: start with --page to ask from a browser."
    record = server.subject.record
    default = budget if budget is not None else record.default_blocks if record else 0
    address = page_url(
        server.url,
        blocks=sorted({0, default}),
        most_blocks=record.most_blocks if record else None,
        forbidden_ids=server.forbidden_ids,
    )
    return f"Web page: {address}"
