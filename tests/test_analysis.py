"""Looking inside: states, probes and their controls, attention, `rim analyze`, `rim explain`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, tiny_model
from export_models import make_run
from test_cli import plain_console, rim_command, rim_json, work  # noqa: F401

from rim.config import ConfigError, MemoryConfig, PromptFormat, TemplatesConfig
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import Example
from rim.evaluate.attention import SPANS, attention_map
from rim.evaluate.geometry import over_checkpoints
from rim.evaluate.over_training import beside, own_checkpoints
from rim.evaluate.probe_files import Placed, read_probes, write_probes
from rim.evaluate.probes import (
    control_labels,
    fit_trust_probe,
    fit_value_probe,
    ranking,
    split,
    targets_of,
    try_value_probe,
    value_of,
)
from rim.evaluate.states import SHARD, block_states, collect_states
from rim.infer.reasoner import Reasoner, load
from rim.report.analysis import CONTROL_LABELS, sentences, value_sentence

QUESTIONS = [example.question for example in EXAMPLES]


@pytest.fixture(params=["rim", "coconut"])
def reasoner(request, family, tokenizer):
    framing = {"framing": "once", "tokens": 2} if request.param == "coconut" else {}
    memory = MemoryConfig(blocks=3, **framing)
    add_memory_tokens(tokenizer, memory)
    form = PromptFormat(method=request.param, memory=memory, templates=TemplatesConfig())
    return Reasoner(tiny_model(family, tokenizer), PromptEncoder(tokenizer, form))


def test_states_are_those_of_separate_passes(reasoner):
    """Block k's states do not depend on later blocks, nor on batch mates."""
    together = block_states(reasoner, QUESTIONS, 3)
    assert together.shape[:3] == (len(QUESTIONS), 4, 3)
    for i, question in enumerate(QUESTIONS):
        for blocks in (1, 3):
            alone = block_states(reasoner, [question], blocks)[0]
            torch.testing.assert_close(alone, together[i, : blocks + 1], atol=2e-4, rtol=1e-3)


def test_states_on_disk_are_resumed_and_never_mixed(reasoner, tmp_path, monkeypatch):
    monkeypatch.setattr("rim.evaluate.states.SHARD", 2)
    options = {"blocks": 2, "source": "a", "batch_size": 2}
    states = collect_states(reasoner, QUESTIONS, tmp_path, **options)
    expected = block_states(reasoner, QUESTIONS, 2).numpy()
    np.testing.assert_allclose(states.at(1, 2), expected[:, 1, 2], atol=2e-4, rtol=1e-3)
    first, *others = sorted(tmp_path.glob("*.safetensors"))
    stamp = first.stat().st_mtime_ns
    others[0].unlink()
    again = collect_states(reasoner, QUESTIONS, tmp_path, **options)
    assert first.stat().st_mtime_ns == stamp and others[0].exists()
    np.testing.assert_allclose(again.at(2, 0), expected[:, 2, 0], atol=2e-4, rtol=1e-3)
    with pytest.raises(ConfigError, match="--overwrite"):
        collect_states(reasoner, QUESTIONS, tmp_path, **{**options, "source": "b"})
    assert SHARD > 100


def test_attention_shares_add_up_to_one(reasoner):
    before = reasoner.model.config._attn_implementation
    found = attention_map(reasoner, QUESTIONS, 3, batch_size=2)
    shares = torch.tensor(found["shares"])
    assert shares.shape == (2, 3, SPANS + 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert (shares[:, 0, SPANS + 1 :] == 0).all(), "block 1 sees no later block"
    assert reasoner.model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("step", "value"),
    [("3+4=7", "7"), ("5 * 20 = $1,000 dollars", "1000"), ("so 12 are left", "12"), ("no", None)],
)
def test_the_value_of_a_step(step, value):
    assert value_of(step) == value


def examples(count):
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        a, b = (int(x) for x in rng.integers(0, 5, 2))
        made.append(Example(f"{a}+{b} is {rng.integers(1000)}?", (f"{a}+{b}={a + b}",), str(b)))
    return made


