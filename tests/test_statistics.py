"""Tests and intervals over questions and seeds, verdicts, the selection protocol."""

from __future__ import annotations

import math

import pytest

from rim.config import ConfigError
from rim.evaluate.statistics import joint_p, mcnemar, share_spread, value_spread
from rim.evaluate.verdicts import verdict
from rim.report.comparison import accuracy_table
from rim.study.compare.selection import select

# --- statistics ----------------------------------------------------------------------------------


def test_mcnemar_equals_the_binomial_computed_by_hand():
    # 1 question only the first gets right, 5 only the second: 2 * (1 + 6) / 2^6.
    test = mcnemar("1" + "00000" + "11", "0" + "11111" + "11")
    assert (test.only_first, test.only_second) == (1, 5)
    assert test.p == pytest.approx(14 / 64)
    assert mcnemar("1100", "0011").p == 1.0
    assert mcnemar("1010", "1010").p == 1.0
    assert mcnemar("1" * 10, "0" * 10).p == pytest.approx(2 / 1024)


def test_mcnemar_does_not_care_which_comes_first():
    first, second = "110100111010", "010111000011"
    assert mcnemar(first, second).p == mcnemar(second, first).p


def test_mcnemar_is_exact_for_thousands_of_questions():
    assert 0 < mcnemar("1" * 600 + "0" * 400, "0" * 600 + "1" * 400).p < 1e-9
    assert mcnemar("1" * 4000, "0" * 4000).p == 0.0  # below the smallest number


def test_an_interval_says_what_it_is():
    assert share_spread(["1110"])["kind"] == "wilson"
    three = share_spread(["1110", "1100", "1111"])
    assert (three["kind"], three["low"], three["high"]) == ("range", 0.5, 1.0)
    five = value_spread([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764 * math.sqrt(2.5) / math.sqrt(5)
    assert five["kind"] == "t"
    assert five["low"] == pytest.approx(3 - half, abs=1e-3)


# --- selection -----------------------------------------------------------------------------------


def test_selection_chooses_the_better_candidate_and_scores_it_on_the_rest():
    good, bad = "1" * 90 + "0" * 10, "0" * 60 + "1" * 40
    selected = select({"bad": bad, "good": good}, splits=16, held_out=40, seed=0)
    assert selected["chosen"] == {"good": 16}
    assert selected["mean"] == pytest.approx(0.9, abs=0.05)
    assert 0 < selected["standard_error"] < 0.05


def test_selection_never_scores_on_the_questions_it_chose_with():
    # Two candidates that are right on either half: chosen by luck of the split, the winner is
    # expected below one half on the other questions.
    first, second = "1" * 10 + "0" * 10, "0" * 10 + "1" * 10
    selected = select({"first": first, "second": second}, splits=400, held_out=10, seed=0)
    assert selected["mean"] < 0.45


def test_a_chosen_candidate_is_scored_on_other_tests_as_a_whole():
    good, bad = "1" * 90 + "0" * 10, "0" * 60 + "1" * 40
    others = {"hard": {"good": "1000", "bad": "1111"}}
    selected = select({"bad": bad, "good": good}, splits=4, held_out=40, seed=0, others=others)
    assert selected["others"] == {"hard": {"mean": 0.25, "standard_error": 0.0}}


def test_selection_refuses_to_hold_out_every_question():
    with pytest.raises(ConfigError, match=r"264 leaves nothing to score of 4"):
        select({"a": "1010"}, splits=16, held_out=264, seed=0)


# --- verdicts ------------------------------------------------------------------------------------


def test_a_verdict_claims_a_fall_only_if_every_seed_shows_it():
    clear, broken = "1" * 20, "0" * 20
    fallen = verdict("no blocks", [clear, clear], [broken, broken])
    assert "accuracy falls from 100.0 to 0.0 % (20 questions, 2 seeds" in fallen["line"]
    assert "p < 0.001 in every seed" in fallen["line"]
    mixed = verdict("no blocks", [clear, clear], [broken, clear])
    assert "depends on the seed: it falls in 1 of 2, no sure change in 1" in mixed["line"]
    assert "(100.0 to 0.0, 100.0 to 100.0 %)" in mixed["line"] and mixed["p"] == 1.0
    assert "McNemar" not in mixed["line"]
    little = verdict("no blocks", [clear, clear], [clear[:-1] + "0", clear])
    assert "no sure change in any seed: 100.0 to 95.0, 100.0 to 100.0 %" in little["line"]
    alone = verdict("no blocks", [clear], [clear])
    assert "accuracy stays at 100.0 % (20 questions, 1 seed" in alone["line"]
    same = verdict("no blocks", [clear, broken], [clear, broken])
    assert "accuracy stays at 100.0, 0.0 % in every seed (20 questions, 2 seeds" in same["line"]
    near = verdict("no blocks", [clear], [clear[:-1] + "0"])
    assert "shows no sure change: from 100.0 to 95.0 % (20 questions, 1 seed" in near["line"]
    assert "rises" in verdict("more", [broken], [clear])["line"]


def test_seeds_that_are_sure_of_opposite_things_are_sure_of_nothing():
    clear, broken = "1" * 20, "0" * 20
    fall, rise = mcnemar(clear, broken), mcnemar(broken, clear)
    assert fall.p == rise.p < 0.001
    assert joint_p([fall, rise]) == 1.0
    assert joint_p([fall, fall]) == fall.p
    mixed = verdict("no blocks", [clear, broken], [broken, clear])
    assert "it falls in 1 and rises in 1 of 2 (100.0 to 0.0, 0.0 to 100.0 %)" in mixed["line"]
    assert mixed["per_seed"] == [{"from": 1.0, "to": 0.0}, {"from": 0.0, "to": 1.0}]
    assert mixed["p"] == 1.0
    row = {"against_reference": [vars(fall), vars(rise)], "p": joint_p([fall, rise])}
    row |= {"final": share_spread([clear, broken])}
    (cells,) = zip(*(c.cells for c in accuracy_table("t", {"x": row}, "rim").columns), strict=True)
    assert cells[-2:] == ("20/20", "1.000")


def test_a_control_on_the_first_questions_is_compared_on_those():
    shown = verdict("zeroed", ["1111100000"], ["00000"])
    assert (shown["from"], shown["to"], shown["questions"]) == (1.0, 0.0, 5)
