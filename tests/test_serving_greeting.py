"""What `rim serve` prints, and the page that it names."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml
from serving_subjects import (
    FOLDER,
    GGUF,
    LLAMA,
    OLD_LLAMA,
    TRANSFORMERS,
    VLLM,
)

from rim.deploy.serve import Engine, Plan, Subject, greeting, page_url
from rim.deploy.serve.start import PAGE, QUESTION, trained_question


def plan_of(engine: Engine, subject: Subject, **more: Any) -> Plan:
    return Plan(engine, subject, ["engine"], more.pop("url", "http://127.0.0.1:1"), **more)


def test_printed_commands_are_quoted_for_any_shell():
    text = greeting(plan_of(LLAMA, GGUF, url="http://[::1]:8000"))
    assert "curl -s 'http://[::1]:8000/v1/chat/completions' " in text
    assert "rim ask --server 'http://[::1]:8000' 3+4-5=\n" in text


def test_printed_lines_name_the_keys_variable():
    text = greeting(plan_of(LLAMA, GGUF, has_key=True))
    assert '-H "Authorization: Bearer $LLAMA_API_KEY"' in text
    assert "3+4-5= --api-key-env LLAMA_API_KEY\n" in text
    assert 'api_key=os.environ["LLAMA_API_KEY"]' in text


@pytest.mark.parametrize(
    ("engine", "subject", "options", "body"),
    [
        (TRANSFORMERS, FOLDER, {}, {"chat_template_kwargs": {"blocks": 3}}),
        (LLAMA, GGUF, {}, {}),
        (LLAMA, GGUF, {"blocks": 0}, {"chat_template_kwargs": {"blocks": 0}}),
        (
            VLLM,
            FOLDER,
            {"blocks": 5},
            {
                "chat_template_kwargs": {"blocks": 5},
                "logit_bias": {"7": -100, "8": -100, "9": -100},
            },
        ),
    ],
)
def test_what_is_printed_asks_with_the_default_and_forbids_memory_tokens(
    engine, subject, options, body
):
    text = greeting(plan_of(engine, subject, **options))
    curl = next(line for line in text.splitlines() if "curl" in line)
    sent = json.loads(shlex.split(curl)[-1])
    assert sent.keys() - body.keys() == {"messages", "temperature", "max_tokens"}
    assert sent | body == sent
    code = text[text.index("from openai") : text.index("content)") + 8]
    call = re.search(r"create\((.*?)\n  \)", code, re.DOTALL)
    assert call is not None
    python = eval(f"dict({call[1]})")
    assert python.pop("model") == str(subject.folder or subject.gguf)
    assert python.pop("extra_body", {}) | python == sent


@pytest.mark.parametrize(
    ("engine", "subject", "page", "line"),
    [
        (TRANSFORMERS, FOLDER, False, "Web page: start with --page"),
        (OLD_LLAMA, GGUF, False, f"Web page: {PAGE.as_uri()}#server=http%3A%2F%2F127.0.0.1%3A1"),
        (VLLM, FOLDER, True, "&blocks=0%2C3&most=64&trained=3&forbid=7%2C8%2C9"),
    ],
)
def test_the_pages_address_is_printed_where_a_page_may_ask(engine, subject, page, line):
    assert line in greeting(plan_of(engine, subject, page=page))


def test_the_page_is_one_file_that_loads_nothing_and_trusts_nothing():
    source = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"\ssrc=|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", source)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in source
    addresses = set(re.findall(r"https?://[\w.:]+", source))
    assert addresses == {"http://127.0.0.1:8000", "http://HOST:PORT."}


def test_the_pages_address_carries_its_fields():
    url = page_url("http://h:1", question="3+4 & 5?", blocks=(0, 5), most_blocks=64, run=True)
    assert url == (
        f"{PAGE.as_uri()}#server=http%3A%2F%2Fh%3A1&question=3%2B4%20%26%205%3F&blocks=0%2C5&most=64"
        "&run=1"
    )
    assert page_url("http://h") == f"{PAGE.as_uri()}#server=http%3A%2F%2Fh"


def test_the_question_is_one_of_the_runs_own_data(tmp_path):
    data = tmp_path / "my.jsonl"
    run = tmp_path / "run"
    run.mkdir()
    recipe = {
        "name": "run",
        "data": {"train": {"format": "jsonl", "path": str(data)}},
        "model": {"base": "any"},
        "method": "direct",
        "stages": [{"name": "a", "objective": "answer", "max_steps": 1, "batch_size": 1}],
    }
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    assert trained_question(run) == QUESTION
    data.write_text('{"question": "What do 3 caps cost?", "answer": "9"}\n')
    assert trained_question(run) == trained_question(run / "exported") == "What do 3 caps cost?"
    assert "'What do 3 caps cost?'" in greeting(plan_of(LLAMA, GGUF), trained_question(run))
    data.write_text(json.dumps({"question": "long " * 100, "answer": "9"}) + "\n")
    assert trained_question(run) == QUESTION