def test_probes_find_what_is_there_and_nothing_in_noise():
    rows = examples(400)
    train, test = split(rows)
    assert not {rows[i].same_question for i in train} & {rows[i].same_question for i in test}
    target = targets_of(rows)[0]
    assert (target.name, target.kind) == ("step 1", "value")
    rng = np.random.default_rng(1)
    codes = {str(v): rng.normal(size=12) for v in range(9)}
    states = np.stack([codes[label] for label in target.labels]) + 0.1 * rng.normal(size=(400, 12))
    hits, _ = try_value_probe(states, target.labels, train, test)
    assert set(hits) == set(test.tolist()) and np.mean(list(hits.values())) > 0.95
    noise, _ = try_value_probe(rng.normal(size=(400, 12)), target.labels, train, test)
    assert np.mean(list(noise.values())) < 0.35


def test_control_labels_depend_on_the_ending_alone():
    rows = examples(300)
    labels = [str(i % 7) for i in range(300)]
    control = control_labels(rows, labels)
    by_ending = {}
    for row, label in zip(rows, control, strict=True):
        assert by_ending.setdefault(row.question[-3:], label) == label
    assert set(control) <= set(labels)


def test_values_of_many_classes_are_probed_by_their_last_digit():
    rows = [Example(f"{i}?", (f"={i}",), str(i)) for i in range(100)]
    assert {t.kind for t in targets_of(rows)} == {"last digit"}
    assert targets_of(rows)[0].labels[37] == "7"


@pytest.mark.slow
def test_trust_is_ranked_and_needs_both_kinds():
    right = np.array([True, False] * 50)
    scores = right + 0.01 * np.arange(100)
    found = ranking(scores, right, bootstrap=True)
    low, high = found["auroc_interval"]
    assert low <= found["auroc"] <= high and found["share_wrong"] == 0.5
    assert ranking(right.astype(float), right)["auroc"] == 1
    assert ranking(scores, np.ones(100, bool)) == {}
    assert fit_trust_probe(np.ones((100, 3)), np.ones(100, bool)) is None


def test_probes_are_kept_with_the_model_that_they_read(tmp_path):
    rng = np.random.default_rng(0)
    states = rng.normal(size=(90, 4))
    labels = ["a" if row[0] > 0 else "b" if row[1] > 0 else "c" for row in states]
    placed = Placed(fit_value_probe(states, labels), 2, 1, "step 1", 0.5)
    seen = [Example("What is 1?", (), "1"), Example("What is 2?", (), "2")]
    write_probes([placed], tmp_path / "p", {"model": "m"}, seen)
    read = read_probes(tmp_path / "p", "m")[0]
    assert read.probe.predict(states) == placed.probe.predict(states)
    assert (read.block, read.layer, read.name) == (2, 1, "step 1")
    with pytest.raises(ConfigError, match="another model"):
        read_probes(tmp_path / "p", "other")
    fresh = [Example("What is 3?", (), "3"), Example(" What  is 1?", (), "1")]  # one respelled
    with pytest.raises(ConfigError, match="trained and chosen on 1 of these 2 questions"):
        read_probes(tmp_path / "p", "m", unseen=fresh)
    assert read_probes(tmp_path / "p", "m", unseen=fresh[:1])
    (tmp_path / "p").write_text("nonsense")
    with pytest.raises(ConfigError, match="broken"):
        read_probes(tmp_path / "p", "m")


