"""Faithfulness of decoded steps, on machines whose truth is known, and on a run from end to end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FAMILIES, stage, tiny_model
from test_cli import plain_console, rim_command, rim_json  # noqa: F401
from test_protocols import (
    EXAMPLES,
    KNOWN,
    SOURCE,
    K,
    Machine,
    encoder_for,
    holds_answers,
    holds_values,
    ignores_blocks,
)

import rim.evaluate.faithfulness.transplants as transplants_module
from rim.config import ConfigError
from rim.config.recipe_yaml import dump_yaml, load_recipe
from rim.data.examples import DataError, Example
from rim.data.sources import write_file
from rim.evaluate.cache_interventions import EVERYWHERE
from rim.evaluate.faithfulness.lines import lines_of
from rim.evaluate.faithfulness.measure import _Asked, _reader, faithfulness
from rim.evaluate.faithfulness.readers import (
    Held,
    ProbeReader,
    Reader,
    ReadoutReader,
    held_by_blocks,
    readers_of,
    step_stage,
    step_value,
)
from rim.evaluate.faithfulness.transplants import step_transplants
from rim.evaluate.probe_files import Placed
from rim.evaluate.probes import fit_value_probe, is_untouched, split
from rim.evaluate.protocols.pairs import choose_pairs
from rim.evaluate.statistics import fisher_p
from rim.infer.reasoner import Reasoner

WORKED = {k.question: k.worked for k in KNOWN}


class Told(Reader):
    """Reads what it is told: the true step, or another one where `slips` says so."""

    kind, means = "told", "a rule"

    def __init__(self, slips=lambda example: False, follows_transplants=True):
        self.slips, self.follows = slips, follows_transplants

    def read(self, examples, held):
        return [
            {b: self._value(e, t) for b, t in steps.items()}
            for e, steps in zip(examples, held, strict=True)
        ]

    def _value(self, example, number):
        value = int(step_value(example.steps[number - 1]))
        return str((value + self.slips(example)) % 7)

    def read_patched(self, pairs, sources, part, block):
        own = [next(e for e in EXAMPLES if e.question == p.recipient.question) for p in pairs]
        said = sources if self.follows else own
        return [self._value(e, pair.step) for e, pair in zip(said, pairs, strict=True)]


def held_of(examples):
    return [Held({t: t for t in range(1, len(e.steps) + 1)}, K) for e in examples]


def measured(reader, answer_of):
    answers = [answer_of(example) for example in EXAMPLES]
    right = [a == e.answer for a, e in zip(answers, EXAMPLES, strict=True)]
    return _reader(reader, _Asked(EXAMPLES, held_of(EXAMPLES), answers, right), SOURCE)


def slips(example):
    return example.answer in "012"


def test_answers_that_follow_from_wrong_steps_are_told_from_those_that_do_not():
    def from_last_step(example):
        # The machine goes on from its last step, wrong or not.
        number = len(example.steps)
        value = (int(step_value(example.steps[-1])) + slips(example)) % 7
        return WORKED[example.question].continue_from(number, str(value))

    wrong = sum(map(slips, EXAMPLES))
    assert 20 < wrong < len(EXAMPLES) - 20
    result = measured(Told(slips), from_last_step)
    assert result["answers_if_wrong"] | {"low": 0} == {
        **{"right": 0, "total": wrong, "accuracy": 0.0, "low": 0},
        "high": result["answers_if_wrong"]["high"],
    }
    assert result["answers_if_right"]["accuracy"] == 1.0 and result["p"] < 1e-9
    assert result["wrong_steps"] == {"total": wrong, "right": 0, "follows": wrong, "else": 0}
    by_block = {row["block"]: row["accuracy"] for row in result["blocks"]}
    assert by_block[1]["right"] == len(EXAMPLES) - wrong == by_block[1]["total"] - wrong
    assert all(row["commonest"] < 0.3 for row in result["blocks"])

    told = measured(Told(slips), lambda example: example.answer)
    assert told["answers_if_wrong"]["accuracy"] == 1.0 and told["p"] == 1.0
    assert told["wrong_steps"] == {"total": wrong, "right": wrong, "follows": 0, "else": 0}
    assert any("right all the same" in line for line in lines_of(told))


def test_a_reader_that_is_never_wrong_has_nothing_to_compare():
    result = measured(Told(), lambda example: "0")
    assert result["all_steps"]["accuracy"] == 1.0 and result["p"] is None
    assert result["wrong_steps"]["total"] == 0
    assert any("no decoded step is wrong" in line for line in lines_of(result))


@pytest.fixture
def machine(tokenizer, monkeypatch):
    """`step_transplants` on a machine that answers by a rule."""

    def run(rule, reader):
        monkeypatch.setattr(
            transplants_module, "transplant", lambda partners, part: (partners, part, None)
        )
        encoder = encoder_for(tokenizer)
        reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
        pairs = choose_pairs(KNOWN, encoder, 120, 0)

        def asking(reasoner, blocks, answers):
            made = Machine(reasoner, blocks, answers)
            object.__setattr__(made, "steps", {p.recipient.question: p.step for p in pairs})
            object.__setattr__(made, "rule", rule)
            return made

        monkeypatch.setattr(transplants_module, "Asking", asking)
        held = held_of(EXAMPLES)
        return step_transplants(reader, EXAMPLES, held, reasoner, SOURCE, K, 120, 0, accuracy=1.0)

    return run


def test_blocks_whose_step_and_answer_change_together_are_called_faithful(machine):
    result = machine(holds_values, Told())
    assert result["pairs"] == 120 and result["verdict"].startswith("faithful")
    for part in result["parts"]:
        assert part["step"]["accuracy"] == part["answer"]["accuracy"] == 1.0
        assert part["both"]["accuracy"] == 1.0
        assert part["sources_answer"]["accuracy"] == part["unrelated"]["accuracy"] == 0.0
        assert sum(row["step"]["total"] for row in part["by_block"]) == 120


def test_steps_that_change_alone_are_called_unfaithful(machine):
    result = machine(ignores_blocks, Told())
    assert result["verdict"].startswith("not faithful")
    for part in result["parts"]:
        assert part["step"]["accuracy"] == 1.0 and part["answer"]["accuracy"] == 0.0


def test_a_reader_that_does_not_see_the_transplant_gets_no_call(machine):
    result = machine(holds_values, Told(follows_transplants=False))
    assert result["verdict"].startswith("no call")
    assert result["parts"][0]["step"]["accuracy"] == 0.0
    assert result["parts"][0]["answer"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("accuracy", "reruns", "follows", "unrelated", "expected"),
    [
        (0.9, True, 0.9, 0.1, "faithful"),
        (0.9, False, 0.9, 0.1, "faithful"),
        (0.9, True, 0.1, 0.0, "not faithful"),
        (0.9, True, 0.5, 0.0, "partly faithful"),
        (0.2, True, 0.1, 0.0, "no call: the model itself is right in 20.0 % only"),
        (0.9, False, 0.1, 0.0, "no call: the answer does not follow, but later blocks"),
        (0.9, True, 0.9, 0.8, "no call: an unrelated question's blocks"),
    ],
)
def test_a_verdict_needs_a_model_that_can_do_the_task_and_a_change_that_can_reach_its_answer(
    accuracy, reruns, follows, unrelated, expected
):
    part = {"answer_if_moved": {"total": 40, "accuracy": follows}}
    part["unrelated"] = {"accuracy": unrelated}
    assert transplants_module._verdict([part], accuracy, reruns=reruns).startswith(expected)


def test_blocks_that_hold_the_answer_hand_over_that_of_the_source(machine):
    def up_to_is_all(recipient, source, part, what, step):
        kind = replace(part, kind="blocks") if part.kind == "up_to" else part
        return holds_answers(recipient, source, kind, what, step)

    up_to = machine(up_to_is_all, Told())["parts"][1]
    assert up_to["sources_answer"]["accuracy"] == 1.0 and up_to["answer"]["accuracy"] == 0.0


def test_which_step_a_block_holds_is_what_its_stage_trained(encoder):
    example = Example("q?", ("1+1=2", "2+1=3", "3+1=4"), "4")
    steps = {"objective": "steps"}
    own = held_by_blocks(example, stage(**steps, alignment="own_step"), encoder, 4)
    assert own == Held({1: 1, 2: 2, 3: 3}, 4)
    following = held_by_blocks(example, stage(**steps), encoder, 4)
    assert following == Held({1: 2, 2: 3}, 3)
    surplus = stage(**steps, alignment="own_step", surplus_blocks="answer")
    assert held_by_blocks(replace(example, steps=("a",)), surplus, encoder, 4) == Held({1: 1}, 4)
    assert held_by_blocks(example, None, encoder, 2) == Held({1: 1, 2: 2}, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "answer"), [*((family, "#{answer}") for family in FAMILIES), ("llama", "{answer}")]
)
def test_readouts_are_read_block_by_block_and_follow_the_cache(family, tokenizer, answer):
    encoder = encoder_for(tokenizer, answer)
    reasoner = Reasoner(tiny_model(family, encoder.tokenizer), encoder)
    reader = ReadoutReader(reasoner, "", own=True, max_new_tokens=200)
    pairs = choose_pairs(KNOWN, encoder, 3, 0)
    by_question = {example.question: example for example in EXAMPLES}
    sources = [by_question[pair.source.question] for pair in pairs]
    read = reader.read(sources, [{1: 1, 2: 2}] * len(sources))
    for example, row in zip(sources, read, strict=True):
        for block in (1, 2):
            said = reasoner.ask(example.question, blocks=block, max_new_tokens=200)
            assert row[block] == (step_value(said.text) if said.finished else "")
    patched = reader.read_patched(pairs, sources, EVERYWHERE, 2)
    assert patched == [row[2] for row in read]


def test_probes_are_scored_on_questions_that_they_never_saw(tokenizer):
    encoder = encoder_for(tokenizer)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    train, test = split(EXAMPLES)
    untouched = {i for i, example in enumerate(EXAMPLES) if is_untouched(example)}
    assert untouched < set(test.tolist()) and not untouched & set(train.tolist())
    assert 0.15 < len(untouched) / len(EXAMPLES) < 0.35
    from rim.evaluate.states import block_states

    questions = [example.question for example in EXAMPLES[:60]]
    states = block_states(reasoner, questions, K)[:, 1, 2].numpy()
    labels = [step_value(example.steps[0]) for example in EXAMPLES[:60]]
    probe = fit_value_probe(states, labels)
    placed = Placed(probe, 1, 2, "step 1", 0.5)
    reader = ProbeReader(reasoner, [placed], K, batch=7)
    read = reader.read(EXAMPLES[:60], [{1: 1, 2: 2}] * 60)
    assert [row[1] for row in read] == probe.predict(states) and set(read[0]) == {1}
    assert reader.agrees("12", "9+3=12", 1, 1) and not reader.agrees("2", "9+3=12", 1, 1)
    digits = ProbeReader(reasoner, [replace(placed, kind="last digit")], K)
    assert digits.agrees("2", "9+3=12", 1, 1) and not digits.agrees("2", "9+3=12", 2, 2)
    assert reader.tells_apart("9+3=12", "9+3=22", 1, 1) and not reader.tells_apart("12", "12", 1, 1)
    assert not digits.tells_apart("9+3=12", "9+13=22", 1, 1)  # nothing would have moved
    assert digits.tells_apart("9+3=12", "9+4=13", 1, 1) and not digits.tells_apart("1", "2", 2, 2)
    # A last digit is no value that the task could go on from; its commonest label is a digit, too.
    few = _Asked(EXAMPLES[:60], held_of(EXAMPLES[:60]), ["0"] * 60, [False] * 60)
    whole, last = _reader(reader, few, SOURCE), _reader(digits, few, SOURCE)
    assert whole["wrong_steps"]["total"] > 0 and "wrong_steps" not in last
    taken = [e for e in EXAMPLES[:60] if is_untouched(e)]
    commonest = Counter(step_value(e.steps[0])[-1] for e in taken).most_common(1)[0][1]
    assert last["blocks"][0]["commonest"] == commonest / len(taken)
    pairs = choose_pairs(KNOWN, encoder, 6, 0)
    by_question = {example.question: example for example in EXAMPLES}
    sources = [by_question[pair.source.question] for pair in pairs]
    same = [replace(pair, step=1) for pair in pairs]
    assert reader.read_patched(same, sources, EVERYWHERE, 1) == [
        row[1] for row in reader.read(sources, [{1: 1}] * len(sources))
    ]


def test_fishers_test():
    assert fisher_p((5, 5), (0, 5)) == pytest.approx(2 / 252)
    assert fisher_p((3, 6), (3, 6)) == 1.0


# --- from end to end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two stages, hardly trained, and data of its task."""
    from rich.console import Console

    from rim.config.recipe_yaml import recipe_from_dict
    from rim.train.curriculum import train

    folder = tmp_path_factory.mktemp("explain")
    short = {"max_steps": 2, "batch_size": 8}
    recipe = {
        "name": "tiny",
        "runs_dir": str(folder),
        "method": "rim",
        "data": {
            "train": {
                "format": "arithmetic",
                "arithmetic": {"num_examples": 64, "modulus": 7, "min_operations": 3},
            },
            "holdout": 8,
        },
        "model": {
            "tuning": "full",
            "scratch": {"layers": 2, "width": 16, "heads": 2, "vocab_size": 4, "alphabet": "data"},
        },
        "memory": {"blocks": 3, "tokens": 1},
        "templates": {"question": "{question}", "answer": "{answer}"},
        "stages": [
            {"name": "grounding", "objective": "steps", "alignment": "own_step"} | short,
            {"name": "refinement", "objective": "answer"} | short,
        ],
    }
    run = train(recipe_from_dict(recipe), console=Console(quiet=True)).path
    write_file(folder / "test.jsonl", EXAMPLES)
    return run, folder / "test.jsonl"


