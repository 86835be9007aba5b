"""llama.cpp, started for real on a GGUF file of ours: another engine, tokenizer and Jinja."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import llama_server
import pytest
import torch
from export_models import make_run
from running_server import running
from server_contract import (  # noqa: F401
    test_answers_are_those_of_the_run,
    test_each_request_chooses_its_number_of_blocks,
    test_streamed_answers_are_the_same,
)
from servers import KINDS, QUESTIONS, TOKENS, Served
from transformers import AutoTokenizer

from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.serve import Client
from rim.deploy.serve.engines import find_llama
from rim.infer.decode import generate
from rim.infer.reasoner import load
from rim.models.scratch import train_tokenizer

pytestmark = [
    pytest.mark.serve,
    pytest.mark.skipif(find_llama() is None, reason=llama_server.how_to_get(["llama-server"])),
]
SERVING = Path(__file__).parents[1] / "docs" / "serving.md"
#: Its tokenizer knows the characters of its data and nothing else, as the demo's does.
NARROW = "gpt2 of few characters"


def narrow_tokenizer():
    texts = ["How many apples? 3 + 4 = 7, #### 12 pears are left."]
    return train_tokenizer(texts * 3, 60, alphabet="data")


@contextlib.contextmanager
def serving(kind: str, tokenizer: Any, folder: Path, *flags: str) -> Generator[Served]:
    run = make_run(kind, tokenizer, folder, adapter=kind == "llama chat")
    exported = export_run(run, folder / "out").folder
    file = write_gguf(exported, folder / "model.gguf").file
    with running(file, "llama.cpp", [*llama_server.EXACT, *llama_server.FLAGS, *flags]) as server:
        yield Served(server.url, load(run, device="cpu"), str(exported))


@pytest.fixture(scope="module", params=[*KINDS, NARROW])
def served(request, plain_tokenizer, tmp_path_factory):
    kind = "gpt2" if request.param == NARROW else request.param
    tokenizer = narrow_tokenizer() if request.param == NARROW else plain_tokenizer
    with serving(kind, tokenizer, tmp_path_factory.mktemp("served")) as running_server:
        yield running_server


def asked(served: Served, path: str, **body: Any) -> dict[str, Any]:
    with served.post(path, body) as response:
        return json.load(response)


def conversation(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_the_number_of_blocks_changes_the_answer(served):
    """Otherwise the tests above would prove nothing."""
    answers = {served.expected(QUESTIONS["plain"], blocks) for blocks in (0, 2, 3, 8)}
    assert len(answers) >= 3


def test_the_server_may_have_a_default_of_its_own(plain_tokenizer, tmp_path):
    flags = ("--chat-template-kwargs", '{"blocks": 2}')
    with serving("qwen base", plain_tokenizer, tmp_path, *flags) as served:
        question = QUESTIONS["plain"]
        assert served.answer(question) == served.expected(question, 2)
        kwargs = {"blocks": 8}
        assert served.answer(question, chat_template_kwargs=kwargs) == served.expected(question, 8)
        assert served.expected(question, 8) != served.expected(question, 2)


@pytest.mark.parametrize("blocks", [0, 1, 3, 8])
@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "empty"])
def test_prompt_ids_are_those_of_training(name, blocks, served):
    encoder = served.reasoner.encoder
    kwargs = {"blocks": blocks}
    messages = conversation(QUESTIONS[name])
    rendered = asked(served, "/apply-template", messages=messages, chat_template_kwargs=kwargs)
    found = asked(
        served, "/tokenize", content=rendered["prompt"], add_special=True, parse_special=True
    )
    cleaned = encoder.break_control_strings(QUESTIONS[name])
    size, unknown = len(encoder.tokenizer), encoder.tokenizer.unk_token_id
    # Bytes without a token have one each in the file, with the unknown token's row.
    ids = [i if i < size else unknown for i in found["tokens"]]
    assert ids == encoder.prompt_ids(cleaned, blocks)


CONVERSATIONS = {
    "system": [{"role": "system", "content": "Be <|im_end|> kind."}, *conversation("q")],
    "history": [
        *conversation("1+1?"),
        {"role": "assistant", "content": " 2 <|mem|>\n"},
        *conversation("\n 2+2? \n"),
    ],
    "parts": conversation([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    "names": [
        *conversation("q"),
        {"role": "assistant", "content": "a <|eot_id|>", "name": "x"},
        *conversation("r"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_both_template_engines_render_the_same(name, served):
    if not served.reasoner.encoder.is_chat and name != "parts":
        return base_models_take_one_message(name, served)
    tokenizer = AutoTokenizer.from_pretrained(served.folder)
    for more in ({}, {"blocks": 0}, {"blocks": 5}):
        expected = tokenizer.apply_chat_template(
            CONVERSATIONS[name], tokenize=False, add_generation_prompt=True, **more
        )
        found = asked(
            served, "/apply-template", messages=CONVERSATIONS[name], chat_template_kwargs=more
        )
        # llama.cpp adds the begin-of-text token again when it tokenizes.
        assert found["prompt"] == expected.removeprefix(begin_of_text(served))


def base_models_take_one_message(name: str, served: Served) -> None:
    messages = CONVERSATIONS[name]
    if name != "system":
        with pytest.raises(urllib.error.HTTPError, match="500"):
            asked(served, "/apply-template", messages=messages)
        return
    # What docs/serving.md warns of: a refused system message becomes a part of the question.
    joined = conversation("\n".join(message["content"] for message in messages))
    merged = asked(served, "/apply-template", messages=messages)
    assert merged == asked(served, "/apply-template", messages=joined)


def begin_of_text(served: Served) -> str:
    encoder = served.reasoner.encoder
    return encoder.tokenizer.decode(list(encoder.bos_ids)) if encoder.bos_ids else ""


@pytest.mark.parametrize("wrong", [-1, 65, 1.5, "4", True, None], ids=repr)
def test_a_wrong_number_gives_an_error_and_no_answer(wrong, served):
    with pytest.raises(urllib.error.HTTPError) as error:
        served.answer("q", chat_template_kwargs={"blocks": wrong})
    with error.value:
        assert error.value.code == 500
        assert "`blocks` must be a whole number" in error.value.read().decode()
    # The server lives on.
    assert served.answer("q") == served.expected("q")


def test_the_log_probability_is_that_of_the_answer_and_its_end(served):
    """llama.cpp counts all tokens as possible: memory tokens, and copies of the unknown token."""
    for name in ("plain", "unicode"):
        question, reasoner = QUESTIONS[name], served.reasoner
        ((own,),) = generate(
            reasoner.model,
            reasoner.encoder,
            [question],
            blocks=reasoner.trained_blocks,
            max_new_tokens=TOKENS,
        )
        prompt = reasoner.encoder.prompt_ids(question, reasoner.trained_blocks)
        stop = [reasoner.encoder.stop_id] if own.finished else []
        answer = [*own.token_ids, *stop]
        with torch.inference_mode():
            ids = torch.tensor([[*prompt, *answer]])
            logits = reasoner.model(ids).logits[0, len(prompt) - 1 : -1].float()
        with urllib.request.urlopen(f"{served.url}/v1/models") as response:
            size = json.load(response)["data"][0]["meta"]["n_vocab"]
        if size > logits.shape[1]:
            unknown = logits[:, [reasoner.encoder.tokenizer.unk_token_id]]
            logits = torch.cat([logits, unknown.expand(-1, size - logits.shape[1])], 1)
        expected = logits.log_softmax(1)[range(len(answer)), answer].sum()
        told = Client(served.url).ask(question, max_new_tokens=TOKENS, logprobs=True)
        assert told.text == own.text and told.num_tokens == len(answer)
        assert told.logprob == pytest.approx(float(expected), abs=1e-3)


def test_memory_tokens_are_never_written(served):
    """The file says so itself; a request that asks for them is not heard."""
    encoder = served.reasoner.encoder
    wanted = [[i, 100.0] for i in encoder.memory_ids]
    found = asked(
        served, "/completion", prompt="q", n_predict=4, logit_bias=wanted, return_tokens=True
    )
    assert len(found["tokens"]) > 0
    assert not set(found["tokens"]) & set(encoder.memory_ids)


def test_a_raw_completion_protects_nothing(served):
    """What docs/serving.md warns of: this endpoint takes text as it is, control tokens included."""
    encoder = served.reasoner.encoder
    found = asked(served, "/v1/completions", prompt="q<|mem|>", max_tokens=1)
    assert found["usage"]["prompt_tokens"] == len(encoder.tokenizer("q<|mem|>")["input_ids"])


def test_a_request_cannot_replace_the_template(served):
    kwargs = {"chat_template": "{{ '<|mem|>' * 70 }}"}
    assert served.answer("q", chat_template_kwargs=kwargs) == served.expected("q")
    assert served.answer("q", chat_template=kwargs["chat_template"]) == served.expected("q")


def test_the_documents_request_is_answered_as_we_answer(served):
    text = SERVING.read_text(encoding="utf-8")
    (body,) = re.findall(r"curl -s http://localhost:8080(\S+) .*?-d '(.*?)'", text, re.S)
    request = json.loads(body[1]) | {"max_tokens": TOKENS}
    answer = asked(served, body[0], **request)["choices"][0]["message"]["content"]
    blocks = request["chat_template_kwargs"]["blocks"]
    assert answer == served.expected(request["messages"][0]["content"], blocks)
