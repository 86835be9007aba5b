"""`benchmarks/gpu.py` at toy size on a CPU: everything runs, is written, continues and says so."""

from __future__ import annotations

import json
import os
import signal
import sys
from types import SimpleNamespace

import gpu
import pytest
import warm

from rim.train.stopping import TERMINATED

ROWS = (
    "equivalence/gpt2/sdpa/float32",
    "equivalence/llama/sdpa/bfloat16",
    "equivalence/llama/flex_attention/float32",
    "latency/llama3.2-1b",
    "logits_memory/chunks",
    "training_step/gpt2",
    "all_answers/gpt2",
    "fsdp",
)
#: torch's advice on flex attention without its compiler, which is how a CPU runs it here.
FLEX = (
    "ignore:flex_attention called without torch.compile:UserWarning",
    "ignore:_compile flag on create_block_mask:DeprecationWarning",
)


def run(monkeypatch, out, *more: str) -> dict:
    words = ["gpu.py", "--out", str(out), "--device", "cpu", "--tiny", *more]
    monkeypatch.setattr(sys, "argv", words)
    gpu.main()
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings(*FLEX)
def test_every_kind_of_measurement_runs_and_is_marked_as_a_toy(tmp_path, monkeypatch):
    every = gpu.measurements

    def some(args):
        return {name: measure for name, measure in every(args).items() if name in ROWS}

    monkeypatch.setattr(gpu, "measurements", some)
    record = run(monkeypatch, tmp_path / "gpu.json")
    found = record["measurements"]
    assert record["tiny"] is True and record["device"] == "cpu"
    assert list(found) == sorted(ROWS, key=list(found).index) and len(found) == len(ROWS)
    assert not [name for name, row in found.items() if "failed" in row]
    assert all(row["equal"] for name, row in found.items() if name.startswith("equivalence"))
    methods = {row["method"] for row in found["latency/llama3.2-1b"]["rows"]}
    assert methods == {"direct", "rim", "coconut", "cot"}
    assert set(found["training_step/gpt2"]["rows"]) == {
        *("grounding", "refinement", "separate_sequences")
    }
    assert found["fsdp"]["skipped"]


@pytest.mark.slow
def test_a_measurement_is_made_once_and_a_failed_one_stops_no_other(tmp_path, monkeypatch):
    made = []

    def measure(name):
        made.append(name)
        if name == "b":
            raise RuntimeError("CUDA error: no kernel image\nis available")
        return {"value": len(made)}

    def rows(args):
        return {name: (lambda name=name: measure(name)) for name in "abc"}

    monkeypatch.setattr(gpu, "measurements", rows)
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"failed, and made again .* deleted: b"):
            run(monkeypatch, tmp_path / "gpu.json")
    found = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    assert made == ["a", "b", "c"]
    assert found["b"]["failed"] == "RuntimeError: CUDA error: no kernel image"
    assert found["c"]["value"] == 3
    with pytest.raises(SystemExit, match="was made with data"):
        run(monkeypatch, tmp_path / "gpu.json", "--data", "other.jsonl")


def test_time_that_runs_out_keeps_what_was_measured(tmp_path, monkeypatch):
    def rows(args):
        return {
            "quick": lambda: {"value": 1},
            "long": lambda: os.kill(os.getpid(), signal.SIGTERM),
        }

    monkeypatch.setattr(gpu, "measurements", rows)
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, tmp_path / "gpu.json", "--minutes", "5")
    assert left.value.code == TERMINATED
    assert list(json.loads((tmp_path / "gpu.json").read_text())["measurements"]) == ["quick"]


def test_the_shapes_have_the_parameters_of_the_models(monkeypatch):
    """Counted without making the weights."""
    import torch

    from rim.models.scratch import build_model, train_tokenizer

    tokenizer = train_tokenizer(["a"], 300)
    published = {"gpt2": 124.4e6, "llama3.2-1b": 1.236e9, "llama3.2-3b": 3.213e9}
    for name, parameters in published.items():
        scratch = gpu.SHAPES[name]
        with torch.device("meta"):
            model = build_model(scratch, tokenizer, "sdpa")
        width = scratch.width * (scratch.vocab_size - len(tokenizer))
        counted = sum(p.numel() for p in model.parameters()) + width
        assert counted == pytest.approx(parameters, rel=0.002), name


@pytest.mark.slow
def test_a_training_that_was_not_sharded_does_not_pass_for_one(tmp_path, monkeypatch):
    def run(command, env, **_):
        launcher, program = command[:-3], command[-3:]
        stand_in = warm.stand_in(program)
        return warm.run([*launcher, "--no-python", *stand_in], env=env)

    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(run=run))
    with pytest.raises(RuntimeError, match=r"ConfigError: .*shards nothing here"):
        gpu.trained_losses(tmp_path, "fsdp")
