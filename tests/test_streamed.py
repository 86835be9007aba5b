"""Training data larger than memory: read piece by piece, each example once an epoch, resumable."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch
from conftest import stage as stage_of
from test_crash import before_step, interrupt
from test_training import losses, raw_recipe, run, weights_of
from torch.utils.data import BatchSampler, RandomSampler

from rim.config import ConfigError, DataConfig
from rim.config.recipe_yaml import recipe_from_dict
from rim.core.layout import lay_out
from rim.data.examples import DataError
from rim.data.sources import data_hash, load_examples, write_file
from rim.data.streamed import StreamedExamples
from rim.data.tasks.arithmetic import generate_arithmetic
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.train.layout_store import store_layouts
from rim.train.order import Shuffled


def arithmetic(count: int, split: str = "train") -> list:
    raw = {"format": "arithmetic", "arithmetic": {"num_examples": count, "split": split}}
    return load_examples(DataConfig.model_validate({"train": raw}).train)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings of data in files, of which the training set is streamed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_file(tmp_path / "train.jsonl", arithmetic(29))
    write_file(tmp_path / "valid.jsonl", arithmetic(8, "validation"))

    def settings(**changes):
        train = {"format": "jsonl", "path": str(tmp_path / "train.jsonl"), "streaming": True}
        valid = {"format": "jsonl", "path": str(tmp_path / "valid.jsonl")}
        return {"train": train | changes, "validation": valid}

    return settings


def recipe(tmp_path, data, **changes):
    """One stage of two epochs, four steps each, the last of them not full."""
    raw = raw_recipe(tmp_path, data=data, **changes)
    first = raw["stages"][0] | {"max_steps": None, "epochs": 2, "dropout": 0.1}
    raw["stages"] = [first | {"trainer": {"logging_steps": 1}, "evaluate_every": 2}]
    return raw


# --- streamed ------------------------------------------------------------------------------------


class Pretended(StreamedExamples):
    """So many examples that are made when their turn comes."""

    def __init__(self, count: int):
        chains = generate_arithmetic(
            DataConfig.model_validate(
                {"train": {"format": "arithmetic", "arithmetic": {"num_examples": 50}}}
            ).train.arithmetic
        )
        super().__init__(lambda: (chains[i % 50] for i in range(count)), "nowhere")


@pytest.mark.slow
def test_laying_out_takes_the_memory_of_one_example(tmp_path, monkeypatch, encoder):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stage = stage_of(objective="steps")
    peaks, sizes = [], []
    for count in (100, 1000):
        examples = Pretended(count)
        method = METHODS["rim"]
        tracemalloc.start()
        layouts = (lay_out(method, example, stage, encoder) for example in examples)
        stored = store_layouts(layouts, examples, stage, encoder)
        tokens = sum(len(stored[i].fields_TF) for i in range(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert tokens == stored.lengths.sum() == stored.column("end")[-1]
        sizes.append(sum(file.stat().st_size for file in tmp_path.rglob("fields.bin")))
    assert sizes[1] > 10 * sizes[0] > 10 * 50_000
    # The table's column above is 8 bytes an example; whatever kept the examples would be megabytes.
    assert peaks[1] < peaks[0] + 900 * 40


def test_reading_holds_one_example(settings, tmp_path):
    long = [{"question": f"{i} {'x' * 5000}", "answer": "1"} for i in range(400)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(x) + "\n" for x in long))
    config = DataConfig.model_validate(settings())
    load_training_data(config, 0)  # what is imported and compiled once
    tracemalloc.start()
    train, _ = load_training_data(config, 0)
    assert sum(len(example.question) for example in train) > 2_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("file", ["train.jsonl", "train.csv", "train.parquet"])
def test_streamed_examples_are_those_of_the_file(settings, tmp_path, file):
    import pandas

    rows = [
        {"question": e.question, "steps": json.dumps(e.steps), "answer": e.answer}
        for e in arithmetic(29)
    ]
    if file.endswith("csv"):
        pandas.DataFrame(rows).to_csv(tmp_path / file, index=False)
    elif file.endswith("parquet"):
        pandas.DataFrame(rows).to_parquet(tmp_path / file)
    changes = {"format": "auto", "path": str(tmp_path / file), "limit": 20}
    streamed, held = (
        load_training_data(DataConfig.model_validate(settings(**changes, streaming=x)), 0)
        for x in (True, False)
    )
    assert list(streamed[0]) == held[0]
    assert streamed[1] == held[1]
    assert (len(streamed[0]), data_hash(streamed[0])) == (20, data_hash(held[0]))
    assert (streamed[0][7], streamed[0][-1]) == (held[0][7], held[0][-1])
    assert streamed[0][3:9] == held[0][3:9]


def test_rows_of_a_hub_set_are_streamed(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    hub = {"format": "hub", "path": "json", "data_files": str(tmp_path / "train.jsonl")}
    train, _ = load_training_data(DataConfig.model_validate(settings(**hub)), 0)
    assert isinstance(train, StreamedExamples)
    assert data_hash(train) == data_hash(arithmetic(29))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "arithmetic"}, r"arithmetic is generated in memory \(rim data generate"),
        ({"part": "train"}, "write that part to a file of its own"),
    ],
)
def test_what_cannot_be_streamed_is_refused(tmp_path, settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(raw_recipe(tmp_path, data=settings(**changes)))


def test_validation_is_not_streamed_and_not_held_out(tmp_path, settings):
    data = settings()
    with pytest.raises(ConfigError, match=r"needs data\.validation"):
        recipe_from_dict(raw_recipe(tmp_path, data={"train": data["train"]}))
    data["validation"]["streaming"] = True
    with pytest.raises(ConfigError, match="validation is held in memory"):
        recipe_from_dict(raw_recipe(tmp_path, data=data))


def test_a_json_array_is_refused_with_a_way_out(tmp_path, settings):
    records = [{"question": e.question, "steps": e.steps, "answer": "a."} for e in arithmetic(3)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    data = settings(path=str(tmp_path / "train.json"), format="auto")
    with pytest.raises(DataError, match=r"one JSON array.*one object a line"):
        load_training_data(DataConfig.model_validate(data), 0)


def test_a_validation_question_in_a_streamed_set_is_found(tmp_path, settings):
    examples = arithmetic(29)
    write_file(tmp_path / "valid.jsonl", examples[20:22])
    with pytest.raises(DataError, match=r"valid\.jsonl, line 1: .* also a training question"):
        load_training_data(DataConfig.model_validate(settings()), 0)


def test_a_file_that_changes_while_it_is_read_is_told_of(tmp_path, settings):
    train, _ = load_training_data(DataConfig.model_validate(settings()), 0)
    write_file(tmp_path / "train.jsonl", arithmetic(30)[::-1])
    with pytest.raises(DataError, match="was changed while it was read"):
        list(train)


# --- each example once an epoch, the same training, resumable ------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_epoch_has_every_example_once_over_all_processes(processes):
    from accelerate.data_loader import BatchSamplerShard

    for epoch in (0, 1):
        seen: list[int] = []
        for rank in range(processes):
            order = Shuffled(24, seed=5)
            order.set_epoch(epoch)
            batches = BatchSampler(order, 4, drop_last=False)
            seen += [i for b in BatchSamplerShard(batches, processes, rank) for i in b]
        assert sorted(seen) == list(range(24))


def test_the_order_is_accelerates(monkeypatch):
    from accelerate.data_loader import SeedableRandomSampler

    import rim.train.order

    monkeypatch.setattr(rim.train.order, "PIECE", 7)
    theirs = SeedableRandomSampler(range(50), data_seed=3)
    ours = Shuffled(50, seed=3)
    orders = [list(ours) for _ in range(3)]
    assert orders == [list(theirs) for _ in range(3)]
    assert orders[0] != orders[1]
    ours.set_epoch(1)
    assert list(ours) == orders[1]


def test_training_takes_that_sampler(tmp_path, settings, monkeypatch):
    """A newer transformers or accelerate that asks for its sampler elsewhere would go unnoticed."""
    made: list[int] = []
    original = RandomSampler.__iter__
    monkeypatch.setattr(RandomSampler, "__iter__", lambda x: made.append(1) or original(x))
    raw = recipe(tmp_path, settings())
    raw["stages"][0] |= {"epochs": None, "max_steps": 1}
    run(raw)
    assert not made


@pytest.mark.slow
def test_a_streamed_set_stopped_within_an_epoch_trains_as_one_in_memory(
    tmp_path, settings, monkeypatch
):
    """Bit for bit; epochs that end with a batch that is not full included."""
    held = run(recipe(tmp_path, settings(streaming=False), name="held"))
    raw = recipe(tmp_path, settings(), name="streamed")
    with monkeypatch.context() as patch:
        before_step(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw)
    streamed = run(raw, resume=True)
    for key in ("loss", "token_loss", "eval_loss", "eval_accuracy"):
        # The last word on every step: a resumed run repeats the steps since its checkpoint.
        first, second = ({x[:2]: x[2] for x in losses(r, key)} for r in (held, streamed))
        assert first == second
    assert max(step for _, step, _ in losses(streamed)) == 8
    first, second = weights_of(held), weights_of(streamed)
    assert all(torch.equal(first[name], second[name]) for name in first)
