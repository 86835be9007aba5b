"""Tasks for lm-evaluation-harness: what is written, and what its two functions do."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from export_models import checked_in_process, make_run
from question_files import gsm8k_file, svamp_file
from typer.testing import CliRunner

from rim.cli import app
from rim.config import ConfigError
from rim.data.examples import DataError
from rim.data.sources import load_examples, open_file, task_source
from rim.deploy.export import export_run
from rim.deploy.export.record import BlockRange
from rim.deploy.harness.scoring import load_questions, score
from rim.deploy.harness.writing import (
    TaskFolder,
    model_command,
    server_command,
    shipped_sources,
    write_tasks,
)


@pytest.fixture(scope="module")
def trained(plain_tokenizer, tmp_path_factory):
    return make_run("gpt2", plain_tokenizer, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    with checked_in_process():
        return export_run(trained, tmp_path_factory.mktemp("export") / "exported").folder


@pytest.mark.slow
def test_every_shipped_task_is_written_and_names_its_data(exported, tmp_path):
    tasks = write_tasks(exported, tmp_path / "tasks")
    assert tasks.names == tasks.to_run == tuple(sorted(shipped_sources()))
    assert tasks.names == ("rim_arithmetic", "rim_gsm8k", "rim_gsm_hard", "rim_svamp")
    for name in tasks.names:
        task = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert task["task"] == name
        assert (tmp_path / "tasks" / task["include"]).exists()
        assert task["dataset_kwargs"]["source"] == shipped_sources()[name]
        assert task["dataset_kwargs"]["answer_marker"] == "#### "


def test_questions_and_answers_are_those_of_rim_eval(exported, tmp_path):
    for file in (gsm8k_file(tmp_path), svamp_file(tmp_path)):
        tasks = write_tasks(exported, tmp_path / f"{file.stem}-tasks", {"mine": file})
        task = yaml.safe_load((tasks.folder / "mine.yaml").read_text(encoding="utf-8"))
        rows = load_questions(**task["dataset_kwargs"], version=1, pretrained="x")["test"]
        expected = [(e.question, e.answer) for e in open_file(file)]
        assert [(row["question"], row["answer"]) for row in rows] == expected


def test_the_arithmetic_task_asks_what_rim_data_generate_writes():
    source = shipped_sources()["rim_arithmetic"]
    rows = load_questions(source, "", ";")["test"]
    expected = load_examples(task_source("arithmetic", {"num_examples": 1000, "split": "test"}))
    assert [row["question"] for row in rows] == [e.question for e in expected]


@pytest.mark.parametrize("name", ["rim_gsm8k", "rim_gsm_hard", "rim_svamp"])
def test_hub_rows_are_read_as_the_published_files_are(name, tmp_path):
    """The hub's copies hold the same records; a folder stands in for the hub."""
    rows = {
        "rim_gsm8k": {"question": "q", "answer": "<<3+4=7>>7\n#### 7"},
        "rim_gsm_hard": {"input": "q", "code": "...", "target": 7.0},
        "rim_svamp": {"ID": "1", "Body": "q", "Question": "w?", "Answer": "7", "Type": "+"},
    }
    (tmp_path / "data.jsonl").write_text(json.dumps(rows[name]), encoding="utf-8")
    source = shipped_sources()[name] | {"path": str(tmp_path), "split": "train", "subset": None}
    (row,) = load_questions(source, "#### ", "\n")["test"]
    assert (row["question"], row["answer"]) == ("q. w?" if "svamp" in name else "q", "7")


def test_a_text_is_judged_with_the_templates_of_the_run():
    doc = {"question": "q", "answer": "7", "answer_marker": "#### ", "step_separator": "\n"}
    doc |= {"answer_tail": ""}
    assert score(doc, ["3+4=8\n#### 7 apples, not 8"]) == {"accuracy": 1.0}
    assert score(doc | {"answer_marker": ""}, ["3+4=8\n#### 7 apples, not 8"]) == {"accuracy": 0.0}
    assert score(doc | {"step_separator": "|", "answer_marker": ""}, ["7|"]) == {"accuracy": 1.0}
    boxed = doc | {"answer": "1/2", "answer_marker": "\\boxed{", "answer_tail": "}"}
    assert score(boxed, ["\\boxed{1/2}"]) == {"accuracy": 1.0}


