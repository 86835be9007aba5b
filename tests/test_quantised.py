"""A base in 4 bits: what is refused without bitsandbytes, and with it training, saving, export."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from conftest import tiny_model
from test_training import raw_recipe, run

from rim.config import ConfigError, ModelConfig, PromptFormat
from rim.config.recipe_yaml import recipe_from_dict
from rim.infer.reasoner import load
from rim.models.loading import load_base, load_trained

installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture
def base(tmp_path, plain_tokenizer):
    def base(family="llama"):
        tiny_model(family, plain_tokenizer, width=64).save_pretrained(tmp_path / family)
        plain_tokenizer.save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return base


def test_without_bitsandbytes_it_is_refused_with_a_way_out(base, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = ModelConfig(base=base(), quantize="4bit")
    with pytest.raises(ConfigError, match=r"needs bitsandbytes \(pip install .*\[qlora\]"):
        load_base(config, PromptFormat(method="rim"), (), 0)


@pytest.mark.parametrize("change", [{"tuning": "full"}, {"base": None, "scratch": {}}])
def test_weights_of_4_bits_do_not_train(tmp_path, change):
    model = {"base": "x", "quantize": "4bit"} | change
    with pytest.raises(ConfigError, match=r"4 bits cannot train|nothing to adapt"):
        recipe_from_dict(raw_recipe(tmp_path, model=model))


def test_an_adapter_is_no_base_of_4_bits(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    config = ModelConfig(base=str(tmp_path), quantize="4bit")
    with pytest.raises(ConfigError, match=r"is an adapter; write it as a model first"):
        load_base(config, PromptFormat(method="rim"), (), 0)


@installed
def test_transposed_weights_are_refused(base):
    with pytest.raises(ConfigError, match="gpt2 models keep their weights transposed"):
        load_base(
            ModelConfig(base=base("gpt2"), quantize="4bit"), PromptFormat(method="rim"), (), 0
        )


@installed
@pytest.mark.slow
def test_adapters_and_memory_rows_train_beside_4_bits_and_merge_exactly(tmp_path, base):
    model = {"base": base(), "quantize": "4bit", "lora": {"rank": 4}}
    raw = raw_recipe(tmp_path, model=model)
    folder = run(raw)
    trained, _ = load_trained(folder.model_dir)
    names = {type(module).__name__ for module in trained.modules()}
    assert "Linear4bit" in names
    untrained, _ = load_base(recipe_from_dict(raw).model, PromptFormat(method="rim"), (), 0)
    moved = {name: p for name, p in trained.named_parameters() if "lora_B" in name}
    assert moved
    assert all(p.abs().max() > 0 for p in moved.values())
    (rows,) = (p for name, p in trained.named_parameters() if "trainable_tokens_delta" in name)
    started = untrained.get_input_embeddings().weight
    assert not torch.isclose(rows, started[-len(rows) :]).all(), "memory rows train"
    merged = load(folder.path).model
    assert "Linear4bit" not in {type(module).__name__ for module in merged.modules()}
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)
    again = run(raw | {"name": "again"})
    first, second = (load_trained(r.model_dir)[0].state_dict() for r in (folder, again))
    assert all(torch.equal(first[name], second[name]) for name in moved)
