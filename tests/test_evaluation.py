"""Scores, intervals and result files."""

from __future__ import annotations

import json

import pytest
from conftest import tiny_model
from scipy.stats import binomtest

from rim.config import ConfigError
from rim.data.examples import Example
from rim.evaluate.accuracy import pass_at_k, score, write_evaluation
from rim.evaluate.statistics import wilson_interval
from rim.infer.decode import Generated
from rim.infer.reasoner import Answer, Reasoner, load
from rim.infer.sampling import Sampling
from rim.report.tables import evaluation_table
from rim.results import environment
from rim.study.bench.timing import time_answers

EXAMPLES = [Example("a?", ("x",), "1"), Example("b?", ("x", "y"), "2"), Example("c?", (), "3")]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Wilson's formula by hand; 0 of 10 and 10 of 10 are the textbook 0.2775 and 0.7225.
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (90, 100, 0.8256, 0.9448),
    ],
)
def test_wilson_interval(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_is_scipys():
    for right, total in ((0, 1), (3, 7), (17, 500), (970, 1000), (1319, 1319)):
        expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right, total) == pytest.approx(tuple(expected), abs=1e-8)


def test_an_empty_sample_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_pass_at_k_is_the_unbiased_estimate():
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(4, 0, 4) == 0
    assert pass_at_k(4, 4, 1) == 1


@pytest.fixture
def scripted(monkeypatch):
    """Evaluation of answers written down here instead of generated."""

    def script(answers):
        def fake(model, encoder, questions, **options):
            assert options["after"] == "all"
            return [
                [Generated(block, f"#### {a}", (1, 2), -1.0, True) for block, a in per_question]
                for per_question in answers
            ]

        monkeypatch.setattr("rim.evaluate.accuracy.generate", fake)

    return script


def test_final_any_and_per_block_accuracy(scripted, encoder):
    scripted(
        [
            [(1, "9"), (2, "1")],  # right at last
            [(1, "2"), (2, "9")],  # was right before
            [(1, "9"), (2, "9")],  # never
        ]
    )
    result = score(Reasoner(None, encoder), EXAMPLES, blocks=2)
    summary = result.summary
    assert summary["final"]["right"] == 1
    assert summary["any_block"]["right"] == 2
    assert [row["right"] for row in summary["per_block"]] == [1, 1]
    assert summary["by_steps"][0]["steps"] == 1
    assert [row["total"] for row in summary["by_steps"]] == [1, 1]
    assert summary["tokens_generated_mean"] == 3  # two and the stop token
    assert [w["question"] for w in result.wrong] == ["b?", "c?"]
    assert result.wrong[0]["right_after_blocks"] == [1]
    assert result.wrong[0]["predicted"] == "9"


def test_an_answer_that_was_cut_off_is_wrong(monkeypatch, encoder):
    def fake(model, encoder, questions, **options):
        return [
            [Generated(1, "#### 1", (1, 2), -1.0, first), Generated(2, "#### 1", (1,), -1.0, last)]
            for first, last in ((True, False), (False, True), (False, False))
        ]

    monkeypatch.setattr("rim.evaluate.accuracy.generate", fake)
    examples = [Example(f"{i}?", (), "1") for i in range(3)]
    result = score(Reasoner(None, encoder), examples, blocks=2)
    assert result.right == {"final": "010", "any_block": "110"}
    assert result.summary["unfinished"] == 2


def test_samples_give_pass_at_k(scripted, encoder):
    scripted([[(1, "1"), (1, "9")], [(1, "9"), (1, "2")], [(1, "9"), (1, "9")]])
    sampling = Sampling(temperature=1.0, num_samples=2)
    summary = score(Reasoner(None, encoder), EXAMPLES, blocks=1, sampling=sampling).summary
    assert summary["final"]["right"] == 1, "accuracy counts the first sample"
    assert summary["pass_at_k"] == pytest.approx({"1": 1 / 3, "2": 2 / 3})


def test_a_real_model_is_scored_and_written(family, encoder, tmp_path):
    reasoner = Reasoner(tiny_model(family, encoder.tokenizer), encoder)
    result = score(reasoner, EXAMPLES, blocks=3, max_new_tokens=4, batch_size=2)
    record, wrong_file = write_evaluation(
        result, tmp_path / "out" / "x.json", tmp_path, "data.jsonl", EXAMPLES, {"blocks": 3}
    )
    assert json.loads((tmp_path / "out" / "x.json").read_text()) == record
    assert len(wrong_file.read_text().splitlines()) == len(result.wrong) > 0
    assert record["summary"]["blocks"] == 3
    assert len(record["summary"]["per_block"]) == 3
    assert record["data"]["hash"]
    assert {"packages", "git_commit", "processor"} <= record["environment"].keys()
    assert evaluation_table(record).row_count == 1 + 1 + 3 + 2


def test_blocks_at_test_time_are_free(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    for blocks in (0, 1, 9):
        summary = score(reasoner, EXAMPLES, blocks=blocks, max_new_tokens=2).summary
        assert len(summary.get("per_block", [])) == blocks


def test_latency_is_measured_per_question(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    times = time_answers(reasoner, ["a?", "b?"], max_new_tokens=8, warmup=1)
    assert times["ttft_ms"] > 0 and times["answer_ms"] > 0
    assert 1 <= times["tokens"] <= 8


def test_the_first_token_is_the_answers_after_the_steps_of_a_chain_of_thought(encoder, monkeypatch):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    solution = encoder.solution_ids(["3+4=7", "7+5=12"], "12")
    limits = []

    def writes_the_solution(question, *, blocks=None, max_new_tokens=64):
        limits.append(max_new_tokens)
        text = encoder.tokenizer.decode(solution[:-1][:max_new_tokens])
        done = max_new_tokens >= len(solution)
        answer = encoder.answer_marker + "12" in text
        return Answer(
            "12" if answer else "", text, 0, 0.0, done, min(max_new_tokens, len(solution))
        )

    monkeypatch.setattr(reasoner, "ask", writes_the_solution)
    time_answers(reasoner, ["q"], max_new_tokens=64, warmup=0)
    before_the_answer = len(solution) - len(encoder.answer_ids("12"))
    assert limits == [64, before_the_answer + 1]
    # Without steps it is the very first token.
    solution = encoder.answer_ids("12")
    time_answers(reasoner, ["q"], max_new_tokens=64, warmup=0)
    assert limits[2:] == [64, 1]


def test_environment_states_versions():
    packages = environment()["packages"]
    assert packages["transformers"]
    assert packages["peft"]


def test_loading_what_is_no_run_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no such run or model folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="neither a run folder"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("name: x")
    with pytest.raises(ConfigError, match="is not finished"):
        load(tmp_path)