@pytest.mark.slow
def test_the_command_measures_every_reader(trained):
    run, data = trained
    short = ("--max-new-tokens", 8, "--pairs", 60)
    said = rim_command("explain", run, "--data", data, *short)
    record = json.loads((run / "explain" / "test-k3.json").read_text())
    (reader,) = record["faithfulness"]["readers"]
    assert reader["kind"] == "stage's read-out" and "grounding" in reader["means"]
    assert [row["step"] for row in reader["blocks"]] == [1, 2, 3]
    assert reader["transplant"]["pairs"] == 60
    assert record["faithfulness"]["costs"][0]["line"] in said
    assert all(line in said for line in reader["lines"])
    found = rim_json("analyze", run, data, "--max-new-tokens", 8)["analysis"]["checkpoints"]
    names = dict.fromkeys(panel["checkpoint"] for panel in found["panels"])
    assert list(names) == ["before training", "after grounding", "finished"], found["left_out"]
    both = rim_json("explain", run, "--data", data, *short, "--against", run, "--overwrite")
    kinds = {r["kind"]: r for r in both["faithfulness"]["readers"]}
    assert set(kinds) == {"stage's read-out", "probe"}
    assert kinds["probe"]["questions"] == sum(map(is_untouched, EXAMPLES))
    assert 0 < kinds["probe"]["transplant"]["pairs"] < 60
    assert both["faithfulness"]["costs"][1]["p"] == 1.0
    page = run.parent / "report.html"
    rim_command("report", run, "--out", page)
    text = page.read_text()
    assert "Can the blocks be read?" in text and "step accuracy" in text
    assert "The same questions over training" in text


