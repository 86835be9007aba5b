"""The comparison of engines and the latency of servers, without an engine: what is counted."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from engine_servers import chat, kept_tokens, told_ids
from engines import summary
from export_models import checked_in_process, make_run
from running_server import why
from served_latency import Case, forbid_the_stop_token, measure, rows
from serving_subjects import FOLDER, LLAMA, TRANSFORMERS, VLLM
from stub_server import Reply, stub

from rim.data.examples import Example
from rim.deploy.export import export_run
from rim.deploy.serve import Plan, ServerAnswer, find_subject
from rim.infer.reasoner import load

WORDS = SimpleNamespace(decode=lambda ids, **_: " ".join(map(str, ids)))


def plan_of(url: str, engine: Any) -> Plan:
    return Plan(engine, FOLDER, [], url)


def test_answers_are_compared_token_for_token_where_an_engine_tells_tokens(encoder):
    encoder.tokenizer = WORDS
    asked = [(Example(question=q, steps=[], answer="7"), 2) for q in ("a", "b", "c")]
    ours = [[7], [3, 4], [5]]
    row = summary([(1.0, [7]), (2.0, [3, 4, 4]), (3.0, [5])], ours, asked, encoder)
    assert (row["compared"], row["equal_answers"], row["answers"]) == ("tokens", 2, 3)
    assert row["accuracy"] == pytest.approx(1 / 3)
    assert row["first_differences"] == [{"question": "b", "blocks": 2, "answer": "3 4 4"}]
    assert row["milliseconds"]["median"] == 2.0
    row = summary([(1.0, "7"), (2.0, "3 4"), (3.0, "6")], ours, asked, encoder)
    assert (row["compared"], row["equal_answers"]) == ("text", 2)
    assert row["tokens_mean"] is None


@pytest.mark.parametrize(
    ("choice", "ids"),
    [
        ({"token_ids": [1, 2]}, [1, 2]),
        ({"token_ids": []}, []),
        ({"logprobs": {"content": [{"id": 4}, {"id": 5}]}}, [4, 5]),
        ({"logprobs": {"content": [{"token": "a"}]}}, None),
        ({"logprobs": None, "token_ids": None}, None),
        ({}, None),
    ],
)
def test_what_a_server_tells_of_its_tokens(choice, ids):
    assert told_ids(choice) == ids


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        (VLLM, {"logit_bias": {"7": -100, "8": -100, "9": -100}, "return_token_ids": True}),
        (LLAMA, {"logprobs": True}),
        (TRANSFORMERS, {}),
    ],
)
def test_each_server_is_asked_for_what_it_can_tell(engine, more):
    with stub(Reply([json.dumps({"choices": []})], kind="application/json")) as server:
        chat(plan_of(server.url, engine), "q", 5, 3)
    (body,) = server.bodies
    assert body == {
        "path": "/v1/chat/completions",
        "messages": [{"role": "user", "content": "q"}],
        "chat_template_kwargs": {"blocks": 5},
        "temperature": 0,
        "max_tokens": 3,
        **more,
    }


def test_the_kept_part_of_a_prompt_is_what_the_server_says():
    usage = {"prompt_tokens": 130, "prompt_tokens_details": {"cached_tokens": 96}}
    subject: Any = SimpleNamespace(prompt_ids=lambda text, blocks: list(text))
    reply = Reply([json.dumps({"choices": [], "usage": usage})], kind="application/json")
    with stub(reply) as server:
        found = kept_tokens(subject, plan_of(server.url, VLLM), ["long " * 99] * 9, [0, 4])
    assert found == [{"blocks": k, "prompt": 130, "kept": 96} for k in (0, 4)]
    first, second = (body["messages"][0]["content"] for body in server.bodies)
    assert first == second and 50 < len(first) <= 110


def test_a_server_that_does_not_come_up_is_reported_with_its_first_error():
    log = "INFO x\n(Worker) ERROR ValueError: Head size 24\nRuntimeError: Engine core failed\n"
    assert why(log) == "ValueError: Head size 24"
    assert why("usage: engine\n") == "its log names no error"


class Clock:
    """A server whose first token takes as long as it has blocks to read, each other one 10 ms."""

    def __init__(self, written: int | None = None):
        self.written = written

    def ask(self, question: str, *, blocks: int, max_new_tokens: int) -> ServerAnswer:
        first = 100.0 + blocks
        written = self.written or max_new_tokens
        end = first + 10 * (max_new_tokens - 1)
        return ServerAnswer("", "", blocks, False, written, first, end)


def test_the_latency_is_of_equal_lengths_and_beside_direct_answers(capsys):
    from rich.console import Console

    direct, blocks, long = Case(0, 4), Case(8, 4), Case(0, 60)
    clients: Any = {"a": Clock(), "b": Clock()}
    found = measure(clients, [direct, blocks, long], ["p", "q"], Console(stderr=True))
    table = {(r["engine"], r["blocks"], r["tokens"]): r for r in rows(found, direct)}
    assert len(table) == 6
    row = table["b", 8, 4]
    assert row["first_ms"] == {"median": 108.0, "low": 108.0, "high": 108.0}
    assert row["answer_ms"]["median"] == 138.0
    assert row["first_to_direct"]["median"] == 1.08
    assert table["a", 0, 60]["answer_to_direct"]["median"] == round(690 / 130, 3)
    with pytest.raises(SystemExit, match="b wrote 3 tokens, not 4"):
        measure({"b": Clock(3)}, [direct], ["p"], Console(stderr=True))  # type: ignore[dict-item]


@pytest.mark.slow
def test_an_export_that_may_not_stop_does_not_stop(plain_tokenizer, tmp_path):
    """transformers reads the list from the folder; what `rim serve` forbids comes from it too."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = make_run("gpt2", plain_tokenizer, tmp_path)
    with checked_in_process():
        exported = export_run(run, tmp_path / "out").folder
    encoder = load(run, device="cpu").encoder
    forbid_the_stop_token(exported, encoder.stop_id)
    assert set(find_subject(exported).forbidden_ids) == {*encoder.memory_ids, encoder.stop_id}
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported)
    inputs = tokenizer("3", return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=40)[0, inputs["input_ids"].shape[1] :]
    assert len(written) == 40 and encoder.stop_id not in written.tolist()
