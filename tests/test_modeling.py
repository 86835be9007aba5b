"""LoRA trains what it should and nothing else; saving and loading change nothing."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from conftest import EXAMPLES, stage, tiny_model
from transformers import OPTConfig, OPTForCausalLM

import rim
from rim.config import (
    ConfigError,
    LoraSettings,
    MemoryConfig,
    ModelConfig,
    PromptFormat,
    ScratchConfig,
)
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layout import lay_out
from rim.core.tokens import PromptEncoder
from rim.infer.decode import generate
from rim.methods import METHODS
from rim.models.loading import load_base, load_for_training, load_trained, save_trained
from rim.models.lora import prepare_for_training, set_adapter_dropout, set_dropout
from rim.models.scratch import build_model

FORMAT = PromptFormat(memory=MemoryConfig(blocks=2))
QUESTIONS = [example.question for example in EXAMPLES]


@pytest.fixture
def base_dir(family, plain_tokenizer, tmp_path):
    """A pretrained model as a user has one: no memory tokens yet."""
    folder = tmp_path / "base"
    tiny_model(family, plain_tokenizer).save_pretrained(folder)
    plain_tokenizer.save_pretrained(folder)
    return folder


def lora_config(base_dir, **changes):
    return ModelConfig(base=str(base_dir), lora=LoraSettings(rank=4, alpha=8), **changes)


def train_some(model, encoder, steps=3):
    layouts = [lay_out(METHODS["rim"], e, stage(objective="answer"), encoder) for e in EXAMPLES]
    batch = collate(layouts)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(steps):
        loss = forward_readouts(model, batch, FORMAT.memory, torch.ones(3, 2)).per_example_B.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def test_lora_trains_adapters_and_the_three_new_rows_only(base_dir, plain_tokenizer):
    config = lora_config(base_dir)
    model, tokenizer = load_base(config, FORMAT, (), seed=0)
    encoder = PromptEncoder(tokenizer, FORMAT)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    size = len(plain_tokenizer)
    model = prepare_for_training(model, config, list(encoder.memory_ids), dropout=0.0)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name or "trainable_tokens" in name for name in trainable)
    train_some(model, encoder)
    merged = model.merge_and_unload()
    new_rows = merged.get_input_embeddings().weight[size:]
    old_rows = merged.get_input_embeddings().weight[:size]
    original = before[next(n for n in before if "embed_tokens" in n or "wte" in n)]
    assert torch.equal(old_rows, original[:size])
    assert (new_rows != original[size:]).any(1).all(), "every memory token must learn"
    linear = [
        n for n, p in merged.named_parameters() if n in before and not torch.equal(p, before[n])
    ]
    assert all("norm" not in n and "ln_" not in n and not n.endswith("bias") for n in linear)
    assert len(linear) >= 4


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_saved_model_answers_as_before(base_dir, tuning, tmp_path):
    config = lora_config(base_dir, tuning=tuning)
    model, tokenizer = load_base(config, FORMAT, (), seed=0)
    encoder = PromptEncoder(tokenizer, FORMAT)
    model = prepare_for_training(model, config, list(encoder.memory_ids), dropout=0.0)
    train_some(model, encoder)
    expected = generate(model, encoder, QUESTIONS, blocks=2, after="all", max_new_tokens=6)
    folder = tmp_path / "saved"
    save_trained(model, tokenizer, FORMAT, config, folder)
    files = {path.name for path in folder.iterdir()}
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    for merge in (False, True):
        loaded, tokenizer = load_trained(folder, merge=merge)
        again = generate(
            loaded,
            PromptEncoder(tokenizer, FORMAT),
            QUESTIONS,
            blocks=2,
            after="all",
            max_new_tokens=6,
        )
        for texts, expected_texts in zip(again, expected, strict=True):
            for g, e in zip(texts, expected_texts, strict=True):
                assert g.token_ids == e.token_ids
                assert g.logprob == pytest.approx(e.logprob, abs=1e-4)


@pytest.mark.parametrize(("seed", "beyond"), [(0, ()), (3, ()), (3, ("[PAD2]",))])
def test_an_adapter_on_an_untied_head_comes_back_bit_for_bit(
    seed, beyond, plain_tokenizer, tmp_path
):
    """Also where the tokenizer has tokens beyond the model's rows."""
    base = tiny_model("llama", plain_tokenizer)
    plain_tokenizer = copy.deepcopy(plain_tokenizer)
    plain_tokenizer.add_tokens(list(beyond))
    base.config.tie_word_embeddings = False
    base.lm_head.weight = torch.nn.Parameter(torch.randn_like(base.lm_head.weight))
    base.save_pretrained(tmp_path / "base")
    plain_tokenizer.save_pretrained(tmp_path / "base")
    config = lora_config(tmp_path / "base")
    model, tokenizer = load_base(config, FORMAT, (), seed=seed)
    encoder = PromptEncoder(tokenizer, FORMAT)
    model = prepare_for_training(model, config, list(encoder.memory_ids), dropout=0.0)
    train_some(model, encoder)
    save_trained(model, tokenizer, FORMAT, config, tmp_path / "saved")
    loaded, _ = load_trained(tmp_path / "saved")
    weights, again = model.state_dict(), loaded.state_dict()
    trained_apart = [name for name in weights if "embed_tokens.token_adapter.base_layer" in name]
    assert len(trained_apart) == 1  # under the adapter's own rows, which take its place
    for name in weights.keys() - set(trained_apart):
        assert torch.equal(weights[name], again[name]), name
    ids = torch.tensor([encoder.prompt_ids("a question", 2)])
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    merged, _ = load_trained(tmp_path / "saved", merge=True)
    assert torch.equal(model.merge_and_unload()(input_ids=ids).logits, merged(input_ids=ids).logits)


