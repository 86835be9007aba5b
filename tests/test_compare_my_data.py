"""`rim compare --data`: is it worth it for my data, in words."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path

import pytest
from conftest import tiny_model
from test_cli import rim_command, rim_json

from rim.config import ConfigError, DataSource
from rim.config.recipe_yaml import settings_from_dict
from rim.data.examples import DataError, Example
from rim.data.sources import file_source, load_examples, open_file, parted
from rim.report.comparison import notes
from rim.report.verdict import verdict
from rim.study import COMPARE_MY_DATA
from rim.study.compare.my_data import _sources, compare_my_data

ROOT = Path(__file__).parents[1]


def write_csv(folder, count, name="my problems.csv"):
    path = folder / name
    rows = ["Problem,Work,Result"]
    for i in range(count):
        rows.append(f'{i}+{i % 9}+1?,"{i}+{i % 9}={i + i % 9}\n{i + i % 9}+1=x",{(i + 1) % 5}')
    path.write_text("\n".join(rows))
    return path


NAMES = ["--column", "question=Problem", "--column", "steps=Work", "--column", "answer=Result"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, plain_tokenizer):
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama", plain_tokenizer).save_pretrained(folder)
    plain_tokenizer.save_pretrained(folder)
    return folder


def test_a_question_is_in_one_part_only_whatever_its_spelling_and_order(tmp_path):
    examples = [Example(f"What is {i}?", (), str(i)) for i in range(100)]
    respelled = [Example(f" What  is {i}?\n", (), "other") for i in range(100)]
    parts = parted(examples + respelled, "x")
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 140, "validation": 20, "test": 40,
    }  # fmt: skip
    sides = [{e.same_question for e in part} for part in parts.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    mixed = examples.copy()
    random.Random(0).shuffle(mixed)
    again = parted(mixed, "x")
    assert [{e.same_question for e in part} for part in again.values()] == sides
    with pytest.raises(DataError, match="9 different questions: too few"):
        parted(examples[:9], "x")
    path = write_csv(tmp_path, 50)
    source = {"format": "auto", "path": str(path), "part": "test", "limit": 3}
    source["columns"] = {"question": "Problem", "answer": "Result"}
    assert len(load_examples(DataSource.model_validate(source))) == 3
    with pytest.raises(ValueError, match="generated"):
        DataSource.model_validate({"format": "arithmetic", "part": "test"})


@pytest.mark.slow
def test_from_a_csv_to_a_verdict_in_words(tmp_path, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path, 60)
    options = ("--data", "my problems.csv", *NAMES, "--base", base, "--steps", 4)
    options += ("--set", "latency.questions=2", "--set", "evaluation.max_new_tokens=4")
    told = rim_command("compare", *options)
    flat = " ".join(told.split())
    assert "42 training, 6 validation and 12 test questions" in flat
    assert (
        "3 memory blocks; 4 training steps for each of direct, cot, rim, direct_after_grounding; "
        "direct_longer: twice the steps; seeds 0"
    ) in flat
    assert "direct_after_grounding goes on from rim after its stage grounding" in flat
    assert "12 test questions are few" in flat
    folder = tmp_path / "runs" / "compare-my_problems-4steps"
    result = json.loads((folder / "comparison.json").read_text())
    said = result["verdict"]["my_data"]
    assert said[0].startswith("RiM ") and "chain of thought " in said[0]
    share = result["tasks"]["my_data"]["commonest_answer"]
    assert said[0].endswith(
        f"12 test questions, one seed; the most frequent answer: {100 * share:.1f} %."
    )
    assert said[-1].startswith(("None of them has learned the task", "So "))
    assert said == verdict(result)["my_data"]
    for line in said:
        assert " ".join(line.split()) in flat
    page = (folder / "comparison.html").read_text()
    assert "Is it worth it for my problems.csv?" in page
    assert said[-1].partition(";")[0].split(":")[0] in page
    methods = result["tasks"]["my_data"]["methods"]
    steps = {name: row["steps"]["mean"] for name, row in methods.items()}
    most = {"direct": 4, "direct_longer": 8, "cot": 4, "rim": 4}
    assert steps == {**most, "direct_after_grounding": 1}
    run = folder / "my_data" / "direct_after_grounding-seed0"
    (base,) = set(re.findall(r"base: (.*)", (run / "config.yaml").read_text()))
    assert base.endswith("my_data/rim-seed0/stages/01-grounding/final")
    again = rim_json("compare", *options)
    assert again["verdict"] == result["verdict"]
    assert "made with another recipe" in " ".join(
        rim_command("compare", *options, "--blocks", 2, code=2).split()
    )


def test_what_depends_on_the_data_is_chosen_and_can_be_said(tmp_path, base):
    path = write_csv(tmp_path, 60, "my.csv")
    rows = open_file(path, None, None, _reading())
    test = tmp_path / "test.jsonl"
    test.write_text(
        "".join(json.dumps({"Problem": e.question, "Result": e.answer}) + "\n" for e in rows[:5])
    )
    source = file_source(path, None, _reading())
    mine = compare_my_data(
        COMPARE_MY_DATA, source, str(base), steps=40, overrides=("seeds=[3]", "memory=1")[:1]
    )
    assert mine.settings.seeds == (3,)
    assert mine.settings.common["memory"] == {"blocks": 3}
    steps = [[s["max_steps"] for s in m.recipe["stages"]] for m in mine.settings.methods.values()]
    assert steps == [[40], [80], [40], [30, 10], [10]]
    assert mine.settings.evaluation.max_new_tokens >= 20
    own = compare_my_data(
        COMPARE_MY_DATA, source, str(base), test=file_source(test, None, _reading()), blocks=2
    )
    (task,) = own.settings.tasks.values()
    assert task.test.path == str(test) and task.test.part == "all"
    trained = {e.question for e in load_examples(task.data.train)}
    assert len(trained) == 55 and not trained & {e.question for e in rows[:5]}
    assert any("more steps than 2 blocks hold" in line for line in own.told)
    two = compare_my_data(COMPARE_MY_DATA, source, str(base), steps=2)
    steps = [[s["max_steps"] for s in m.recipe["stages"]] for m in two.settings.methods.values()]
    assert steps == [[2], [4], [2], [1, 1], [1]]
    without = ("methods.direct_longer=null",)
    fewer = compare_my_data(COMPARE_MY_DATA, source, str(base), steps=2, overrides=without)
    assert list(fewer.settings.methods) == ["direct", "cot", "rim", "direct_after_grounding"]
    assert not fewer.settings.budget.exempt
    half = ("common.model.quantize=4bit",)
    four_bits = compare_my_data(COMPARE_MY_DATA, source, str(base), steps=40, overrides=half)
    assert list(four_bits.settings.methods) == ["direct", "direct_longer", "cot", "rim"]
    assert "direct_after_grounding is left out: it begins with an adapter" in four_bits.told[0]
    with pytest.raises(ConfigError, match="rim has 2 stages"):
        compare_my_data(COMPARE_MY_DATA, source, str(base), steps=1)


def test_a_test_set_of_the_hub_is_taken_out_of_the_training_data(tmp_path, monkeypatch):
    import datasets

    rows = [{"question": f"{i}?", "steps": ["s"], "answer": str(i)} for i in range(40)]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = []

    def load_dataset(name, subset, *, split, data_files):
        asked.append((name, subset, split))
        return datasets.Dataset.from_list(rows[:5])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = _sources(file_source(path), file_source(Path("hub:me/set:small:test")))
    assert set(asked) == {("me/set", "small", "test")}
    train = settings_from_dict(DataSource, found["data"]["train"], "train")
    assert [e.question for e in load_examples(train)] == [f"{i}?" for i in range(5, 40)]


def test_too_few_examples_with_steps_are_told_of(tmp_path, base):
    rows = [{"question": f"{i}?", "answer": i} | {"steps": ["s"] * (i == 3)} for i in range(200)]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"no (training|validation) example has steps"):
        compare_my_data(COMPARE_MY_DATA, file_source(path), str(base))


def test_what_is_told_is_what_is_set(tmp_path, base):
    source = file_source(write_csv(tmp_path, 60, "my.csv"), None, _reading())
    changes = ("common.memory.blocks=1",)
    mine = compare_my_data(COMPARE_MY_DATA, source, str(base), overrides=changes)
    assert mine.told[1].startswith("1 memory blocks;")
    assert any("more steps than 1 blocks hold" in line for line in mine.told)


def _reading():
    from rim.config import Columns
    from rim.data.columns import Reading

    return Reading(Columns(question="Problem", steps="Work", answer="Result"))


def test_mistakes_are_told_before_anything_trains(tmp_path, base):
    path = write_csv(tmp_path, 30, "my.csv")
    assert "--data needs --base" in rim_command("compare", "--data", path, code=2)
    assert "--data FILE --base MODEL" in rim_command("compare", code=2)
    recipe = ROOT / "recipes" / "compare_my_data.yaml"
    assert "--blocks: only with --data" in rim_command("compare", recipe, "--blocks", 3, code=2)
    no_steps = ["--column", "question=Problem", "--column", "answer=Result"]
    told = rim_command("compare", "--data", path, *no_steps, "--base", base, code=2)
    assert "rim data distill" in told
    told = rim_command("compare", "--data", path, "--base", base, code=2)
    assert "no column 'question'" in told
    told = rim_command("compare", "--data", path, *NAMES, "--base", "no/such", code=2)
    assert "could not be loaded" in told
    assert not Path("runs/compare-my").exists()


def published():
    return json.loads((ROOT / "results" / "compare_arithmetic.json").read_text())


def test_a_published_comparison_in_words():
    (lines,) = verdict(published()).values()
    assert lines[0].startswith("RiM 97 % (95-98), direct 16 % (11-20), chain of thought 100 %")
    assert lines[0].endswith("1000 test questions, 3 seeds.")
    assert "x faster than chain of thought" in lines[1] and "x slower than direct" in lines[1]
    assert lines[2].startswith("The blocks are needed: ")
    assert lines[3].startswith("So a trade: RiM has 81 of the 84 points")


@pytest.mark.parametrize(
    ("p_direct", "p_cot", "rim", "cot", "expected"),
    [
        (0.5, 0.001, 0.20, 0.99, "So not shown to be worth it"),
        (
            *(0.001, 0.5, 0.9, 0.92),
            "So worth it over direct answers: RiM is surely better. It is 2.0 points below chain "
            "of thought (-2.0, -2.0, -2.0 by seed), which is not sure.",
        ),
        (
            0.001,
            0.5,
            0.9,
            0.89,
            "It is 1.0 points above chain of thought (+1.0, +1.0, +1.0 by seed)",
        ),
        (0.001, 0.001, 0.9, 0.5, "surely better than direct answers and chain of thought."),
        (0.001, 0.001, 0.05, 0.5, "So not worth it as trained here"),
        (0.001, None, 0.9, None, "So worth it over direct answers"),
    ],
)
def test_what_follows_depends_on_what_is_sure(p_direct, p_cot, rim, cot, expected):
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    methods = content["methods"]
    methods["rim"]["per_seed"] = [{"accuracy": rim}] * 3
    methods["direct"]["p"], methods["cot"]["p"] = p_direct, p_cot
    if cot is None:
        del methods["cot"]
    else:
        methods["cot"]["per_seed"] = [{"accuracy": cot}] * 3
    (lines,) = verdict(result).values()
    assert expected in lines[-1]


def test_a_trade_is_said_of_the_seeds_that_all_have():
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    methods = content["methods"]
    shares = {"rim": (0.9, 0.5, 0.5), "direct": (0.1, 0.1, 0.1), "cot": (0.95,)}
    for name, own in shares.items():
        methods[name]["per_seed"] = [{"accuracy": share} for share in own]
        methods[name]["seeds"] = list(range(len(own)))
        methods[name]["p"] = 0.001
    (lines,) = verdict(result).values()
    assert "RiM has 80 of the 85 points" in lines[-1]


def test_another_budget_and_times_of_another_session_are_said():
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    rows = content["methods"]
    rows["cot"]["exempt"] = "it had learned the task by then"
    rows["cot"]["unfinished"], rows["direct"]["unfinished"] = 0.3, 0.001
    for name, together in {
        "rim": ["direct", "rim"],
        "direct": ["direct", "rim"],
        "cot": [],
    }.items():
        rows[name]["latency"]["runs"] = [{"together": together, "threads": 1}]
    (lines,) = verdict(result).values()
    assert lines[1] == "Chain of thought had another budget: it had learned the task by then."
    assert "direct answers" in lines[2] and "chain of thought" not in lines[2]
    said = notes(result)
    assert any("30 % of cot's answers were cut off" in line for line in said)
    assert not any("direct's answers were cut off" in line for line in said)
    assert any("cot timed in another session than rim." in line for line in said)


def test_a_trial_in_which_nothing_was_learned_says_so():
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    for row in content["methods"].values():
        row["final"]["mean"] = 0.01
    (lines,) = verdict(result).values()
    assert len(lines) > 2  # a difference is sure, however little was learned
    for row in content["methods"].values():
        row["p"] = None
    budgets = [row for row in content["methods"].values() if row.get("exempt")]
    (lines,) = verdict(result).values()
    (said,) = lines[1 + len(budgets) :]
    assert said.startswith("None of them has learned the task, so this says nothing about memory")
    (lines,) = verdict(published()).values()
    assert not any("has learned the task" in line for line in lines)


def with_answers_after_grounding(shares, p, questions=1000):
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    content["data"]["tests"]["test"]["examples"] = questions
    methods = content["methods"]
    methods["rim"]["per_seed"] = [{"accuracy": share} for share in (0.9, 0.8, 0.9)]
    after = copy.deepcopy(methods["direct"]) | {"p": p}
    after["per_seed"] = [{"accuracy": share} for share in shares]
    after["final"] |= {"mean": sum(shares) / 3}
    methods["direct_after_grounding"] = after
    return result, methods


@pytest.mark.parametrize(
    ("shares", "p", "said"),
    [
        ((0.5, 0.4, 0.5), 0.001, "blocks help to answer, and not only to learn: direct answers af"),
        ((0.9, 0.9, 0.9), 0.4, "not surely worse: what the blocks taught may not need them"),
        ((1.0, 1.0, 1.0), 0.001, "surely better: what the blocks taught may not need them"),
    ],
)
def test_direct_answers_after_the_first_stage_say_what_blocks_are_for(shares, p, said):
    result, _ = with_answers_after_grounding(shares, p)
    (lines,) = verdict(result).values()
    assert sum(said in line for line in lines) == 1


@pytest.mark.parametrize(
    ("p", "shares", "said"),
    [
        (0.4, (0.9, 0.9, 0.9), "So not shown to be worth it: RiM is surely better than direct an"),
        (0.001, (1.0, 1.0, 1.0), "but not than those trained longer: 100 % ("),
        (0.001, (0.5, 0.4, 0.5), "So a trade: RiM has "),
    ],
)
def test_direct_answers_that_catch_up_with_more_steps_make_the_gain_doubtful(p, shares, said):
    result, methods = with_answers_after_grounding(shares, p)
    methods["direct_longer"] = methods.pop("direct_after_grounding")
    methods["direct_longer"]["final"] |= {"low": min(shares), "high": max(shares)}
    (lines,) = verdict(result).values()
    assert said in lines[-1]


def test_nothing_is_said_of_what_blocks_taught_where_nothing_shows_that_they_did():
    result, methods = with_answers_after_grounding((0.9, 0.9, 0.9), 0.4, questions=12)
    (lines,) = verdict(result).values()
    assert any("not surely worse (with 12 test questions only large" in line for line in lines)
    methods["direct"]["p"] = 0.4  # RiM is not surely better than direct answers alone
    (lines,) = verdict(result).values()
    assert not any("what the blocks taught" in line for line in lines)
    methods["direct"]["p"] = 0.001
    result["reference"] = "cot"  # has no blocks
    (lines,) = verdict(result).values()
    assert not any("blocks help" in line or "blocks taught" in line for line in lines)


def test_blocks_that_nothing_needs_are_said_to_be_so():
    result = copy.deepcopy(published())
    (content,) = result["tasks"].values()
    control = next(v for v in content["controls"] if v["name"] == "rim, no blocks")
    swap = next(v for v in content["controls"] if v["name"] == "rim, blocks of another question")
    swap["p"] = 0.4
    (lines,) = verdict(result).values()
    assert "nothing shows that it needs what is in them: 44 % are right with another" in lines[2]
    control["p"] = 0.4
    (lines,) = verdict(result).values()
    assert lines[2].startswith("Nothing shows that the blocks are needed")
    content["methods"] = {"rim": content["methods"]["rim"]}
    assert not verdict(result)
