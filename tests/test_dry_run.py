"""A recipe looked at before it trains: counted, timed, nothing written."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from rich.console import Console
from test_cli import rim_command, rim_json
from test_training import raw_recipe, run

import rim
from rim.config.recipe_yaml import recipe_from_dict
from rim.data.examples import DataError
from rim.results import write_json


def write_data(path: Path, steps: int = 2, count: int = 40, question: str = "Q") -> dict:
    rows = [
        {"question": f"{question} {i}", "steps": ["1+1=2"] * (1 + i % steps), "answer": str(i)}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"train": {"format": "jsonl", "path": str(path)}, "holdout": 8}


def with_base(tmp_path, tokenizer, template: str | None = None, **changes):
    """A recipe over a base of 256 positions."""
    tokenizer.chat_template = template
    tiny_model("llama", tokenizer).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    raw = raw_recipe(tmp_path, model={"base": str(tmp_path / "base"), "lora": {"rank": 4}})
    return raw | {"data": write_data(tmp_path / "d.jsonl")} | changes


def notes_of(raw):
    return rim.dry_run(recipe_from_dict(raw))["notes"]


@pytest.mark.slow
def test_nothing_is_written_and_no_random_number_is_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = raw_recipe(tmp_path) | {"data": write_data(tmp_path / "d.jsonl", steps=6)}
    recipe = recipe_from_dict(raw)

    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    result = rim.dry_run(recipe)
    assert state() == before
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]
    assert result["data"]["train"] == 32 and result["data"]["validation"] == 8
    assert result["data"]["tokens"]["step"] == {"median": 6, "longest": 6}  # 1+1=2 and the end
    histogram = result["steps"]["histogram"]
    assert sum(histogram.values()) == 32 and set(histogram) == {1, 2, 3, 4, 5, 6}
    assert result["steps"]["blocks"] == 5 and result["steps"]["room"] == 4
    over = histogram[5] + histogram[6]
    assert result["notes"][0].startswith(f"{over} of 32 training examples")
    assert "7 would be enough for all" in result["notes"][0]
    first, second = result["stages"]
    assert (first["steps"], first["validations"], second["validations"]) == (6, 2, 2)
    assert first["micro_batch_size"] == 8
    assert result["seconds"] == first["seconds"] + second["seconds"] > 0
    assert result["memory"]["peak"] > 1e8 and result["memory"]["device"] == "cpu"
    assert result["writes"]["folder"] == str(tmp_path / "runs" / "run")
    assert run(raw).finished
    assert any("exists: choose another name" in note for note in notes_of(raw))


def test_the_alignment_decides_what_blocks_have_room_for(tmp_path):
    data = write_data(tmp_path / "d.jsonl", steps=5)
    raw = raw_recipe(tmp_path) | {"data": data}
    raw["stages"] = [raw["stages"][0] | {"alignment": "next_step", "max_steps": 1}]
    result = rim.dry_run(recipe_from_dict(raw))
    assert result["steps"]["room"] == 5 and result["notes"] == []


def test_a_busy_machine_is_said_where_threads_wait_for_each_other(tmp_path, monkeypatch):
    raw = raw_recipe(tmp_path) | {"data": write_data(tmp_path / "d.jsonl", steps=2)}
    raw["stages"] = [raw["stages"][0] | {"max_steps": 1}]
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for threads, load, said in ((2, 9.0, True), (1, 9.0, False), (2, 1.0, False)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 1.0, 1.0))
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        busy = [note for note in notes_of(raw) if "load 9 on 2 processors" in note]
        assert bool(busy) == said


def test_long_answers_are_timed_by_short_ones(tmp_path, monkeypatch):
    raw = raw_recipe(tmp_path) | {"data": write_data(tmp_path / "d.jsonl", steps=2)}
    raw["stages"] = [raw["stages"][0] | {"max_steps": 1}]
    asked = []

    def score(recipe, *rest):
        asked.append(recipe.validation.max_new_tokens)
        return lambda model: time.sleep(0.01 * asked[-1]) or {"accuracy": 0.0}

    monkeypatch.setattr("rim.train.stage_trial.validation_score", score)
    raw["validation"] = {"num_examples": 8, "max_new_tokens": 218}
    found = []
    result = rim.dry_run(recipe_from_dict(raw), found=lambda what, part: found.append(what))
    assert asked == [2, 18] and found == ["data", "stage"]
    assert 1.8 < result["stages"][0]["seconds_a_validation"] < 4  # 0.01 s a token, 218 of them


@pytest.mark.slow
def test_the_command_says_it_to_people_and_to_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = raw_recipe(tmp_path) | {"data": write_data(tmp_path / "d.jsonl", steps=6)}
    write_json(tmp_path / "r.json", raw)
    output = rim_command("train", "r.json", "--dry-run")
    for piece in (
        "run: 32 training, 8 validation examples",
        "5 blocks have room for 4",
        "more than there is room for",
        "Stage grounding: 6 steps of 8 examples at once",
        "Parameters: ",
        "Note: ",
        "Dry run: nothing was written",
    ):
        assert piece in output, piece
    shorter = rim_command("train", "r.json", "--dry-run", "--steps", 3)
    assert "Stage grounding: 2 steps of 8" in shorter and "run-3steps/" in shorter
    assert rim_json("train", "r.json", "--dry-run", "--json")["steps"]["room"] == 4
    assert "leave out --resume" in rim_command("train", "r.json", "--dry-run", "--resume", code=2)
    assert not (tmp_path / "runs").exists()


THINKS = (
    "{{ messages[-1].content }} ->{% if enable_thinking is defined %}<think></think>{% endif %}"
)
OPENS = "{{ messages[-1].content }} -><think>\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "note"),
    [
        (None, r"has no chat template"),
        ("{{ messages[-1].content }} {{ strftime_now('%d') }} ->", None),
        ("{{ messages[-1].content }} {{ strftime_now('%' ~ 'd') }} ->", r"writes today's date"),
        (THINKS, r"has a thinking mode \(enable_thinking\)"),
        (OPENS, r"opens a thought \(<think>\) before the answer.*templates.chat: never"),
        ("{{ messages[-1].content }} ->", None),
    ],
)
def test_what_a_base_brings_is_said_before_training(tmp_path, tokenizer, template, note, capsys):
    raw = with_base(tmp_path, tokenizer, template)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 1, "evaluate_every": 1}]
    assert rim.train_recipe(recipe_from_dict(raw), console=Console(width=1000)).finished
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert len(said) == (note is not None)
    if note:
        (sentence,) = said

        assert re.search(note, sentence)


def test_a_question_too_long_for_the_last_stage_stops_the_first(tmp_path, tokenizer):
    raw = with_base(tmp_path, tokenizer, None)
    raw["memory"] = {"blocks": 70}  # 280 positions; the first stage needs few blocks
    for do in (run, notes_of):
        with pytest.raises(DataError, match=r"too long, needs \d+ positions, the model has 256"):
            do(raw)
    assert not (tmp_path / "runs" / "run").exists()


def test_a_holdout_larger_than_the_data_names_the_setting(tmp_path):
    raw = raw_recipe(tmp_path) | {"data": write_data(tmp_path / "d.jsonl") | {"holdout": 40}}
    with pytest.raises(DataError, match=r"data\.holdout 40 leaves nothing of 40 .*holdout=8\)"):
        rim.dry_run(recipe_from_dict(raw))


def test_a_holdout_counts_different_questions_and_needs_some(tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [{"question": f"{i % 10}?", "steps": [], "answer": "7"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": {"format": "jsonl", "path": str(path)}, "holdout": 10}
    with pytest.raises(DataError, match=r"of 40 .*with 10 different questions; .*holdout=2\)"):
        rim.dry_run(recipe_from_dict(raw_recipe(tmp_path) | {"data": data}))
    data |= {"drop_without_steps": True}
    with pytest.raises(DataError, match="no training example has steps"):
        rim.dry_run(recipe_from_dict(raw_recipe(tmp_path) | {"data": data}))


@pytest.mark.parametrize(
    ("template", "answer", "lost"),
    [
        ("#### {answer}", "12", False),
        ("\\boxed{{answer}}", "1/2", False),
        ("<a>{answer}</a>", "yes", False),
        ("#{answer}", "C#", True),
        ("{answer}", "x\ny", True),
    ],
)
def test_answers_that_can_never_be_right_are_a_note(encoder, template, answer, lost):
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example
    from rim.train.look_ahead import _about_answers

    templates = encoder.format.templates.model_copy(update={"answer": template})
    other = encoder.format.model_copy(update={"templates": templates})
    written = PromptEncoder(encoder.tokenizer, other)
    note = _about_answers(written, [Example("q?", (), answer, "line 1")])
    assert (f"{answer!r} (line 1)" in str(note)) == lost and (note is None) != lost


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["Ann has 3. Bo has 4. So 7."], "rim data split-steps"),
        (["3+4=7; 7-2=5"], "step_separator"),
        (["3+4=7", "7-2=5"], None),
    ],
)
def test_solutions_that_nobody_has_parted_are_a_note(tmp_path, steps, told):
    from rim.data.examples import Example
    from rim.train.look_ahead import _about_prose

    data = {"train": {"format": "jsonl", "path": "my.jsonl"}}
    recipe = recipe_from_dict(raw_recipe(tmp_path) | {"data": data})
    note = _about_prose(recipe, [Example("3 and 4?", tuple(steps), "7")])
    assert note is None if told is None else told in str(note)
