"""Which answer to trust: selectors, thresholds, calibration; and the commands around them."""

from __future__ import annotations

import json

import pytest
from export_models import make_run
from test_cli import plain_console, rim_json, work  # noqa: F401

from rim.cli.selecting import say_selected
from rim.config import ConfigError
from rim.evaluate.selector_scores import calibration_error, compare_selectors, risk_coverage
from rim.evaluate.selectors import (
    SELECTORS,
    BlockAnswer,
    as_record,
    calibrate,
    calibrated_on,
    check_calibrated,
    choose_names,
    keep_thresholds,
    read_thresholds,
)
from rim.report.selectors import thresholds_sentence


def row(*answers, gold="1"):
    """Answers as (text, probability), by ascending block."""
    return [
        BlockAnswer(block, text, p, right=text == gold)
        for block, (text, p) in enumerate(answers, 1)
    ]


THRESHOLDS = {"early": 0.8, "abstain": {}, "target": None}


@pytest.mark.parametrize(
    ("selector", "block", "confidence", "used"),
    [
        ("final", 4, 0.5, 4),
        ("first", 1, 0.3, 1),
        ("highest", 2, 0.9, 4),
        ("vote", 4, 0.5, 4),  # two of four say 7, and said it last
        ("weighted_vote", 2, 0.9 / 2.0, 4),
        ("early", 2, 0.9, 2),
    ],
)
def test_what_each_selector_takes(selector, block, confidence, used):
    answers = row(("7", 0.3), ("1", 0.9), ("3", 0.3), ("7.0", 0.5))
    choice = SELECTORS[selector](answers, THRESHOLDS)
    assert (choice.answer.block, choice.blocks_used) == (block, used)
    assert choice.confidence == pytest.approx(confidence)


def test_a_cut_off_answer_has_no_weight():
    answers = [BlockAnswer(1, "1", 0.9, finished=False), BlockAnswer(2, "2", 0.1)]
    for name in ("highest", "vote", "weighted_vote"):
        assert SELECTORS[name](answers, THRESHOLDS).answer.block == 2
    assert SELECTORS["vote"](answers[:1], THRESHOLDS).confidence == 0
    cut = [*row(("12", 0.9), ("12", 0.8), gold="12"), BlockAnswer(3, "12", 0.9, finished=False)]
    for name in ("vote", "weighted_vote"):
        assert SELECTORS[name](cut, THRESHOLDS).answer == cut[1]


def test_the_probe_takes_what_it_believes_and_says_what_it_needs():
    scored = [BlockAnswer(1, "1", 0.1, score=0.8), BlockAnswer(2, "2", 0.9, score=0.2)]
    assert SELECTORS["probe"](scored, THRESHOLDS).answer.block == 1
    with pytest.raises(ConfigError, match="rim analyze"):
        SELECTORS["probe"](row(("1", 0.5)), THRESHOLDS)
    with pytest.raises(ConfigError, match="rim analyze"):
        choose_names("probe", has_probe=False)
    assert "probe" not in choose_names("all", has_probe=False)


def test_thresholds_reach_their_target_on_the_questions_they_come_from():
    sure = [row(("1", 0.9), ("1", 0.95)) for _ in range(8)]
    unsure = [row(("2", 0.4), ("1", 0.6)), row(("2", 0.3), ("2", 0.5))]
    rows = sure + unsure
    found = calibrate(rows, ["final"], 0.95)
    assert found["abstain"]["final"] == 0.6  # 9 of 9
    assert 0.4 < found["early"] <= 0.9  # block 1 of the first unsure question is wrong
    result = compare_selectors(rows, ["final", "early"], found)
    assert result["selectors"]["final"]["abstain"]["coverage"] == 0.9
    assert result["selectors"]["early"]["accuracy"] == result["selectors"]["final"]["accuracy"]
    assert result["selectors"]["early"]["blocks_used"] < 2
    assert calibrate([row(("2", 0.9))], ["final"], 0.5)["abstain"]["final"] is None


def test_the_fall_back_answers_what_the_selector_does_not():
    rows = [row(("1", 0.9)), row(("2", 0.2)), row(("1", 0.3))]
    thresholds = {"early": 1.0, "abstain": {"final": 0.5}, "target": 1.0}
    fallback = compare_selectors(rows, ["final"], thresholds, [False, True, True])
    measured = fallback["selectors"]["final"]["fallback"]
    assert (measured["right"], measured["asked_again"]) == (3, pytest.approx(2 / 3))