def test_an_adapter_folder_holds_no_embedding_matrix(base_dir, tmp_path):
    from safetensors import safe_open

    config = lora_config(base_dir)
    model, tokenizer = load_base(config, FORMAT, (), seed=0)
    memory_ids = list(PromptEncoder(tokenizer, FORMAT).memory_ids)
    save_trained(
        prepare_for_training(model, config, memory_ids, 0.0), tokenizer, FORMAT, config, tmp_path
    )
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as weights:
        shapes = {name: tuple(weights.get_tensor(name).shape) for name in weights.keys()}  # noqa: SIM118
    assert any("token" in name and shape == (3, 32) for name, shape in shapes.items())
    assert all(len(tokenizer) not in shape for shape in shapes.values())


def test_a_recipes_dropout_is_the_only_one(tokenizer):
    """Under LoRA GPT-2's own 0.1 stayed on; OPT hands its own on as a plain number."""
    for name, model in (
        ("gpt2", tiny_model("gpt2", tokenizer)),
        ("opt", OPTForCausalLM(OPTConfig(hidden_size=32, ffn_dim=32, num_attention_heads=2,
            num_hidden_layers=1, vocab_size=len(tokenizer), max_position_embeddings=64,
            word_embed_proj_dim=32, dropout=0.5))),
    ):  # fmt: skip
        for field in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if hasattr(model.config, field):
                setattr(model.config, field, 0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        ids = torch.arange(1, 9)[None]
        assert not torch.equal(*(model.train()(input_ids=ids).logits for _ in range(2))), name
        for tuning in ("lora", "full"):
            config = ModelConfig(base="x", tuning=tuning)
            ready = prepare_for_training(copy.deepcopy(model), config, [1, 2, 3], dropout=0.0)
            assert torch.equal(*(ready.train()(input_ids=ids).logits for _ in range(2))), name


def test_the_next_stage_trains_the_same_adapter_with_its_own_dropout(base_dir, tmp_path):
    config = lora_config(base_dir)
    model, tokenizer = load_base(config, FORMAT, (), seed=0)
    memory_ids = list(PromptEncoder(tokenizer, FORMAT).memory_ids)
    model = prepare_for_training(model, config, memory_ids, dropout=0.0)
    before = sum(p.requires_grad for p in model.parameters())
    save_trained(model, tokenizer, FORMAT, config, tmp_path / "stage")
    again, _ = load_for_training(tmp_path / "stage", dropout=0.25)
    assert sum(p.requires_grad for p in again.parameters()) == before
    rates = {
        m.p
        for n, m in again.named_modules()
        if "lora_dropout" in n and isinstance(m, torch.nn.Dropout)
    }
    assert rates == {0.25}
    set_adapter_dropout(again, 0.0)
    assert not [
        m
        for n, m in again.named_modules()
        if "lora_dropout" in n and isinstance(m, torch.nn.Dropout)
    ]


def test_dropout_of_a_full_model_can_be_set_and_taken_back(family, encoder):
    model = tiny_model(family, encoder.tokenizer).train()
    ids = torch.tensor([encoder.prompt_ids("a question", 2)])
    exact = model(input_ids=ids).logits
    set_dropout(model, 0.5)
    assert not torch.allclose(model(input_ids=ids).logits, exact)
    set_dropout(model, 0.0)
    assert torch.equal(model(input_ids=ids).logits, exact)


def test_a_run_in_bfloat16_as_base_keeps_its_rotary_frequencies(tmp_path, plain_tokenizer):
    base = tiny_model("llama", plain_tokenizer)
    base.save_pretrained(tmp_path / "base")
    plain_tokenizer.save_pretrained(tmp_path / "base")
    config = lora_config(tmp_path / "base")
    model, tokenizer = load_base(config, FORMAT, (), seed=0)
    encoder = PromptEncoder(tokenizer, FORMAT)
    model = prepare_for_training(model, config, list(encoder.memory_ids), dropout=0.0)
    save_trained(model, tokenizer, FORMAT, config, tmp_path / "run" / "model")
    second = ModelConfig(base=str(tmp_path / "run" / "model"), tuning="full", dtype="bfloat16")
    loaded, _ = load_base(second, FORMAT, (), seed=0)
    assert next(loaded.parameters()).dtype == torch.bfloat16
    assert torch.equal(loaded.model.rotary_emb.inv_freq, base.model.rotary_emb.inv_freq)


def test_new_rows_start_near_the_mean_and_apart(base_dir, plain_tokenizer):
    model, _ = load_base(lora_config(base_dir), FORMAT, (), seed=0)
    rows = model.get_input_embeddings().weight
    old, new = rows[: len(plain_tokenizer)], rows[len(plain_tokenizer) :]
    assert len(new) == 3
    assert ((new - old.mean(0)).abs() < old.std(0)).all()
    assert not torch.equal(new[0], new[1])


def test_the_spread_of_a_new_models_weights_is_a_setting(family, plain_tokenizer):
    def spread(**changes):
        scratch = ScratchConfig(family=family, layers=1, width=96, heads=2, **changes)
        torch.manual_seed(0)
        model = build_model(scratch, plain_tokenizer, "eager")
        matrices = [p for p in model.parameters() if p.ndim == 2 and p.numel() > 9000]
        assert len(matrices) > 3
        # GPT-2 scales its output projections by 1 / sqrt(2 layers) on top.
        return torch.tensor([matrix.std().item() for matrix in matrices])

    torch.testing.assert_close(spread(initializer_range=0.1), 5 * spread(), rtol=1e-4, atol=0)
    assert spread().max().item() == pytest.approx(0.02, rel=0.05)


def test_bases_that_cannot_be_loaded_say_why(tmp_path, plain_tokenizer):
    with pytest.raises(ConfigError, match="could not be loaded"):
        load_base(ModelConfig(base="no/such-model-anywhere"), FORMAT, (), seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no model"):
        load_base(ModelConfig(base=str(tmp_path / "empty")), FORMAT, (), seed=0)
    tiny_model("gpt2", plain_tokenizer).save_pretrained(tmp_path / "gpt2")
    plain_tokenizer.save_pretrained(tmp_path / "gpt2")
    for name, content in (("model.safetensors", "torn"), ("tokenizer.json", '{"model": {}}')):
        damaged = shutil.copytree(tmp_path / "gpt2", tmp_path / f"damaged {name}")
        (damaged / name).write_text(content)
        with pytest.raises(ConfigError, match="could not be loaded"):
            load_base(ModelConfig(base=str(damaged)), FORMAT, (), seed=0)
    with pytest.raises(ConfigError, match=r"gpt2.*flex"):
        load_base(
            ModelConfig(base=str(tmp_path / "gpt2"), attention="flex_attention"), FORMAT, (), seed=0
        )


def flash_stand_in(seen):
    """An attention function that, like the flash kernels, takes a 2-D mask or none."""

    def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
        seen.append(attention_mask)
        length, start = query.shape[2], key.shape[2] - query.shape[2]
        columns = torch.arange(key.shape[2])
        mask = columns[None, None] <= torch.arange(start, start + length)[None, :, None]
        if attention_mask is not None:
            assert attention_mask.ndim == 2, "flash attention takes no mask of ours"
            mask = mask & attention_mask[:, None, :].bool()
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None

    return attend


@pytest.mark.slow
@pytest.mark.parametrize("method", ["direct", "rim"])
def test_flash_attention_gets_plain_rows(method, tmp_path, monkeypatch):
    """No kernel runs on a CPU: what is played here is what one may be given, in training, in
    validation and when the model is asked.
    """
    from test_training import raw_recipe, run
    from transformers import AttentionInterface, PreTrainedModel

    seen = []
    check = "_check_and_adjust_attn_implementation"
    monkeypatch.setattr(PreTrainedModel, check, lambda self, attention, *_, **__: attention)
    mapping = AttentionInterface._global_mapping
    monkeypatch.setitem(mapping, "flash_attention_2", flash_stand_in(seen))
    raw = raw_recipe(tmp_path, method=method)
    raw["model"] |= {"attention": "flash_attention_2", "dtype": "bfloat16"}
    raw["stages"] = [
        {"name": "a", "objective": "answer", "max_steps": 2, "batch_size": 8, "evaluate_every": 2}
    ]
    folder = run(raw)
    assert len(seen) > 10
    record = json.loads((folder.path / "readouts.json").read_text())["a"]
    assert record["readouts"] == "separate"
    assert record["reason"] == "flash_attention_2 takes no mask of ours"
    assert record["ratio"] == 1 if method == "direct" else record["ratio"] > 1
    before = len(seen)
    model = rim.load(folder.path)
    assert model.model.config._attn_implementation == "sdpa"
    assert model.ask("1+2=") and len(seen) == before


def test_flash_attention_is_refused_where_it_cannot_be(tmp_path):
    from test_training import raw_recipe, run

    raw = raw_recipe(tmp_path)
    raw["model"] |= {"attention": "flash_attention_2", "dtype": "bfloat16"}
    with pytest.raises(ConfigError, match=r"model\.attention 'flash_attention_2': .*sdpa runs"):
        run(raw)
    assert not (tmp_path / "runs" / "run").exists()
    bidirectional = raw | {"memory": {"blocks": 5, "attention": "bidirectional"}}
    with pytest.raises(ConfigError, match=r"attention: flash_attention_2 cannot express memory"):
        run(bidirectional)
    raw["model"]["dtype"] = "float32"
    with pytest.raises(ConfigError, match="is for dtype: bfloat16 only"):
        run(raw)
    raw["model"]["readouts"] = "parallel"
    with pytest.raises(ConfigError, match="cannot express the read-out mask"):
        run(raw)
