"""vLLM, started for real by what `rim serve` starts, where a program `vllm` is on PATH
(docs/serving.md says how to get one for a CPU).
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.error

import pytest
from engine_servers import FLAGS, VLLM_ENVIRONMENT, chat, told_ids
from export_models import make_run
from running_server import running
from server_contract import (  # noqa: F401
    test_answers_are_those_of_the_run,
    test_each_request_chooses_its_number_of_blocks,
    test_streamed_answers_are_the_same,
)
from servers import QUESTIONS, TOKENS, Served

from rim.deploy.export import export_run
from rim.deploy.serve import Client
from rim.infer.decode import generate
from rim.infer.reasoner import load

pytestmark = [
    pytest.mark.serve,
    pytest.mark.skipif(
        shutil.which("vllm") is None,
        reason="vllm is not on PATH (docs/serving.md#vllm has the steps)",
    ),
]


@pytest.fixture(scope="module")
def plan(plain_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    # Heads of 32: vLLM's CPU kernels take no smaller ones.
    run = make_run("llama chat", plain_tokenizer, folder, adapter=True, width=64, heads=2)
    exported = export_run(run, folder / "out").folder
    with pytest.MonkeyPatch.context() as patched:
        for name, value in VLLM_ENVIRONMENT.items():
            patched.setenv(name, os.environ.get(name, value))
        with running(exported, "vllm", FLAGS["vllm"]) as server:
            yield server, run


@pytest.fixture(scope="module")
def served(plan):
    server, run = plan
    forbidden = {"logit_bias": {str(token): -100 for token in server.forbidden_ids}}
    return Served(server.url, load(run, device="cpu"), server.model, forbidden)


def test_its_tokens_are_ours(plan, served):
    server, _ = plan
    encoder = served.reasoner.encoder
    for blocks in (0, 3, 8):
        ((own,),) = generate(
            served.reasoner.model,
            encoder,
            [QUESTIONS["plain"]],
            blocks=blocks,
            max_new_tokens=TOKENS,
        )
        (choice,) = chat(server, QUESTIONS["plain"], blocks, TOKENS)["choices"]
        ids = told_ids(choice)
        stop = [encoder.stop_id] if own.finished else []
        assert ids in ([*own.token_ids, *stop], list(own.token_ids))


def test_the_client_asks_it_and_is_told_probabilities(plan, served):
    client = Client(served.url, forbidden_ids=plan[0].forbidden_ids)
    answer = client.ask(QUESTIONS["plain"], blocks=2, max_new_tokens=TOKENS)
    assert answer.text == served.expected(QUESTIONS["plain"], 2)
    told = client.ask(QUESTIONS["plain"], blocks=2, max_new_tokens=TOKENS, logprobs=True)
    assert told.text == answer.text and told.logprob is not None and told.logprob < 0


@pytest.mark.parametrize("wrong", [-1, 65, 1.5, "4"], ids=repr)
def test_a_wrong_number_gives_an_error_and_no_answer(wrong, served):
    with pytest.raises(urllib.error.HTTPError) as error:
        served.answer("q", chat_template_kwargs={"blocks": wrong})
    with error.value:
        assert error.value.code >= 400
    assert served.answer("q") == served.expected("q")


def test_a_request_cannot_replace_the_template(served):
    with pytest.raises(urllib.error.HTTPError) as error:
        served.answer("q", chat_template="{{ '<|mem|>' * 70 }}")
    with error.value:
        assert "emplate" in error.value.read().decode()


def test_a_prompt_is_kept_for_other_numbers_of_blocks(served):
    kept = []
    for blocks in (0, 2, 8):
        kwargs = {"blocks": blocks}
        with served.chat(QUESTIONS["long"], chat_template_kwargs=kwargs) as response:
            usage = json.load(response)["usage"]
        kept.append((usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0)
        assert served.answer(QUESTIONS["long"], chat_template_kwargs=kwargs) == served.expected(
            QUESTIONS["long"], blocks
        )
    assert kept[1] > 0 and kept[2] > 0
