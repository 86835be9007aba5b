"""What a comparison says of methods that have not learned the task: no more than that."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from rim.evaluate.statistics import share
from rim.infer.answers import commonest_share
from rim.report.comparison import comparison_tables, notes
from rim.report.learned import has_learned, told_controls
from rim.report.page.compared import comparison_sections
from rim.report.page.gather import Material
from rim.report.page.headline import headline
from rim.report.verdict import verdict
from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import make_plan

PUBLISHED = json.loads(
    (Path(__file__).parents[1] / "results" / "compare_arithmetic.json").read_text()
)


def comparison(*, commonest=0.102, p=0.5, **right):
    """The published comparison of RiM, direct answers and chain of thought, with other numbers of
    right answers among 1000, and those alone.
    """
    result = copy.deepcopy(PUBLISHED)
    (content,) = result["tasks"].values()
    content["methods"] = {name: content["methods"][name] for name in right}
    content["commonest_answer"] = commonest
    for name, count in right.items():
        row, own = content["methods"][name], share([True] * count + [False] * (1000 - count))
        row["per_seed"] = [own] * 3
        row["final"] |= {"mean": own["accuracy"], "low": own["low"], "high": own["high"]}
        row["p"] = None if name == "rim" else p
    content["controls"] = [v for v in content["controls"] if " instead of " not in v["name"]]
    return result, content


def test_guessing_is_not_taken_for_learning():
    result, content = comparison(rim=90, direct=100, cot=110)
    (lines,) = verdict(result).values()
    assert lines[0].endswith("1000 test questions, 3 seeds; the most frequent answer: 10.2 %.")
    assert lines[1:] == [
        "None of them has learned the task (none is surely above the most frequent answer, "
        "10.2 %), so this says nothing about memory blocks. Train for longer."
    ]
    told, left_out = told_controls(content, "rim")
    assert told == [] and left_out == [
        "rim has not learned the task (9.0 % right, not surely more than the most frequent "
        "answer, 10.2 %): its controls say nothing and are left out"
    ]


@pytest.mark.parametrize(
    ("right", "commonest", "learned"),
    [
        (520, 0.50, False),  # two answers
        (540, 0.50, True),
        (120, 0.102, False),  # its interval begins at 10.1 %
        (130, 0.102, True),
        (40, 0.01, False),  # free answers: surely above the most frequent, and little all the same
        (60, 0.01, True),
        (60, None, True),  # older results
        (40, None, False),
    ],
)
def test_learned_is_what_is_surely_above_the_most_frequent_answer(right, commonest, learned):
    _, content = comparison(commonest=commonest, rim=right, direct=20)
    assert has_learned(content, "rim", "rim") == learned


def test_little_is_enough_where_it_is_surely_more_than_another_method_has():
    _, content = comparison(commonest=0.005, p=0.001, rim=40, direct=10)
    assert has_learned(content, "rim", "rim") and not has_learned(content, "direct", "rim")


def test_a_reference_that_has_not_learned_what_others_have_is_said_to_be_so():
    result, _ = comparison(p=0.001, rim=90, direct=20, cot=990)
    (lines,) = verdict(result).values()
    assert lines[1:] == [
        "RiM has not learned the task (9.0 % right, not surely more than the most frequent "
        "answer, 10.2 %), so its times and controls say nothing. Train it for longer.",
        "So not shown to be worth it: RiM has not learned the task.",
    ]
    page = " ".join(headline(Material(comparisons=[result])))
    assert "times as long" not in page and "of the time" not in page
    result, _ = comparison(p=0.001, rim=90, direct=300)
    (lines,) = verdict(result).values()
    assert lines[-1].startswith("So not worth it as trained here: direct answers are surely better")


def test_the_controls_of_what_has_learned_stay():
    _, content = comparison(rim=970, direct=160)
    content["methods"]["pause"] = content["methods"]["direct"] | {"per_seed": [{"low": 0.08}]}
    content["controls"] += [{"name": "pause, no blocks", "line": "-"}]
    trained = [{"name": f"pause instead of {name}", "line": "-"} for name in ("rim", "pause")]
    told, left_out = told_controls(content | {"controls": content["controls"] + trained}, "rim")
    assert told == [*content["controls"][:-1], trained[0]]
    assert len(left_out) == 1 and left_out[0].startswith("pause has not learned the task (16.0 %")


def test_the_most_frequent_answer_stands_in_tables_and_on_the_page():
    result, _ = comparison(rim=90, direct=100)
    assert any("the most frequent answer: 10.2 %" in line for line in notes(result))
    sections = {section.id: section for section in comparison_sections(result)}
    assert "the most frequent answer: 10.2 %" in sections["task-0"].tables[0][0]
    (line,) = sections["controls-0"].lines
    assert line.startswith("rim has not learned the task")
    assert not any("most frequent" in line for line in notes(PUBLISHED))
    assert "most frequent" not in comparison_sections(PUBLISHED)[1].tables[0][0]


def test_a_finished_comparison_has_the_share_and_older_results_go_without(whole):
    settings, result = whole
    plan = make_plan(settings)
    (content,) = result["tasks"].values()
    records = {run.result: json.loads(run.result.read_text()) for run in plan if run.result}
    assert {r["commonest_answer"] for r in records.values()} == {content["commonest_answer"]}
    assert 0.1 <= content["commonest_answer"] < 1
    kept = {file: file.read_text() for file in records}
    try:
        for file, record in records.items():
            del record["commonest_answer"]
            file.write_text(json.dumps(record))
        (older,) = aggregate(settings, plan)["tasks"].values()
    finally:
        for file, text in kept.items():
            file.write_text(text)
    assert older == content | {"commonest_answer": None}


def test_answers_are_counted_as_they_are_compared():
    assert commonest_share(["7", "7.0", "1,000", "yes", "Yes.", " yes"]) == 0.5


# --- times ---------------------------------------------------------------------------------------


def timed(cot_tokens, cot_right=990, direct_ms=10.0):
    result, content = comparison(p=0.001, rim=900, direct=160, cot=cot_right)
    rows = content["methods"]
    for name, ms, tokens in (
        ("rim", 10.0, 4.0), ("direct", direct_ms, 3.8), ("cot", 8.0, cot_tokens),
    ):  # fmt: skip
        rows[name]["latency"] = {"answer_ms": {"mean": ms}, "tokens": {"mean": tokens}}
    (lines,) = verdict(result).values()
    return lines


def test_a_chain_of_thought_without_steps_has_no_time_to_compare():
    lines = timed(3.9)
    assert lines[1].startswith("RiM answers as fast as direct answers on this machine")
    assert lines[2] == (
        "Chain of thought writes no steps yet (3.9 tokens, an answer given at once 3.8), so its "
        "time says nothing."
    )
    lines = timed(30.0, cot_right=90)
    assert lines[2].startswith("Chain of thought has not learned the task (9.0 % right")
    assert lines[2].endswith("so its time says nothing.")
    assert lines[-1].endswith("has not learned the task: train it for longer to compare.")
    assert "1.2 x slower than chain of thought" in timed(30.0)[1]


@pytest.mark.parametrize(
    ("direct_ms", "said"),
    [(10.3, "as fast as"), (9.7, "as fast as"), (9.0, "1.1 x slower than"), (12.0, "1.2 x faster")],
)
def test_equal_times_are_no_slower_ones(direct_ms, said):
    assert said in timed(30.0, direct_ms=direct_ms)[1].partition("thought and ")[2]


def test_one_number_of_steps_needs_no_column():
    result, content = comparison(rim=900, direct=160)
    titles = [str(table.title) for table in comparison_tables(result)]
    assert any("by steps of the solution, and on other tests" in title for title in titles)
    for row in content["methods"].values():
        row["by_steps"] = row["by_steps"][:1]
    titles = [str(table.title) for table in comparison_tables(result)]
    assert any("accuracy % on other tests" in title for title in titles)
    for row in content["methods"].values():
        row["extra_tests"] = {}
    assert len(list(comparison_tables(result))) == 2
    assert "Accuracy by depth" not in json.dumps(
        [section.figures for section in comparison_sections(result)]
    )
