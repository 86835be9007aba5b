"""`rim compare --data --base RUN`: are the test questions new to the base?"""

from __future__ import annotations

import json

import yaml
from test_compare_my_data import base, write_csv  # noqa: F401  (a fixture)

from rim.config import Columns, DataSource
from rim.config.recipe_yaml import dump_yaml, recipe_from_dict
from rim.data.columns import Reading
from rim.data.sources import data_hash, file_source, load_examples, write_file
from rim.data.training import load_training_data
from rim.study import COMPARE_MY_DATA
from rim.study.compare.base_data import warn_of_known_questions
from rim.study.compare.my_data import compare_my_data

READING = Reading(Columns(question="Problem", steps="Work", answer="Result"))
STAGE = {"name": "answers", "objective": "answer", "max_steps": 1, "batch_size": 1}


def make_run(folder, source, base="nowhere", part="all"):  # noqa: F811
    """What a run leaves behind of its data."""
    train = {**source.model_dump(mode="json", exclude_defaults=True), "part": part}
    raw = {
        "name": folder.name,
        "runs_dir": str(folder.parent),
        "method": "direct",
        "model": {"base": str(base)},
        "data": {"train": train, "holdout": 1},
        "stages": [STAGE | {"learning_rate": 1e-3}],
    }
    recipe = recipe_from_dict(raw)
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_yaml(recipe))
    train, _ = load_training_data(recipe.data, recipe.seed)
    told = {"data": {"train": data_hash(train)}}
    (folder / "environment.json").write_text(json.dumps(told))
    return folder


def warnings(base, source, test=None):  # noqa: F811
    tested = load_examples(test or source.model_copy(update={"part": "test"}))
    return warn_of_known_questions(str(base), source, test, tested)


def test_test_questions_that_the_base_was_trained_on_are_told_of(tmp_path):
    source = file_source(write_csv(tmp_path, 60), None, READING)
    run = make_run(tmp_path / "first", source)
    for place in (run, run / "model", run / "stages" / "01-answers" / "final"):
        (line,) = warnings(place, source)
        number, _, rest = line.removeprefix("Warning: ").partition(" of the 12 test questions ")
        assert int(number) >= 11 and f"its run {run} was trained on them" in rest
    later = make_run(tmp_path / "later", source, base=run / "model", part="train")
    (line,) = warnings(later, source)  # by the run that this one began with
    assert f"its run {run} was" in line


def test_a_copy_of_the_data_is_no_other_data(tmp_path):
    source = file_source(write_csv(tmp_path, 60), None, READING)
    write_file(tmp_path / "copy.jsonl", load_examples(source))
    run = make_run(tmp_path / "first", file_source(tmp_path / "copy.jsonl"))
    assert len(warnings(run, source)) == 1


def test_a_base_that_never_saw_the_test_questions_is_not_warned_of(tmp_path):
    source = file_source(write_csv(tmp_path, 60), None, READING)
    run = make_run(tmp_path / "first", source, part="train")  # as `rim compare --data` trains
    assert warnings(run, source) == []
    assert warnings("a/hub-id", source) == [] == warnings(tmp_path, source)
    (tmp_path / "config.yaml").write_text("no: recipe")
    assert warnings(tmp_path, source) == []


def test_data_that_changed_since_leave_a_doubt(tmp_path):
    path = write_csv(tmp_path, 60)
    source = file_source(path, None, READING)
    run = make_run(tmp_path / "first", source, part="train")
    path.write_text(path.read_text().replace("=x", "=y"))
    (line,) = warnings(run, source)
    assert "my problems.csv, too (it has changed since): test questions may be among" in line
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    recipe["data"]["train"] |= {"format": "hub", "path": "me/set"}
    (run / "config.yaml").write_text(yaml.safe_dump(recipe))
    source = DataSource(format="hub", path="me/set")
    tested = load_examples(file_source(path, None, READING))
    (line,) = warn_of_known_questions(str(run), source, None, tested)
    assert "hub:me/set:train, too (a set of the hub is not looked through)" in line


def test_a_comparison_tells_it_first(tmp_path, base):  # noqa: F811
    source = file_source(write_csv(tmp_path, 60), None, READING)
    told = compare_my_data(COMPARE_MY_DATA, source, str(base)).told
    assert not any("not new to the base" in line for line in told)
    run = make_run(tmp_path / "first", source)
    (run / "model").symlink_to(base)
    told = compare_my_data(COMPARE_MY_DATA, source, str(run)).told
    assert "test questions are not new to the base" in told[0]
