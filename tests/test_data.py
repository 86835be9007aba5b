"""Readers, the answer parser, and the generator."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from decimal import Decimal

import pytest
from conftest import real_data

from rim.config import ArithmeticConfig, Columns, DataConfig, DataSource
from rim.data.examples import DataError
from rim.data.guessing import guess_format
from rim.data.sources import (
    check_file,
    describe,
    load_examples,
    open_file,
)
from rim.data.tasks.arithmetic import generate_arithmetic
from rim.data.tasks.drawing import split_of
from rim.data.training import hold_out, load_training_data
from rim.infer.answers import extract_answer, is_right, same_answer


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("#### 72", "72"),
        ("so it is\n#### 1,234", "1234"),
        ("#### -5", "-5"),
        ("#### \u22125", "-5"),
        ("#### $1,234.50 in all", "1234.5"),
        ("#### 3.0", "3"),
        ("#### 12 apples and 3 pears", "12"),
        ("<<3+4=7>>\n<<7*2=14>>\n14", "14"),
        ("The answer is 8 dollars.", "8"),
        ("8-3=5", "5"),
        ("#### .5", "0.5"),
        ("#### 1e3", "1000"),
        ("#### Tom is a wumpus.", "tom is a wumpus"),
        ("#### 5 5 6 0 8", "5 5 6 0 8"),
        ("#### 20%", "20"),
        ("#### 57.0 extra #### 58", "58"),
        ("#### -$40", "-40"),
        ("#### 7\nand then 9", "7"),
        *(
            (f"#### {same}", same)
            for same in ("1/2", "2:30", "(3, 4)", "x = 5, y = 3", "3 hours 20 minutes")
        ),
        ("#### 7 pm", "7 pm"),
        ("#### 12", "12 apples"),
        ("#### 12 apples.", "12 apples"),
        ("#### 12 apples and 3 pears", "12 apple"),
        ("#### 1 apple", "1 apples"),
        ("#### 12 glasses", "12 glass"),
        ("#### 5 m", "5 m"),
        ("#### 5 m because 3 + 2 = 5", "5 m"),
    ],
)
def test_answers_are_recognised(text, gold):
    assert is_right(text, gold)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("#### 7", "8"),
        ("", "7"),
        ("####", "7"),
        ("#### -7", "7"),
        ("#### 1,23", "123"),
        ("#### no", "yes"),
        ("#### 5 5 6 0 9", "5 5 6 0 8"),
        ("#### 0.3333", "0.33333"),
        ("#### 7 am", "7 pm"),
        ("#### y^2", "x^2"),
        ("#### 3A", "3B"),
        ("#### 1/3", "1/2"),
        ("#### 5 5 6", "5"),
        ("#### 12 minutes", "12 m"),
        ("#### 5 million", "5 m"),
        ("#### 5 ms", "5 m"),
        ("#### 12 applesauce jars", "12 apples"),
    ],
)
def test_wrong_answers_are_not(text, gold):
    assert not is_right(text, gold)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("#### $1,234.0", "1234"),
        ("#### 12 apples and 3 pears", "12 apples and 3 pears"),
        ("#### 7 am", "7 am"),
        ("#### 3 hours 20 minutes", "3 hours 20 minutes"),
        ("#### 1 1", "1 1"),
        ("The answer is 8 dollars, because 3 + 5 = 8 dollars.", "8 dollars"),
        ("8-3=5", "5"),
        ("so (that is 5)-3", "3"),
        ("it is minus -4.50", "-4.5"),
        ("1/2", "1/2"),
        ("2 and .50", "0.5"),
        (f"#### -{'9' * 40}.5", f"-{'9' * 40}.5"),
        ("#### -0", "0"),
        ("####", ""),
        (" \n", ""),
    ],
)
def test_what_is_shown_as_an_answer(text, shown):
    assert extract_answer(text) == shown


def test_without_a_marker_in_the_template_the_last_piece_is_the_answer():
    for answer in ("x = 5, y = 3", "3 hours 20 minutes", "room 8", "y^2", "7"):
        assert extract_answer(f"a step;{answer};", marker="", separator=";") == answer
        assert is_right(f"a step;{answer}", answer, marker="", separator=";")
    # A step in place of the answer is none, whatever number it ends with.
    assert not is_right("1+1=2;3+4=7", "7", marker="", separator=";")


def test_an_answer_that_states_several_numbers_is_not_any_of_them():
    for text in (
        "#### 3 + 4 = 7",
        "#### x = 5, y = 3",
        "#### 3, 5",
        "#### 5/3",
        "#### between 3 and 5",
        "#### 7 or 8",
        "#### 7 apples or 8 apples",
        "#### 7 or maybe 8",
        "#### 5 to 7",
        "#### 5 over 3",
        "#### 7 or 8 = 7",
        "#### 5 apples or 6 apples: x = 5",
        "#### 5 dollars = 72 (8*9)",
        "#### 7 am to 9 pm",
        "#### 5 x 3 = 15",
        "#### 5x3 = 15",
        "#### 4 squared is 16",
        "#### 5 times 3 is 15",
        "#### 4 apples, and with 3 more 4 + 3 = 7",
    ):
        for gold in ("3", "4", "5", "7"):
            assert not is_right(text, gold), (text, gold)
    for text in (
        "#### **72**, since 8 * 9 = 72",
        "#### 72 because 8 * 9 is that",
        "#### $72 (8*9)",
        "#### 72 dollars (8 * 9 = 72)",
        "#### 72 dollars to 3 children, or 24 each",
        "#### 72 times in 5 days",
        "#### 72 to fill 170 balloons",
        "#### 72.00 over 4 weeks",
        "#### 72 dollars = 8*9 = 72",
        "#### 72 x 1 = 72",
        "#### 72 boxes since 8 * 9 = 72 and 72 + 1 = 73",
    ):
        assert is_right(text, "72"), text


@pytest.mark.slow
def test_what_is_shown_is_what_is_graded():
    """A right text shows an answer that is right by itself, and a wrong one shows none that is."""
    draw = random.Random(0)
    numbers = ("7", "-7", "1,234", "1234.0", "$5", "20%", ".5", "1e3", "1/2", "2:30", "5 5 6", "0")
    words = (
        "apples",
        "pm",
        "Tom is a lempus.",
        "no",
        "(",
        ")",
        "=",
        "x",
        "+",
        ", ",
        "**",
        "°",
        "é",
        "",
    )
    golds = [*numbers, "12 apples", "7 pm", "3 hours 20 minutes", "x = 7, y = 5", "no", "room 7"]
    right = 0
    for _ in range(20_000):
        parts = [
            draw.choice(draw.choice((numbers, words, golds))) for _ in range(draw.randint(0, 4))
        ]
        marker = draw.choice(("####", "", "The answer is:"))
        opening = draw.choice(
            ("", "3+4=7\n", "so ", marker, f"{marker} ", f"1 {marker}2\n{marker} ")
        )
        text = (
            opening + draw.choice((" ", "", "\n")).join(parts) + draw.choice(("", ".", "\nmore 7"))
        )
        gold = draw.choice(golds)
        shown = extract_answer(text, marker)
        verdict = is_right(text, gold, marker)
        right += verdict
        assert same_answer(shown, gold) == verdict
        assert is_right(shown, gold, marker="") == verdict, (text, marker, shown, gold)
        assert is_right(f"#### {shown}", gold) == verdict, (text, marker, shown, gold)
    assert right > 500


def test_answer_after_the_last_separator():
    assert extract_answer("3+4=7;7-5=2;2", marker="", separator=";") == "2"


def write(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    path.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8"
    )
    return path


GOOD = {"question": "3+4?", "steps": ["3+4=7"], "answer": 7}


def test_jsonl_is_read_with_numbers_blank_lines_and_unicode(tmp_path):
    odd = {"question": "caf\u00e9\u2028?", "steps": [], "answer": "n\u00e9"}
    examples = open_file(write(tmp_path, GOOD, "", odd))
    assert [e.answer for e in examples] == ["7", "n\u00e9"]
    assert examples[1].origin.endswith("line 3")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{broken", r"line 2: not valid JSON"),
        ("[1]", r"line 2: expected a JSON object"),
        ({"steps": ["a"], "answer": "1"}, r"line 2: field 'question' is missing"),
        ({"question": " ", "answer": "1"}, r"line 2: field 'question' must be a non-empty string"),
        ({"question": "q", "answer": ""}, r"line 2: field 'answer' must be a non-empty"),
        ({"question": "q", "answer": None}, r"line 2: field 'answer' must be a string or a number"),
        (
            {"question": "q", "steps": 5, "answer": "1"},
            r"line 2: field 'steps' must be a list of strings, or one string",
        ),
        ({"question": "q", "steps": ["a", ""], "answer": "1"}, r"line 2: field 'steps', item 2"),
        ({"question": 5, "answer": "1"}, r"line 2: field 'question'"),
    ],
)
def test_malformed_records_name_line_and_field(tmp_path, bad, message):
    path = write(tmp_path, GOOD, bad)
    with pytest.raises(DataError, match=message):
        open_file(path, "jsonl")
    found = check_file(path, "jsonl")
    assert found.records == 2
    assert len(found.problems) == 1


def test_validation_lists_every_problem(tmp_path):
    respelled = GOOD | {"question": " 3+4?\n"}  # the same question to training
    path = write(tmp_path, GOOD, "{", respelled, {"question": "q", "steps": [], "answer": "1"})
    found = check_file(path, None)
    assert found.records == 4
    assert [p.split(": ")[1] for p in found.problems] == [
        "not valid JSON (Expecting property name enclosed in double quotes, column 2)",
        f"the question repeats that of {path}, line 1",
    ]
    assert found.without_steps == [f"{path}, line 4"]
    assert describe(open_file(write(tmp_path, GOOD, respelled)))["distinct_questions"] == 1


@pytest.mark.parametrize(
    ("steps", "prose"),
    [
        (["Ann has 3. Bo has 4. So 7."], True),
        (["3+4=7"], False),
        (["Ann has 3.5 apples"], False),
        (["Ann has 3. Bo has 4.", "So 7."], False),
        ([], False),
    ],
)
def test_solutions_that_nobody_has_parted_are_noticed(tmp_path, steps, prose):
    path = write(tmp_path, GOOD | {"steps": steps})
    assert check_file(path, None).in_one_step is prose


def test_missing_files_folders_and_unknown_formats(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_file(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        open_file(tmp_path, "jsonl")
    with pytest.raises(DataError, match="did you mean 'jsonl'"):
        open_file(tmp_path, "jsnl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        open_file(empty)


PROSQA = {"question": "Is Tom a lempus or zorpus?", "steps": ["Tom is a lempus."], "answer": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 6 * 7 4||5 5 4 + 0 0 6 2 #### 5 5 0 3", "multiplication_file"),
        ("5 * 7||5 3 #### 5 3", "multiplication_file"),
        ("What is 5 6 * 7?||<<56*7=392>> #### 392", "gsm8k_aug"),
        (json.dumps({"question": "q", "cot": "<<1+2=3>>", "answer": "3"}), "gsm8k_aug_json"),
        (json.dumps([PROSQA]), "prosqa"),
        (json.dumps([{"Body": "b", "Question": "q?", "Answer": 1}]), "svamp"),
        (json.dumps(PROSQA), "jsonl"),
        (json.dumps({"input": "q", "target": 1.0}), "gsm_hard"),
        (json.dumps(PROSQA | {"input": "i", "target": 1.0}), "jsonl"),
    ],
)
def test_formats_are_told_apart_by_content(tmp_path, text, expected):
    assert guess_format(write(tmp_path, text)) == expected
    assert len(open_file(write(tmp_path, text))) == 1


def test_steps_of_gsm8k_aug_are_the_same_from_a_line_and_from_an_object(tmp_path):
    line = "What?||<<1 + 2=3>> <<3*4=12>> #### 12"
    record = {"question": "What?", "cot": "<<1 + 2=3>> <<3*4=12>>", "answer": "12"}
    (first,), (second,) = (open_file(write(tmp_path, text)) for text in (line, record))
    assert first.steps == second.steps == ("<<1 + 2=3>>", "<<3*4=12>>")
    assert first.answer == second.answer == "12"


def test_a_step_of_a_product_is_a_partial_product_with_its_running_sum(tmp_path):
    line = "5 1 * 1 2 3||5 1 0 + 0 0 3 0 ( 5 1 3 0 ) + 0 0 5 4 0 #### 5 1 8 4 0"
    (example,) = open_file(write(tmp_path, line))
    assert example.question == "5 1 * 1 2 3"
    assert example.steps == ("5 1 0", "0 0 3 0 ( 5 1 3 0 )", "0 0 5 4 0")
    assert example.answer == "5 1 8 4 0"


@pytest.mark.parametrize(
    ("text", "file_format", "message"),
    [
        ("56 * 74||1 #### 2", "multiplication_file", "line 1: expected digits such as"),
        ("5 * 7||5 3", "multiplication_file", "line 1: expected 'question"),
        ("What?||5 + 7 #### 2", "gsm8k_aug", "line 1: the steps hold no '<<...>>'"),
        ('{"question": "q", "cot": "5+7", "answer": "2"}', "gsm8k_aug_json", "hold no '<<...>>'"),
        ('{"question": "q", "cot": ["5+7"], "answer": "2"}', None, "'cot' must be a string"),
        ('[{"question": "q", "answer": "a"}]', "prosqa", "item 1: field 'steps' is missing"),
        ('[{"question": "q"}]', None, "read as SVAMP .* or ProsQA"),
    ],
)
def test_records_of_another_format_name_line_and_fault(tmp_path, text, file_format, message):
    with pytest.raises(DataError, match=message):
        open_file(write(tmp_path, text), file_format)


def test_excluded_files_take_their_questions_out_of_any_source(tmp_path):
    path = write(tmp_path, GOOD | {"question": "What is 3?"}, GOOD | {"question": "other?"})
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps(GOOD | {"question": "What\u00a0is\n 3? "}))
    source = DataSource(format="jsonl", path=str(path), exclude=(str(held_out),))
    assert [e.question for e in load_examples(source)] == ["other?"]
    with pytest.raises(DataError, match="holds no examples but for those of"):
        load_examples(source.model_copy(update={"exclude": (str(path),)}))
    with pytest.raises(DataError, match="no such file"):
        load_examples(source.model_copy(update={"exclude": ("nothing.jsonl",)}))


def test_solutions_are_excluded_by_their_questions_alone(tmp_path):
    """GSM8K's records read by columns: their answers are whole solutions, their questions count."""
    held_out, mine = tmp_path / "gsm8k.jsonl", tmp_path / "mine.jsonl"
    record = {"question": "How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"}
    held_out.write_text(json.dumps(record))
    rows = [{"question": q, "answer": "7"} for q in ("How many?", "How much?")]
    mine.write_text("\n".join(map(json.dumps, rows)))
    raw = {"format": "jsonl", "path": str(mine), "columns": {"question": "question"}}
    source = DataSource.model_validate(raw | {"exclude": [str(held_out)]})
    assert [e.question for e in load_examples(source)] == ["How much?"]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"question": "What is 3?", "answer": "1+2=<<1+2=3>>3\n#### 3"}, Columns()),
        ({"question": "What is 3?", "cot": "<<1+2=3>>", "answer": "3"}, Columns()),
        ({"input": "What is 3?", "target": 3.0}, Columns()),
        ({"input": "What is 3?", "target": 3.0}, Columns(question="input", answer="target")),
        ({"q": "What is 3?", "answer": "3"}, Columns(question="q", steps="rationale")),
    ],
)
def test_excluded_files_are_in_any_format(tmp_path, record, columns):
    held_out = write(tmp_path, record)
    source = DataSource(
        format="csv", path=str(tmp_path / "mine.csv"), columns=columns, exclude=(str(held_out),)
    )
    names = f"{columns.question},{columns.answer},{columns.steps}"
    (tmp_path / "mine.csv").write_text(f"{names}\nWhat is 3?,3,1+2=3\nother?,4,2+2=4\n")
    assert [e.question for e in load_examples(source)] == ["other?"]