@pytest.mark.slow
def test_analyze_and_explain(work, tmp_path, plain_tokenizer):  # noqa: F811
    run = tmp_path / "run"
    make_run("gpt2", plain_tokenizer, run)
    data = tmp_path / "data.jsonl"
    rows = [
        {"question": f"{i}+1?", "steps": [f"{i}+1={i + 1}"], "answer": str(i % 3)}
        for i in range(160)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    record = rim_json("analyze", run, data, "--max-new-tokens", 3)
    found = record["analysis"]
    blocks, layers = found["blocks"], found["layers"]
    assert np.shape(found["values"]["step 1"]["trained"]) == (blocks + 1, layers + 1)
    assert "control" in found["values"]["answer"]
    assert len(found["geometry"]["pca"][0]["points"]) == blocks
    assert len(found["examples"]) == 12
    again = rim_json(
        *("analyze", run, data, "--max-new-tokens", 3, "--no-base", "--overwrite", "--beside", run)
    )
    shown = {panel["checkpoint"] for panel in again["analysis"]["checkpoints"]["panels"]}
    assert shown == {"run", "finished"}
    stored = run / "analysis" / "data" / "analysis.json"
    assert json.loads(stored.read_text())["analysis"]["blocks"] == blocks
    explained = rim_json("explain", run, "7+1?", "--max-new-tokens", 3)
    assert [row["block"] for row in explained["blocks"]] == list(range(1, blocks + 1))
    assert explained["blocks"][0]["probed"]["step 1"]["value"]
    assert "probed" in rim_command("explain", run, "7+1?", "--max-new-tokens", 3)


def test_checkpoints_are_shown_in_one_basis():
    rng = np.random.default_rng(0)
    means = 5 * rng.normal(size=(3, 1, 8))  # blocks tell everything
    answers = [str(i % 4) for i in range(40)]
    by_block = np.broadcast_to(means, (40, 3, 1, 8)).copy()
    codes = {answer: rng.normal(size=8) for answer in "0123"}
    by_answer = np.stack([codes[a] for a in answers])[:, None, None].repeat(3, 1)
    noise = rng.normal(size=(40, 3, 1, 8))
    states = {"a": by_block, "again": by_block, "b": by_answer, "c": noise}
    panels = {p["checkpoint"]: p for p in over_checkpoints(states, [2], answers)}
    assert panels["a"]["points"] == panels["again"]["points"] != panels["b"]["points"]
    assert panels["a"]["layer"] == 2 and np.shape(panels["a"]["points"]) == (3, 40, 2)
    assert panels["a"]["by_block"] == 1.0 and panels["a"]["by_answer"] < 0.05
    assert panels["b"]["by_answer"] == 1.0 and panels["b"]["by_block"] < 0.05
    assert panels["c"]["by_answer"] < 0.15 and panels["c"]["by_block"] < 0.1
    assert sum(panels["a"]["explained"]) > 0.5


def test_checkpoints_of_other_sizes_are_left_out_with_a_reason(plain_tokenizer, tmp_path):
    run = tmp_path / "run"
    make_run("gpt2", plain_tokenizer, run)
    reasoner = load(run)
    wide = tiny_model("gpt2", reasoner.encoder.tokenizer, width=16)

    def gone():
        raise ConfigError("its files are gone")

    found = beside(
        {
            "same": lambda: reasoner,
            "narrow": lambda: Reasoner(wide, reasoner.encoder),
            "gone": gone,
        },
        reasoner,
        ["1+1?", "2+1?", "3+1?"],
        ["2", "3", "4"],
        2,
    )
    assert {panel["checkpoint"] for panel in found["panels"]} == {"same"}
    left_out = found["left_out"]
    assert left_out["gone"] == "its files are gone" and "width 16" in left_out["narrow"]
    assert own_checkpoints(run / "model", "cpu") == {}


def test_too_few_questions_and_no_blocks_are_said(work, tmp_path, plain_tokenizer):  # noqa: F811
    run = tmp_path / "run"
    make_run("gpt2", plain_tokenizer, run)
    (tmp_path / "d.jsonl").write_text('{"question": "a", "answer": "1"}')
    assert "too few" in rim_command("analyze", run, tmp_path / "d.jsonl", code=2)
    assert "empty" in rim_command("explain", run, " ", code=2)


def test_where_no_probe_could_be_trained_no_share_is_told():
    row = {"kind": "value", "train": 4, "test": 3, "majority": 0.5}
    maps = {"trained": [[None], [None]], "control": [[None], [None]]}
    assert "too few questions for a probe (4 to train on" in value_sentence("step 1", row | maps)
    read = {"trained": [[0.25], [0.75]], "control": [[0.25], [0.5]]}
    said = value_sentence("step 1", row | read)
    found = {"values": {"step 1": row | read}, "trust": {}}
    assert list(sentences(found))[:2] == [said, CONTROL_LABELS] and "made-up" in CONTROL_LABELS
    assert CONTROL_LABELS not in list(sentences(found | {"values": {}}))
    assert "block 1, layer 0 in 75 % of 3 test questions" in said and "in 25 %" in said
