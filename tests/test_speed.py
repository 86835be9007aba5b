"""What makes training fast changes nothing but the time: packing, no waiting, stored layouts."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from conftest import EXAMPLES
from conftest import stage as stage_of
from test_training import losses, raw_recipe, run, weights_of
from torch.utils._python_dispatch import TorchDispatchMode

import rim.core.forward
import rim.train.layout_store
import rim.train.trainer
from rim.config import TemplatesConfig
from rim.core.collate import collate
from rim.core.forward import MOST_LOGITS
from rim.core.layout import lay_out
from rim.core.tokens import PromptEncoder
from rim.infer.reasoner import load
from rim.methods import METHODS
from rim.train.layout_store import store_layouts
from rim.train.trainer import ReadoutTrainer


@pytest.mark.slow
@pytest.mark.parametrize("micro", ["auto", 4])
def test_packing_changes_nothing_that_is_recorded(tmp_path, micro):
    """Losses, metrics, costs and weights, with blind read-outs and accumulation."""
    runs = {}
    for packing in (True, False):
        raw = raw_recipe(tmp_path, name=f"packing-{packing}")
        raw["templates"] = raw["templates"] | {"answer": "#{answer}"}
        for stage in raw["stages"]:
            stage |= {"packing": packing, "dropout": 0.0, "micro_batch_size": micro}
            stage |= {"blind_readouts": 0.5, "blind_coin": "readout"}
        runs[packing] = run(raw)
    for key in (
        "loss",
        "token_loss",
        "readout_first_nll",
        "readout_last_nll",
        "token_accuracy",
        "eval_loss",
        "eval_token_loss",
        "grad_norm",
    ):
        packed, plain = (losses(runs[packing], key) for packing in (True, False))
        assert [x[:2] for x in packed] == [x[:2] for x in plain]
        assert [x[2] for x in packed] == pytest.approx([x[2] for x in plain], rel=1e-4)
    costs = [
        json.loads(runs[packing].training_file.read_text())["total"] for packing in (True, False)
    ]
    for cost in costs:
        del cost["seconds"]
    assert costs[0] == costs[1]
    first, second = weights_of(runs[True]), weights_of(runs[False])
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=2e-5, rtol=1e-3)


class NumbersAskedFor(TorchDispatchMode):
    """Counts the operations after which a program would have to wait for an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if name in self.WAITING or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_the_watch_sees_what_would_wait():
    with NumbersAskedFor() as numbers:
        x = torch.arange(4.0)
        assert int(x.max()) == 3
        assert len(x[x > 1]) == 2
        assert len(torch.nonzero(x)) == 3
    assert numbers.found == ["_local_scalar_dense", "index", "nonzero"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA's own word on it")
def test_cuda_sees_no_wait_either(tmp_path, monkeypatch):
    original = ReadoutTrainer.training_step

    def watched(self, *args, **kwargs):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(self, *args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(ReadoutTrainer, "training_step", watched)
    raw = raw_recipe(tmp_path)
    for stage in raw["stages"]:
        stage |= {"blind_readouts": 0.5, "micro_batch_size": 4, "max_steps": 2}
    raw["templates"] = raw["templates"] | {"answer": "#{answer}"}
    run(raw)


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
def test_a_training_step_never_waits_for_the_device(tmp_path, monkeypatch, chunked):
    """On a CPU the same operations as on an accelerator; also what reads a tensor without one."""
    found: list[str] = []
    original = ReadoutTrainer.training_step

    def watched(self, *args, **kwargs):
        assert self._chunk(args[1]) is None or chunked  # asks the model once, before
        with monkeypatch.context() as patch, NumbersAskedFor() as numbers:
            for name in ("tolist", "numpy", "item"):
                patch.setattr(torch.Tensor, name, lambda *_, n=name: found.append(n))
            loss = original(self, *args, **kwargs)
        found.extend(numbers.found)
        return loss

    monkeypatch.setattr(ReadoutTrainer, "training_step", watched)
    if chunked:
        monkeypatch.setattr(rim.core.forward, "MOST_LOGITS", 50)
    raw = raw_recipe(tmp_path)
    raw["templates"] = raw["templates"] | {"answer": "#{answer}"}
    for stage in raw["stages"]:
        stage |= {"blind_readouts": 0.5, "micro_batch_size": 4, "max_steps": 2}
    run(raw)
    assert found == []
    assert MOST_LOGITS > 50


@pytest.fixture
def kept(tmp_path, monkeypatch, encoder):
    """Stores a stage's layouts on disk, however few; says whether they had to be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rim.train.layout_store, "KEPT_FROM", 0)

    def store(encoder=encoder, **changes):
        chosen, made = stage_of(**changes), []

        def layouts():
            for example in EXAMPLES:
                made.append(example)
                yield lay_out(METHODS["rim"], example, chosen, encoder)

        stored = store_layouts(layouts(), EXAMPLES, chosen, encoder)
        return stored, [lay_out(METHODS["rim"], e, chosen, encoder) for e in EXAMPLES], bool(made)

    return store


def same_batches(stored, layouts):
    first, second = collate(list(stored), pack=True), collate(layouts, pack=True)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_layouts_are_made_once_for_the_same_settings(kept, tmp_path):
    stored, layouts, made = kept(objective="steps")
    assert made
    assert same_batches(stored, layouts)
    assert stored.column("max_position").tolist() == [x.max_position for x in layouts]
    again, _, made = kept(objective="steps", learning_rate=0.5, weighting="anneal_linear")
    assert not made
    assert same_batches(again, layouts)
    assert same_batches(pickle.loads(pickle.dumps(again)), layouts)
    other, layouts, made = kept(objective="steps", alignment="own_step")
    assert made
    assert same_batches(other, layouts)
    assert len(list((tmp_path / "rim" / "layouts").iterdir())) == 2, "nothing is left aside"


def test_another_prompt_has_other_layouts(kept, encoder):
    kept(objective="steps")
    format = encoder.format.model_copy(
        update={"templates": TemplatesConfig(question="Q: {question}\n")}
    )
    stored, layouts, made = kept(PromptEncoder(encoder.tokenizer, format), objective="steps")
    assert made
    assert same_batches(stored, layouts)


@pytest.mark.parametrize("torn", ["fields.bin", "table.bin", "state.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_layouts_that_are_torn_are_made_again(kept, tmp_path, torn, how):
    kept(objective="steps")
    (file,) = tmp_path.glob(f"rim/layouts/*/{torn}")
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if how == "cut" else content[:-9] + b"012345678")
    stored, layouts, made = kept(objective="steps")
    assert made
    assert same_batches(stored, layouts)
    assert not kept(objective="steps")[2]


def test_layouts_that_could_not_be_made_leave_nothing(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(rim.train.layout_store, "_numbers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept(objective="steps")
    assert not list((tmp_path / "rim" / "layouts").iterdir())


@pytest.mark.slow
def test_a_model_answers_in_bfloat16_and_keeps_its_positions_exact(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 1}]
    folder = run(raw)
    exact, rounded = load(folder.path), load(folder.path, dtype="bfloat16")
    assert {p.dtype for p in rounded.model.parameters()} == {torch.bfloat16}
    for name, buffer in exact.model.named_buffers():
        assert torch.equal(buffer, rounded.model.get_buffer(name))
    first, second = (x.ask("1+2=", max_new_tokens=3) for x in (exact, rounded))
    assert second.logprob == pytest.approx(first.logprob, rel=0.05)
