"""Servers as engines: what `rim serve` starts, asked over HTTP, one thread each.

vLLM runs where a program `vllm` is on PATH; docs/serving.md says how to get one for a CPU.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import llama_server
from running_server import running

from rim.config import ConfigError
from rim.deploy.export.gguf import write_gguf
from rim.deploy.serve import Plan
from rim.deploy.serve.engines import find_llama

if TYPE_CHECKING:
    from engine_adapters import Subject

#: Numbers as ours, float32 throughout, and on a CPU. vLLM keeps whole pages of a prompt, on a CPU
#: of 128 tokens unless told otherwise.
FLAGS = {
    "transformers": ("--device", "cpu", "--dtype", "float32"),
    "llama.cpp": (*llama_server.FLAGS, "--parallel", "1", *llama_server.EXACT),
    "vllm": (
        *("--dtype", "float32", "--enforce-eager", "--block-size", "32"),
        *("--enable-prompt-tokens-details", "--max-num-seqs", "1"),
    ),
}
#: Read by vLLM's CPU build: gigabytes for keys and values, no binding to cores that others use.
VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def started(subject: Subject, engine: str, extra: Sequence[str] = ()) -> Plan:
    """The running server of an engine; it ends with the subject's measurement.

    Raises:
        ConfigError: the engine is not installed.
        RuntimeError: it does not come up.
    """
    os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | VLLM_ENVIRONMENT)
    path = subject.exported
    if engine == "llama.cpp":
        if find_llama() is None:
            raise ConfigError(llama_server.how_to_get(["llama-server"]))
        path = subject.exported / "model.gguf"
        if not path.exists():
            write_gguf(subject.exported, path)
    plan = subject.servers.enter_context(running(path, engine, [*FLAGS[engine], *extra]))
    subject.plans[engine] = plan
    return plan


def served(subject: Subject, engine: str) -> Callable[[str, int], list[int] | str]:
    """An adapter of engine_adapters.py. vLLM and llama.cpp tell token ids, the other one text."""
    plan = started(subject, engine)

    def ask(question: str, blocks: int) -> list[int] | str:
        (choice,) = chat(plan, question, blocks, subject.max_new_tokens)["choices"]
        ids = told_ids(choice)
        if ids is None:
            return choice["message"]["content"] or ""
        return ids[:-1] if ids and ids[-1] == subject.tokenizer.eos_token_id else ids

    return ask


def chat(plan: Plan, question: str, blocks: int, max_new_tokens: int) -> dict[str, Any]:
    """A whole chat completion, with token ids where the engine can tell them."""
    bias = {str(token): -100 for token in plan.forbidden_ids}
    more = {"vllm": {"return_token_ids": True}, "llama.cpp": {"logprobs": True}}
    body = {
        "messages": [{"role": "user", "content": question}],
        "chat_template_kwargs": {"blocks": blocks},
        "temperature": 0,
        "max_tokens": max_new_tokens,
        **({"logit_bias": bias} if bias else {}),
        **more.get(plan.engine.name, {}),
    }
    request = urllib.request.Request(
        f"{plan.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def told_ids(choice: dict[str, Any]) -> list[int] | None:
    if choice.get("token_ids") is not None:
        return list(choice["token_ids"])
    tokens = (choice.get("logprobs") or {}).get("content")
    if tokens is None or any("id" not in token for token in tokens):
        return None
    return [token["id"] for token in tokens]


def kept_tokens(subject: Subject, plan: Plan, questions: list[str], numbers: list[int]) -> Any:
    """One long question with one number of blocks after the other: how many tokens of each prompt
    the server had kept from those before, as it says itself.
    """
    text = " ".join(questions)
    # Several pages, and short enough for a model of few positions.
    while len(subject.prompt_ids(text, 0)) > 110:
        text = text[: int(len(text) * 0.9)]
    found = []
    for blocks in numbers:
        usage = chat(plan, text, blocks, 1)["usage"]
        details = usage.get("prompt_tokens_details") or {}
        kept = details.get("cached_tokens") or 0
        found.append({"blocks": blocks, "prompt": usage["prompt_tokens"], "kept": kept})
    return found


def version(plan: Plan) -> str | None:
    """As the server says: it has an environment of its own."""
    path, key = {"vllm": ("version", "version"), "llama.cpp": ("props", "build_info")}.get(
        plan.engine.name, ("", "")
    )
    if not path:
        return None
    with urllib.request.urlopen(f"{plan.url}/{path}", timeout=60) as response:
        return json.load(response).get(key)
