"""What a person can do with a server that is up: lines to copy."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rim.deploy.serve.engines import KEY_VARIABLES
from rim.deploy.serve.page import page_url
from rim.deploy.serve.process import Server

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
        f"  {ask_line(server)}\n\n"
        f"  {client}\n\n"
        f"{_page_line(server, budget, page)}\n"
        "Ctrl-C stops the server."
    )


def curl_line(server: Server, budget: int | None = None) -> str:
    """A command that asks the server, for a POSIX shell."""
    body = {"messages": [{"role": "user", "content": QUESTION}], **_options(server, budget)}
    key = f'-H "Authorization: Bearer ${_key_variable(server)}" ' if server.api_key else ""
    return (
        f"curl -s {shlex.quote(server.url + '/v1/chat/completions')} "
        f'-H "Content-Type: application/json" {key}-d {shlex.quote(json.dumps(body))}'
    )


def ask_line(server: Server) -> str:
    """Our own command that asks the server, for a POSIX shell."""
    words = ["rim", "ask", "--server", server.url, QUESTION]
    if server.api_key:
        words += ["--api-key-env", _key_variable(server)]
    return shlex.join(words)


def openai_lines(server: Server, budget: int | None = None) -> str:
    """Python that asks the server with the OpenAI client."""
    options = _options(server, budget)
    if "chat_template_kwargs" in options:  # unknown to the client, so it goes as it is
        extra = {"chat_template_kwargs": options.pop("chat_template_kwargs")}
        options["extra_body"] = extra
    arguments = "".join(f"    {name}={value!r},\n" for name, value in options.items())
    key = '"none"' if not server.api_key else f'os.environ["{_key_variable(server)}"]'
    first = "import os\n" if server.api_key else ""
    return f"""{first}from openai import OpenAI

client = OpenAI(base_url="{server.url}/v1", api_key={key})
answer = client.chat.completions.create(
    model={server.model!r},
    messages=[{{"role": "user", "content": {QUESTION!r}}}],
{arguments})
print(answer.choices[0].message.content)"""


def _key_variable(server: Server) -> str:
    """The key itself is not printed: lines are copied, and shells remember them."""
    return KEY_VARIABLES.get(server.engine.name, "API_KEY")


def _options(server: Server, budget: int | None) -> dict[str, Any]:
    blocks = _default_blocks(server, budget)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": _MAX_TOKENS}
    if blocks is not None:
        options["chat_template_kwargs"] = {"blocks": blocks}
    if server.forbidden_ids:
        options["logit_bias"] = {str(token): -100 for token in server.forbidden_ids}
    return options


def _default_blocks(server: Server, budget: int | None) -> int | None:
    """Blocks of a request that names no number; None where only the GGUF file knows."""
    record = server.subject.record
    return record.default_blocks if budget is None and record else budget


def _page_line(server: Server, budget: int | None, page: bool) -> str:
    if not page and server.engine.web_pages == "chosen":
        return "Web page: start with --page to ask from a browser."
    record, blocks = server.subject.record, _default_blocks(server, budget)
    address = page_url(
        server.url,
        blocks=[] if blocks is None else sorted({0, blocks}),
        most_blocks=record.most_blocks if record else None,
        forbidden_ids=server.forbidden_ids,
    )
    return f"Web page: {address}"