def test_prosqa_sentences_are_graded_as_text():
    for example in open_file(real_data("prosqa_valid.json")):
        entity, one, other = re.findall(r"Is (\w+) a (\w+) or (\w+)\?", example.question)[0]
        right, wrong = (f"{entity} is a {name}" for name in (one, other))
        if example.answer != f"{right}.":
            right, wrong = wrong, right
        assert example.answer == f"{right}."
        for text in (right, f"{right}.", f"  {right.upper()} . ", right.replace(" ", "  ")):
            assert is_right(f"#### {text}", example.answer)
            assert is_right(text, example.answer)
        assert is_right("\n".join([*example.steps, f"#### {right}."]), example.answer)
        assert extract_answer(f"#### {right}.") == example.answer
        for text in (wrong, right + "s", f"{right} or {wrong}", right.replace(entity, "Nobody")):
            assert not is_right(f"#### {text}.", example.answer)


def test_hub_sets_are_read_by_name_and_column_mapping(tmp_path):
    path = write(tmp_path, {"q": "3+4?", "cot": "3+4=7 | 7", "a": "7"})
    source = {
        "format": "hub",
        "path": "json",
        "data_files": str(path),
        "step_separator": "|",
        "columns": {"question": "q", "steps": "cot", "answer": "a"},
    }
    (example,) = load_examples(DataSource.model_validate(source))
    assert (example.question, example.steps, example.answer) == ("3+4?", ("3+4=7", "7"), "7")
    source["columns"]["steps"] = "steps"
    with pytest.raises(DataError, match="no column 'steps'"):
        load_examples(DataSource.model_validate(source))