def test_tasks_are_not_replaced_unasked(exported, tmp_path):
    write_tasks(exported, tmp_path)
    with pytest.raises(ConfigError, match=r"has a file 'rim_.*yaml' already"):
        write_tasks(exported, tmp_path)
    write_tasks(exported, tmp_path, overwrite=True)


def test_questions_beside_the_tasks_are_not_written_over(exported, tmp_path):
    mine = tmp_path / "mine.jsonl"
    text = json.dumps({"question": "q", "answer": "7", "mine": True}) + "\n"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=r"has a file 'mine.jsonl' already"):
        write_tasks(exported, tmp_path, {"mine": mine}, scoring="regex")
    with pytest.raises(ConfigError, match="is one of the data files"):
        write_tasks(exported, tmp_path, {"mine": mine}, scoring="regex", overwrite=True)
    assert mine.read_text() == text


def test_mistakes_are_told_before_anything_is_written(exported, tmp_path, monkeypatch):
    to = tmp_path / "tasks"
    with pytest.raises(ConfigError, match="not an exported folder"):
        write_tasks(tmp_path, to)
    with pytest.raises(ConfigError, match="letters, digits and underscores"):
        write_tasks(exported, to, {"../x": gsm8k_file(tmp_path)})
    monkeypatch.setattr("rim.deploy.harness.writing.load_examples", lambda source: [])
    with pytest.raises(ConfigError, match=r"x: with --scoring regex .* save them as a file"):
        write_tasks(exported, to, {"x": "hub:someone/set:test"}, scoring="regex")
    monkeypatch.undo()
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "q", "answer": "#### 1"}\n{"question": 3}', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        write_tasks(exported, to, {"mine": bad})
    assert not to.exists()


def test_the_command_prints_what_to_run(exported, tmp_path):
    file, to = gsm8k_file(tmp_path), tmp_path / "my tasks"
    arguments = ["lm-eval", str(exported), "--out", str(to), "--data", f"rim_gsm8k={file}"]
    result = CliRunner().invoke(app, [*arguments, "--blocks", "4"])
    assert result.exit_code == 0, result.output
    here, server = (
        shlex.split(line) for line in result.stdout.splitlines() if line.startswith("lm_eval")
    )
    assert json.loads(here[here.index("--model_args") + 1]) == {
        "pretrained": str(exported),
        "chat_template_args": {"blocks": 4},
    }
    assert json.loads(server[server.index("--model_args") + 1])["eos_string"] == "<|endoftext|>"
    assert json.loads(server[server.index("--gen_kwargs") + 1]) == {
        "chat_template_kwargs": {"blocks": 4}
    }
    for command in (here, server):
        assert command[command.index("--include_path") + 1] == str(to)
        assert command[command.index("--tasks") + 1] == "rim_gsm8k"
        assert "--apply_chat_template" in command
    wrong = CliRunner().invoke(app, [*arguments[:4], "--data", "rim_gsm8k", "--overwrite"])
    assert wrong.exit_code == 2
    assert "NAME=FILE" in wrong.stderr


def test_the_documents_commands_are_those_that_are_printed():
    text = (Path(__file__).parents[1] / "docs" / "lm-eval.md").read_text(encoding="utf-8")
    tasks = TaskFolder(
        Path("tasks"), Path("exported"), BlockRange(5, 64), "<|endoftext|>", (), ("mine",), ()
    )
    commands = re.findall(r"^lm_eval run .*$", text, re.MULTILINE)
    assert commands == [model_command(tasks), server_command(tasks)]
