"""CSV, Parquet and hub sets by the names of their columns, wherever a data file is named."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest
from test_cli import rim_command, rim_json

from rim.config import Columns, DataSource
from rim.data.columns import Reading
from rim.data.examples import DataError
from rim.data.guessing import guess_format
from rim.data.sources import check_file, file_source, load_examples, open_file

NAMED = Reading(Columns(question="Problem", steps="Work", answer="Result"), "|")


def csv_file(tmp_path, text, name="table.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table_is_read_without_a_word_where_its_columns_have_our_names(tmp_path):
    text = 'id,Question,steps,answer\n1,"3+4, please?","3+4=7\n7*1=7",007\n2,"1+1?",,2\n'
    for encoding in ("utf-8", "utf-8-sig"):
        examples = open_file(csv_file(tmp_path, text, encoding=encoding))
        assert examples[0].question == "3+4, please?"
        assert examples[0].steps == ("3+4=7", "7*1=7")
        assert examples[0].answer == "007"  # text stays text
        assert (examples[1].steps, examples[1].answer) == ((), "2")
        assert examples[1].origin.endswith("row 3")


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_what_parts_cells_is_told_by_the_header(tmp_path, separator):
    text = separator.join(["answer", "question"]) + "\n" + separator.join(["7", "3+4?"]) + "\r\n"
    path = csv_file(tmp_path, text)
    assert guess_format(path) == "csv"
    assert [(e.question, e.answer) for e in open_file(path)] == [("3+4?", "7")]


@pytest.mark.parametrize("cell", ["3+4=7| 7-2=5 ", '["3+4=7", "7-2=5"]'])
def test_columns_of_other_names_in_every_kind_of_table(tmp_path, cell):
    row = {"Problem": "3+4-2?", "Work": cell, "Result": "5", "more": "x"}
    jsonl = tmp_path / "data.jsonl"
    jsonl.write_text(json.dumps(row) + "\n")
    quoted = ['"' + value.replace('"', '""') + '"' for value in row.values()]
    csv = csv_file(tmp_path, ",".join(row) + "\n" + ",".join(quoted))
    parquet = tmp_path / "table"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), parquet)
    hub = {"format": "hub", "path": "json", "data_files": str(jsonl), "step_separator": "|"}
    named = {"columns": NAMED.columns.model_dump(), **hub}
    found = [open_file(path, None, None, NAMED) for path in (jsonl, csv, parquet)]
    found.append(load_examples(DataSource.model_validate(named)))
    for (example,) in found:
        assert (example.question, example.answer) == ("3+4-2?", "5")
        assert example.steps == ("3+4=7", "7-2=5")
    auto = {"format": "auto", "path": str(csv), "step_separator": "|", "columns": named["columns"]}
    assert load_examples(DataSource.model_validate(auto))[0].steps == ("3+4=7", "7-2=5")


def test_parquet_has_lists_and_numbers_of_its_own(tmp_path):
    path = tmp_path / "data.parquet"
    rows = {"question": ["a", "b"], "steps": [["x", "y"], None], "answer": [7.0, 2.5]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    examples = open_file(path)
    assert [(e.steps, e.answer) for e in examples] == [(("x", "y"), "7"), ((), "2.5")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Problem,answer\nq,1\n", r"no column 'question'; it has 'Problem', 'answer'. Say which"),
        ("question,answer\nq,1\nq2,\n", r"row 3: column 'answer' must be a non-empty string"),
        ("question,answer\nq,1\na,b,2\n", r"row 3: 3 cells where the header has 2; a cell"),
        ("question,answer\nq,1\na\n", r"row 3: 1 cells where the header has 2$"),
        ('question,answer\nq,1\n"a,2\n', r"row 3: not a readable CSV \(unexpected end"),
        ("question,answer,answer\nq,1,2\n", r"row 1: two columns are called 'answer'"),
        ("question,Question,answer\na,b,c\n", None),
        ("QUESTION,Question,answer\na,b,c\n", r"has several columns 'question'"),
        ("question,steps,answer\nq,\"['a', 'b']\",1\n", r"column 'steps' is a list as Python"),
        ('question,steps,answer\nq,"[""a"", 5]",1\n', r"column 'steps', item 2, must be"),
        ("\n", "is empty"),
    ],
)
def test_mistakes_name_file_row_and_column(tmp_path, text, message):
    path = csv_file(tmp_path, text)
    if message is None:
        assert open_file(path, "csv")[0].question == "a"
        return
    with pytest.raises(DataError, match=message) as error:
        open_file(path, "csv")
    assert str(path) in str(error.value)


def test_every_problem_of_a_table_is_listed(tmp_path):
    path = csv_file(tmp_path, "question,answer\na,1\nb,\nc,1,2\na,1\n")
    found = check_file(path, None)
    assert found.records == 4
    rows = [problem.split("row ")[1][0] for problem in found.problems]
    assert rows == ["3", "4", "5"]
    assert len(found.without_steps) == 2


def test_files_that_are_no_table_are_told(tmp_path):
    path = csv_file(tmp_path, "just some words\n")
    with pytest.raises(DataError, match=r"none of the formats .*csv, parquet"):
        open_file(path)
    with pytest.raises(DataError, match=r"not UTF-8 text .*CSV UTF-8"):
        open_file(csv_file(tmp_path, "question,answer\nGröße?,1\n", encoding="cp1252"))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1\x15\x04\xff\xfePAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_file(broken)
    pyarrow.parquet.write_table(pyarrow.table({"question": ["a"] * 9, "answer": ["1"] * 9}), broken)
    torn = bytearray(broken.read_bytes())
    torn[4:40] = b"\xff" * 36  # what the footer says is whole
    broken.write_bytes(torn)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_file(broken)
    with pytest.raises(DataError, match="its format is parquet"):
        open_file(broken, "jsonl")
    with pytest.raises(DataError, match="no such file"):
        open_file(tmp_path / "nothing", "parquet")


def test_a_named_steps_column_must_be_there_and_an_unnamed_one_may_be_absent(tmp_path):
    path = csv_file(tmp_path, "question,answer\nq,1\n")
    assert open_file(path)[0].steps == ()
    with pytest.raises(DataError, match="no column 'work'"):
        open_file(path, None, None, Reading(Columns(steps="work")))
    jsonl = tmp_path / "x.jsonl"
    jsonl.write_text('{"question": "q", "answer": "1"}')
    with pytest.raises(DataError, match="line 1: field 'work' is missing"):
        open_file(jsonl, None, None, Reading(Columns(steps="work")))


def test_a_set_of_the_hub_is_named_where_a_file_could_be(tmp_path):
    source = file_source("hub:openai/gsm8k:main:test", "gsm8k")  # type: ignore[arg-type]
    assert (source.format, source.path, source.subset) == ("hub", "openai/gsm8k", "main")
    assert (source.split, source.records) == ("test", "gsm8k")
    assert file_source("hub:a/b:test").split == "test"  # type: ignore[arg-type]
    for wrong in ("hub:", "hub:a/b:", "hub:a/b:c:d:e"):
        with pytest.raises(DataError, match="hub:OWNER/NAME"):
            file_source(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="whose records its rows are"):
        file_source("hub:a/b", "csv")  # type: ignore[arg-type]


def test_commands_take_tables(tmp_path):
    path = csv_file(tmp_path, 'Problem,Work,Result\n3+4-2?,"3+4=7; 7-2=5",5\n')
    names = ["--column", "question=Problem", "--column", "steps=Work", "--column", "answer=Result"]
    names += ["--separator", ";"]
    assert rim_json("data", "stats", path, *names)["steps_mean"] == 2
    assert rim_json("data", "validate", path, *names)["problems"] == []
    out = tmp_path / "my.jsonl"
    assert rim_json("data", "convert", path, *names, "--out", out)["with_steps"] == 1
    assert [e.steps for e in open_file(out)] == [("3+4=7", "7-2=5")]
    assert "exists" in rim_command("data", "convert", path, *names, "--out", out, code=2)
    without = [*names[:2], *names[4:6], "--out", tmp_path / "plain.jsonl"]
    told = " ".join(rim_command("data", "convert", path, *without).split())
    assert "nothing was read of 'Work'; --column steps=NAME" in told
    told = rim_command("data", "stats", path, code=2)
    assert "--column question=NAME" in " ".join(told.split())
    assert "--column takes" in rim_command("data", "stats", path, "--column", "Problem", code=2)


def test_a_table_whose_answers_are_whole_solutions_is_told_so(tmp_path):
    """GSM8K kept as a table: its answers are no answers."""
    text = 'question,answer\n1+2?,"1+2=3\n#### 3"\n2+2?,"2+2=4\n#### 4"\n'
    path = csv_file(tmp_path, text)
    with pytest.raises(DataError, match="rim data split-steps"):
        open_file(path)
    out = tmp_path / "steps.jsonl"
    rim_command("data", "split-steps", path, "--out", out)
    assert [e.answer for e in open_file(out)] == ["3", "4"]


def test_a_table_that_begins_with_a_blank_line_is_told_so(tmp_path):
    with pytest.raises(DataError, match="row 1 is blank"):
        open_file(csv_file(tmp_path, "\nquestion,answer\n1+1?,2\n"), "csv")
