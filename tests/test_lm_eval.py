"""lm-evaluation-harness, run for real: it asks what `rim eval` asks and scores as it does."""

from __future__ import annotations

import importlib.util

import pytest
from export_models import make_run
from harness_runs import run_harness
from question_files import gsm8k_file, svamp_file

from rim.data.sources import open_file
from rim.deploy.export import export_run
from rim.deploy.harness.writing import write_tasks
from rim.infer.answers import grade
from rim.infer.reasoner import load

pytestmark = [
    pytest.mark.serve,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None,
        reason="the lm-eval extra is missing (make test-serve installs it)",
    ),
    pytest.mark.filterwarnings("ignore"),  # the harness's own
]
TRAINED, FEWER = 3, 1


@pytest.fixture(scope="module", params=["gpt2", "llama chat"])
def asked(request, plain_tokenizer, tmp_path_factory):
    """A run, its export, and files in which every second gold answer is what the run says."""
    folder = tmp_path_factory.mktemp("asked")
    run = make_run(request.param, plain_tokenizer, folder)
    reasoner = load(run, device="cpu")
    files = {}
    for name, write in (("rim_gsm8k", gsm8k_file), ("rim_svamp", svamp_file)):
        examples = open_file(write(folder))
        said = reasoner.ask_many([e.question for e in examples])
        answers = [
            texts[0].answer if i % 2 else example.answer
            for i, (texts, example) in enumerate(zip(said, examples, strict=True))
        ]
        files[name] = write(folder, answers)
    return reasoner, export_run(run, folder / "exported").folder, files


def run_in_process(tasks, blocks):
    template = {"blocks": blocks}
    model = {"pretrained": str(tasks.exported), "chat_template_args": template}
    return run_harness(tasks, model="hf", model_args=model, batch_size=4, device="cpu")


def test_every_answer_and_every_score_are_those_of_rim_eval(asked, tmp_path):
    reasoner, exported, files = asked
    tasks = write_tasks(exported, tmp_path, files)
    scores = {}
    for blocks in (TRAINED, FEWER):
        results = run_in_process(tasks, blocks)
        for name, file in files.items():
            examples, samples = open_file(file), results["samples"][name]
            expected = reasoner.ask_many([e.question for e in examples], blocks=blocks)
            assert [s["filtered_resps"] for s in samples] == [[t[0].text] for t in expected]
            # The harness does not say whether a text was cut off; all are judged as if none was.
            right = [
                grade(texts[0].text, example, reasoner.encoder)
                for texts, example in zip(expected, examples, strict=True)
            ]
            assert [s["accuracy"] for s in samples] == right
            scores[name, blocks] = results["results"][name]["accuracy,none"]
            assert scores[name, blocks] == sum(right) / len(right)
    for name in files:  # otherwise the comparison would prove little
        assert scores[name, FEWER] < scores[name, TRAINED] < 1


def test_tasks_scored_by_a_regular_expression_ask_the_same(asked, tmp_path):
    reasoner, exported, files = asked
    tasks = write_tasks(exported, tmp_path, files, scoring="regex")
    assert "!function" not in "".join(f.read_text() for f in tmp_path.glob("*.yaml"))
    results = run_in_process(tasks, TRAINED)
    for name, file in files.items():
        expected = reasoner.ask_many([e.question for e in open_file(file)])
        assert [s["resps"] for s in results["samples"][name]] == [[[t[0].text]] for t in expected]
