"""`transformers serve`, started for real: a server that nobody here wrote answers as we do."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.error
from pathlib import Path

import pytest
from export_models import make_run
from harness_runs import run_harness
from question_files import gsm8k_file
from running_server import running
from server_contract import (  # noqa: F401
    test_answers_are_those_of_the_run,
    test_each_request_chooses_its_number_of_blocks,
    test_streamed_answers_are_the_same,
)
from servers import KINDS, QUESTIONS, TOKENS, Served, needs_engine

from rim.data.sources import open_file
from rim.deploy.export import export_run
from rim.deploy.harness.writing import write_tasks
from rim.evaluate.accuracy import score
from rim.infer.reasoner import load

pytestmark = needs_engine
ROOT = Path(__file__).parents[1]
SERVING = "docs/serving.md"


@pytest.fixture(scope="module", params=KINDS)
def served(request, plain_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    run = make_run(request.param, plain_tokenizer, folder, adapter=request.param == "llama chat")
    exported = export_run(run, folder / "out").folder
    with running(exported, "transformers", ["--device", "cpu"]) as server:
        yield Served(server.url, load(run, device="cpu"), server.model)


def test_the_number_of_blocks_changes_the_answer(served):
    """Otherwise the tests above would prove nothing."""
    answers = {served.expected(QUESTIONS["plain"], blocks) for blocks in (0, 2, 3, 8)}
    assert len(answers) == 4


DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", SERVING)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_request_is_answered_as_we_answer(document, served):
    (body,) = re.findall(
        r"curl -s http://localhost:8000(\S+) .*?-d '(.*?)'", DOCUMENTS[document], re.S
    )
    path, request = body[0], json.loads(body[1])
    limit = {"max_tokens": TOKENS}
    with served.post(path, request | limit) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    blocks = request["chat_template_kwargs"]["blocks"]
    assert answer == served.expected(request["messages"][0]["content"], blocks)


def test_the_documents_client_is_answered_as_we_answer(served, capsys):
    (code,) = re.findall(r"```python\n(from openai.*?)```", DOCUMENTS[SERVING], re.S)
    code = code.replace("http://localhost:8000", served.url).replace(
        "max_tokens=32", f"max_tokens={TOKENS}"
    )
    code = code.replace('model="exported"', f"model={served.folder!r}")
    exec(compile(code, SERVING, "exec"), {})
    assert capsys.readouterr().out.strip() == served.expected("3+4-5=", 4)


@pytest.mark.parametrize("wrong", [-1, 65, 1.5, "4", True, None], ids=repr)
def test_a_wrong_number_gives_an_error_and_no_answer(wrong, served):
    with pytest.raises(urllib.error.HTTPError) as error:
        served.answer("q", chat_template_kwargs={"blocks": wrong})
    with error.value:
        assert error.value.code >= 400
    # The server lives on.
    assert served.answer("q") == served.expected("q")


def test_a_raw_completion_protects_nothing(served):
    """What docs/serving.md warns of: this endpoint takes text as it is, control tokens included."""
    encoder = served.reasoner.encoder
    text = "q<|mem|>"
    with served.post("/v1/completions", {"prompt": text, "max_tokens": 1}) as response:
        counted = json.load(response)["usage"]["prompt_tokens"]
    assert counted == len(encoder.tokenizer(text)["input_ids"])
    assert encoder.memory_ids[1] in encoder.tokenizer(text)["input_ids"]
    assert encoder.memory_ids[1] not in encoder.text_ids(text)


def test_a_request_may_replace_the_template(served):
    """What docs/serving.md warns of: the range check goes with it."""
    kwargs = {"chat_template": "{{ '<|mem|>' * 70 }}"}
    with served.chat("q", chat_template_kwargs=kwargs) as response:
        assert json.load(response)["usage"]["prompt_tokens"] == 70


@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="the lm-eval extra is missing (make test-serve installs it)",
)
def test_lm_eval_scores_a_server_as_we_score_the_run(served, tmp_path):
    file, blocks = gsm8k_file(tmp_path), 2
    tasks = write_tasks(served.folder, tmp_path / "tasks", {"rim_gsm8k": file})
    results = run_harness(
        tasks,
        model="local-chat-completions",
        model_args={
            "model": served.folder,
            "base_url": f"{served.url}/v1/chat/completions",
            "eos_string": tasks.stop,
        },
        gen_kwargs={"chat_template_kwargs": {"blocks": blocks}},
    )
    examples = open_file(file)
    expected = served.reasoner.ask_many([e.question for e in examples], blocks=blocks)
    samples = results["samples"]["rim_gsm8k"]
    assert [s["filtered_resps"] for s in samples] == [[t[0].text] for t in expected]
    evaluation = score(served.reasoner, examples, blocks=blocks, all_blocks=False)
    assert "".join(f"{s['accuracy']:.0f}" for s in samples) == evaluation.right["final"]