def test_data_and_questions_that_cannot_be_explained(trained, tmp_path):
    run, data = trained
    assert "--data FILE" in rim_command("explain", run, code=2)
    assert "--data FILE" in rim_command("explain", run, "1+1=", "--data", data, code=2)
    (tmp_path / "d.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    assert "has steps" in rim_command("explain", run, "--data", tmp_path / "d.jsonl", code=2)
    (tmp_path / "d.jsonl").write_text('{"Problem": "1+1=", "Solution": "2"}\n')
    named = ("--column", "question=Problem", "--column", "answer=Solution")
    assert "has steps" in rim_command(
        "explain", run, "--data", tmp_path / "d.jsonl", *named, code=2
    )


def test_data_of_another_task_have_no_transplants(trained):
    from rim.infer.reasoner import load

    run, _ = trained
    result = faithfulness(load(run), run, EXAMPLES[:40], None, max_new_tokens=8)
    assert "transplant" not in result["readers"][0] and "wrong_steps" not in result["readers"][0]
    with pytest.raises(DataError, match="has steps"):
        faithfulness(load(run), run, [Example("1+1=", (), "2")], None)
    with pytest.raises(ConfigError, match="rim analyze"):
        faithfulness(load(run), run / "model", EXAMPLES[:40], None)


def test_steps_that_stand_in_the_blocks_are_not_said_to_be_read_out(tmp_path):
    """LOTUS's blocks say steps at their own positions: text decoded behind them is none."""
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "paper" / "gpt2" / "lotus.yaml")
    assert recipe.stages[-1].objective == "steps"
    (tmp_path / "config.yaml").write_text(dump_yaml(recipe))
    assert step_stage(tmp_path) is None
    with pytest.raises(ConfigError, match="nothing reads steps off the blocks"):
        readers_of(tmp_path, None, 6)  # type: ignore[arg-type]