def test_generated_splits_share_no_question():
    splits = {
        split: {
            e.question for e in generate_arithmetic(ArithmeticConfig(num_examples=500, split=split))
        }
        for split in ("train", "validation", "test")
    }
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["test"]
    assert all(split_of(q) == split for split, questions in splits.items() for q in questions)


def test_generated_chains_are_right_and_seeded():
    config = ArithmeticConfig(num_examples=300, min_operations=1, split="test")
    config = config.model_copy(update={"num_examples": 60})
    examples = generate_arithmetic(config)
    assert examples == generate_arithmetic(config)
    assert examples != generate_arithmetic(config.model_copy(update={"seed": 1}))
    assert sorted({len(e.steps) for e in examples}) == [1, 2, 3, 4]
    for e in examples:
        assert int(e.answer) == eval(e.question.rstrip("="), {}) % 10
    with pytest.raises(DataError, match="distinct validation questions with 1 operations"):
        generate_arithmetic(
            ArithmeticConfig(
                num_examples=500, min_operations=1, max_operations=1, split="validation"
            )
        )


def test_holding_out_keeps_repeated_questions_together():
    examples = generate_arithmetic(
        ArithmeticConfig(num_examples=400, min_operations=1, max_operations=1)
    )
    respelled = [dataclasses.replace(e, question=f" {e.question}\n") for e in examples]
    train, held = hold_out(examples + respelled, 20, seed=0)
    assert len(train) + len(held) == 800
    assert not {e.same_question for e in train} & {e.same_question for e in held}
    assert len({e.same_question for e in held}) == 20


