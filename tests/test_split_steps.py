"""Chains of thought in prose to steps: what is a step, what is the answer, and what is refused."""

from __future__ import annotations

import json
import time

import pytest
from conftest import real_data
from question_files import rows_of
from test_cli import rim_command, rim_json

from rim.data.sources import open_file
from rim.prepare import split_solution


@pytest.mark.parametrize(
    ("text", "steps", "answer"),
    [
        (
            "Step 1: Tom has 3 apples, plus 4 is 7. Step 2: He eats 2, so 7 - 2 = 5. "
            "The answer is 5.",
            ("Tom has 3 apples, plus 4 is 7.", "He eats 2, so 7 - 2 = 5."),
            "5",
        ),
        ("**Step 1:** 3+4=7\n**Step 2:** 7-2=5\n**Answer:** 5", ("3+4=7", "7-2=5"), "5"),
        ("1. 3+4=7\n2) 7-2=5\n\nFinal answer: $5", ("3+4=7", "7-2=5"), "5"),
        ("- first 2*3=6\n- then 6+1=7\n7", ("first 2*3=6", "then 6+1=7"), "7"),
        (
            "1. We add:\n   3+4=7\n2. We halve:\n   7/2=3.5\n#### 3.5",
            ("We add: 3+4=7", "We halve: 7/2=3.5"),
            "3.5",
        ),
        (
            "First, 3 + 4 = 7. Mr. Smith then eats 2.5 of them. So 7 - 2.5 = 4.5 remain. "
            "The answer is 4.5.",
            ("First, 3 + 4 = 7.", "Mr. Smith then eats 2.5 of them.", "So 7 - 2.5 = 4.5 remain."),
            "4.5",
        ),
        (
            "Let's think step by step.\nTom is a lempus.\nEvery lempus is a wumpus.\n"
            "So the answer is: yes.",
            ("Tom is a lempus.", "Every lempus is a wumpus."),
            "yes",
        ),
        (
            "She sold 48/2 = <<48/2=24>>24 clips.\n<<48+24=72>>\n#### 72",
            ("She sold 48/2 = 24 clips.", "48+24=72"),
            "72",
        ),
        ("<think>12? no</think>We get 3+4=7 so \\boxed{7}.", ("We get 3+4=7 so 7.",), "7"),
        ("The answer is 3 + 5 = 8.", ("The answer is 3 + 5 = 8.",), "8"),
        (
            "He sells 8 cards at 9 dollars.\n72 dollars = 8*9 is what he earns.\n#### 72",
            ("He sells 8 cards at 9 dollars.", "72 dollars = 8*9 is what he earns."),
            "72",
        ),
        ("5**2 = 25\n(3+2)**2 is 5 ** 2\n**So** the __area__ is 25", None, "25"),
        (
            "所以**总共**有7个\n**Sum**(all) 5**-2 = 0.04\n#### 0.04",
            ("所以总共有7个", "Sum(all) 5**-2 = 0.04"),
            "0.04",
        ),
        ("5**2 = 25\n**Then** 25+1=26\n#### 26", ("5**2 = 25", "Then 25+1=26"), "26"),
        ("3+4=7\n7 apples are left of the 9 at first\n#### 7", None, "7"),
        ("3+4=7\nShe has 7 apples.\n#### 7", ("3+4=7",), "7"),
        ("It takes 120/24 = 5 hours to read 120 pages.", None, "5"),
        ("他有3+4=7个苹果。他吃了2个 7-2=5。\n#### 5", None, "5"),
        ("7", (), "7"),
        ("", (), ""),
    ],
)
def test_steps_and_answers_of_prose(text, steps, answer):
    found = split_solution(text)
    if steps is not None:
        assert found.steps == steps
    assert found.answers(answer) or (not answer and not found.answer)
    assert not found.answers("123456")


def test_ways_to_part_steps():
    text = "She sold 48 / 2 = 24 clips. In all $1,048+24=1,072 dollars.\nThat is all. #### 1072"
    assert split_solution(text, "equations").steps == ("48 / 2 = 24", "$1,048+24=1,072")
    assert len(split_solution(text, "lines").steps) == 2
    assert len(split_solution(text, "sentences").steps) == 3
    noted = "It is 48/2 = <<48/2=24>>24.\n#### 24"
    assert split_solution(noted, "equations").steps == ("<<48/2=24>>",)


@pytest.mark.slow
def test_a_megabyte_of_digits_is_looked_through_once():
    """A side of an equation is looked for over 200 characters at most, not to the end."""
    start = time.process_time()
    text = "1 " * 250_000 + "\n1+1=2"
    assert split_solution(text, "equations").steps[-1].endswith("1+1=2")
    assert time.process_time() - start < 20


def test_rows_that_fail_stand_beside_with_their_reason(tmp_path):
    path, out = tmp_path / "prose.csv", tmp_path / "steps.jsonl"
    path.write_text(
        "question,rationale,answer\n"
        '1+1+1?,"1+1=2. 2+1=3. The answer is 3.",3\n'
        '2+2?,"2+2=5.",4\n'
        "3+3?,,6\n"
        "4+4?,The answer is 8.,8\n"
        '5+5?,"5+5=10.",\n'
        '9+9+1?,"9+9=18. 18+1=19.",19.0\n'
    )
    column = ("--column", "steps=rationale")
    summary = rim_json("data", "split-steps", path, *column, "--out", out)
    assert (summary["rows"], summary["kept"], summary["failed"]) == (6, 2, 4)
    assert (summary["steps_median"], summary["steps_longest"]) == (2, 2)
    assert [e.steps for e in open_file(out)] == [("1+1=2.", "2+1=3."), ("9+9=18.", "18+1=19.")]
    failed = rows_of(tmp_path / "steps-failed.jsonl")
    assert [row["reason"] for row in failed] == [
        "the chain of thought ends with '5', the answer is '4'",
        "there is no chain of thought",
        "there is no step beside the answer",
        f"{path}, row 6: column 'answer' must be a non-empty string, got ''",
    ]
    first = out.read_bytes()
    assert "exists" in rim_command("data", "split-steps", path, *column, "--out", out, code=2)
    shown = rim_command("data", "split-steps", path, *column, "--out", out, "--overwrite")
    assert "left out, another answer" in shown
    assert "3 blocks" in shown
    assert out.read_bytes() == first


def test_a_file_of_which_nothing_is_kept_is_a_failure(tmp_path):
    path, out = tmp_path / "prose.jsonl", tmp_path / "steps.jsonl"
    path.write_text(json.dumps({"question": "2+2?", "answer": "4"}))
    assert "no chain" in rim_command("data", "split-steps", path, "--out", out, code=1)
    told = rim_command("data", "split-steps", path, "--out", path, "--overwrite", code=2)
    assert "is the input" in told


@pytest.mark.slow
def test_solutions_of_gsm8k_are_split_without_their_marker(tmp_path):
    """The answer behind #### is set apart: the prose must lead to it by itself."""
    out = tmp_path / "steps.jsonl"
    summary = rim_json("data", "split-steps", real_data("gsm8k_test.jsonl"), "--out", out)
    assert summary["rows"] == 1319
    assert summary["kept"] > 1290
    assert set(summary["reasons"]) <= {"another answer", "no steps"}
    assert not any("<<" in step for e in open_file(out) for step in e.steps)