def test_asking_and_measuring_agree_on_who_is_sure(tmp_path):
    rows = [row(("1", 0.9)), row(("2", 0.2))]
    never = {"early": 1.0, "abstain": {"final": None}, "target": 1.0}
    measured = compare_selectors(rows, ["final"], never, [True, True])["selectors"]["final"]
    choice = SELECTORS["final"](rows[0], never)
    assert measured["abstain"]["coverage"] == 0 and measured["fallback"]["asked_again"] == 1
    record = as_record(choice, "final", never)
    assert record["abstains"] and record["threshold"] is None
    assert not as_record(choice, "final", THRESHOLDS)["abstains"]  # never calibrated
    keep_thresholds(tmp_path, 3, never, {"questions": 2})
    check_calibrated(["final"], tmp_path, 3)
    for names, blocks in ((["final", "vote"], 3), (["final"], 5)):
        with pytest.raises(ConfigError, match=rf"with {blocks} blocks: .*--blocks {blocks}"):
            check_calibrated(names, tmp_path, blocks)
    for target, kept in ((1.0, {"final", "vote"}), (0.9, {"first"})):
        name = "vote" if target == 1.0 else "first"
        found = {"early": 1.0, "abstain": {name: 0.5}, "target": target}
        keep_thresholds(tmp_path, 3, found, {"questions": 2})
        assert set(read_thresholds(tmp_path, 3)["abstain"]) == kept
    assert calibrated_on(tmp_path, 3)["questions"] == 2 and calibrated_on(tmp_path, 4) == {}


def test_an_answer_not_given_is_said_without_a_threshold(capsys):
    never = {"early": 1.0, "abstain": {"final": None}, "target": 1.0}
    record = as_record(SELECTORS["final"](row(("1", 0.9)), never), "final", never)
    say_selected(record | {"asked_again": False})
    shown = capsys.readouterr().out
    assert "no answer" in shown and "no confidence was enough" in " ".join(shown.split())


def test_calibration_error_and_risk_by_hand():
    assert calibration_error([0.95, 0.95, 0.25, 0.25], [True, False, False, False]) == (
        pytest.approx(0.5 * 0.45 + 0.5 * 0.25)
    )
    curve = risk_coverage([0.9, 0.8, 0.5, 0.5], [True, False, True, False])
    assert [(p["coverage"], p["risk"]) for p in curve] == [
        (0.25, 0.0),
        (0.5, 0.5),
        (0.75, pytest.approx(0.5)),  # of two equally sure answers, half a wrong one
        (1.0, 0.5),
    ]


def test_a_broken_file_of_thresholds_is_said(tmp_path):
    (tmp_path / "selectors.json").write_text('{"early": "x"}')
    with pytest.raises(ConfigError, match=r"selectors\.json is broken"):
        read_thresholds(tmp_path, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, plain_tokenizer):
    folder = tmp_path_factory.mktemp("selected") / "run"
    make_run("gpt2", plain_tokenizer, folder)
    return folder


@pytest.mark.slow
def test_eval_and_ask_select(work, run):  # noqa: F811
    data = work / "data.jsonl"
    lines = [json.dumps({"question": f"How many is {i}?", "answer": str(i)}) for i in range(6)]
    data.write_text("\n".join(lines))
    out = str(work / "r.json")
    options = ["--select", "all", "--calibrate", "--fallback", str(run), "--max-new-tokens", "3"]
    record = rim_json("eval", str(run), str(data), *options, "--out", out)[0]
    assert set(record["selection"]["selectors"]) == set(SELECTORS) - {"probe"}
    assert record["selection"]["ms"]["all"] > 0
    trained = record["summary"]["blocks"]
    assert (
        json.loads((run / "selectors.json").read_text())[str(trained)]["calibrated_on"]["questions"]
        == 6
    )
    said = thresholds_sentence(record["selection"], record["data"])
    assert "fitted to these very questions" in said and "data.jsonl (6 questions)" in said
    elsewhere = thresholds_sentence(record["selection"], record["data"] | {"hash": "other"})
    assert elsewhere.endswith("thresholds from data.jsonl (6).")
    final, oracle = record["selection"]["selectors"]["final"], record["selection"]["oracle"]
    assert final["accuracy"] == record["summary"]["final"]["accuracy"]
    assert oracle["right"] == record["summary"]["any_block"]["right"]
    again = ["--select", "vote", "--calibrate", "--max-new-tokens", "3", "--out", out]
    rim_json("eval", str(run), str(data), *again, "--overwrite")
    assert set(read_thresholds(run, trained)["abstain"]) == set(SELECTORS) - {"probe"}
    assert read_thresholds(run, trained + 1)["abstain"] == {}, "thresholds are for one K"
    answer = rim_json("ask", str(run), "How many is 2?", "--select", "vote")
    assert answer["selector"] == "vote" and 0 <= answer["confidence"] <= 1