def test_a_validation_question_in_the_training_set_is_refused():
    source = DataSource(format="arithmetic", arithmetic=ArithmeticConfig(num_examples=10))
    with pytest.raises(DataError, match="also a training question"):
        load_training_data(DataConfig(train=source, validation=source), seed=0)


@pytest.mark.parametrize(
    ("name", "rows", "with_steps"),
    [
        ("gsm8k_train.jsonl", 7473, 7378),
        ("gsm8k_test.jsonl", 1319, None),
        ("gsm_hard.jsonl", 1319, 0),
        ("svamp.json", 1000, 0),
        ("gsm8k_aug_valid.txt", 500, None),
        ("mult_4x4_valid.txt", 1000, 1000),
        ("prosqa_valid.json", 300, 300),
    ],
)
def test_published_files_are_read_whole(name, rows, with_steps):
    stats = describe(open_file(real_data(name)))
    assert stats["examples"] == rows
    if with_steps is not None:
        assert rows - stats["without_steps"] == with_steps


def test_gold_answers_of_published_files_are_understood():
    for name in ("gsm8k_test.jsonl", "gsm_hard.jsonl"):
        for example in open_file(real_data(name)):
            assert Decimal(extract_answer(f"#### {example.answer}")).is_finite(), example
            assert is_right(f"#### {example.answer}", example.answer)
