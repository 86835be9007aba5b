"""A GGUF file of ours, without llama.cpp: read by transformers, which has a reader of its own."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_type_hints

import gguf
import numpy as np
import pytest
import torch
from export_models import KINDS, checked_in_process, make_run
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rim.cli import app
from rim.cli import gguf as gguf_command
from rim.config import ConfigError
from rim.deploy.export import export_run
from rim.deploy.export.gguf import WEIGHTS, write_gguf
from rim.deploy.export.gguf.vocabulary import pretokenizer_name, read_vocabulary
from rim.deploy.export.record import EXPORT_FILE, file_hashes
from rim.models.scratch import train_tokenizer
from rim.results import write_json


@pytest.fixture(scope="module")
def exported(plain_tokenizer, tmp_path_factory):
    """One exported folder per kind, and one whose tokenizer knows few characters."""
    root = tmp_path_factory.mktemp("exported")
    runs = {
        KINDS[kind][0]: make_run(kind, plain_tokenizer, root / kind)
        for kind in ("gpt2", "llama chat", "qwen base")
    }
    narrow = train_tokenizer(["3 + 4 = 7"], 20, alphabet="data")
    runs["narrow"] = make_run("gpt2", narrow, root / "narrow")
    with checked_in_process():
        return {name: export_run(run, run / "out").folder for name, run in runs.items()}


@pytest.fixture
def copied(exported, tmp_path):
    """A folder that a test may spoil."""
    return shutil.copytree(exported["gpt2"], tmp_path / "copied")


def change(file: Path, **values: object) -> None:
    """As if the export had written it so."""
    write_json(file, json.loads(file.read_text()) | values)
    if file.name != EXPORT_FILE:
        change(file.with_name(EXPORT_FILE), sha256=file_hashes(file.parent))


@torch.inference_mode()
def logits(model, ids) -> torch.Tensor:
    return model.eval()(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_another_reader_finds_the_same_model(family, weights, exported, tmp_path):
    folder = exported[family]
    write_gguf(folder, tmp_path / "m.gguf", weights=weights)
    ids = AutoTokenizer.from_pretrained(folder)("How many apples? 3 + 4 <|mem|>")["input_ids"]
    own = logits(AutoModelForCausalLM.from_pretrained(folder), ids)
    config = AutoConfig.from_pretrained(folder)  # the reader knows no head size
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", config=config, dtype=torch.float32
    )
    # f32: equal weights, multiplied in another memory layout.
    tolerance = {"f32": 1e-5, "f16": 0.01, "bf16": 0.05, "q8_0": 0.1}[weights]
    assert (logits(read, ids) - own).abs().max() <= tolerance * own.abs().max()


def test_bytes_without_a_token_get_the_unknown_tokens_row(exported, tmp_path):
    folder = exported["narrow"]
    file = write_gguf(folder, tmp_path / "m.gguf").file
    reader = gguf.GGUFReader(file)
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = tokens[len(tokenizer) :]
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("Ä")
    assert set("".join(piece for piece, _ in pieces)) <= set(added)
    (rows,) = [t.data for t in reader.tensors if t.name == "token_embd.weight"]
    assert np.array_equal(
        rows[len(tokenizer) :], np.repeat(rows[[tokenizer.unk_token_id]], len(added), axis=0)
    )
    suppressed = reader.get_field("tokenizer.ggml.suppress_tokens").contents()
    assert set(range(len(tokenizer), len(tokens))) < set(suppressed)


def test_the_unknown_token_is_the_one_that_the_tokenizers_library_writes(exported, tmp_path):
    """`tokenizer_config.json` may name none, or another."""
    folder = shutil.copytree(exported["narrow"], tmp_path / "copied")
    before = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for named in (None, before.eos_token):
        change(folder / "tokenizer_config.json", **config | {"unk_token": named})
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.unk_token == named
        ids = set(tokenizer("Ä")["input_ids"])
        assert ids == {before.unk_token_id}
        assert set(read_vocabulary(folder, len(tokenizer)).copied_rows) == ids


def test_an_unknown_token_outside_the_vocabulary_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported["narrow"], tmp_path / "copied")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder / "tokenizer.json", model=model | {"unk_token": "<|nowhere|>"})
    with pytest.raises(ConfigError, match=r"unknown token '<\|nowhere\|>' is not in its vocab"):
        read_vocabulary(folder, 1000)


def test_a_file_that_cannot_be_read_back_is_not_kept(exported, tmp_path, monkeypatch):
    quantize = gguf.quants.quantize
    monkeypatch.setattr(gguf.quants, "quantize", lambda data, kind: quantize(data * 1.001, kind))
    with pytest.raises(ConfigError, match="does not read back"):
        write_gguf(exported["gpt2"], tmp_path / "m.gguf", weights="q8_0")
    assert not list(tmp_path.iterdir())


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def description(*steps, ignore_merges=False, normalizer=None):
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
        "model": {"ignore_merges": ignore_merges},
    }


def split(pattern):
    return SPLIT | {"pattern": {"Regex": pattern}}


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (description(BYTES), "gpt-2"),
        (description(BYTES) | {"pre_tokenizer": BYTES}, "gpt-2"),
        (description(DIGITS, BYTES), "smollm"),
        (
            description(
                split(WORDS + r"\p{N}" + REST),
                BYTES | {"use_regex": False},
                normalizer={"type": "NFC"},
            ),
            "qwen2",
        ),
        (
            description(
                split(WORDS + r"\p{N}{1,3}" + REST),
                BYTES | {"use_regex": False},
                ignore_merges=True,
            ),
            "llama-bpe",
        ),
    ],
)
def test_the_splitting_rule_follows_from_the_tokenizers_description(tokenizer, name):
    assert pretokenizer_name(tokenizer) == name


@pytest.mark.parametrize(
    "tokenizer",
    [
        description(BYTES | {"add_prefix_space": True}),
        description(DIGITS | {"individual_digits": False}, BYTES),
        description({"type": "Whitespace"}, BYTES),
        description(split(r"\w+"), BYTES | {"use_regex": False}),
        description(split(WORDS + r"\p{N}" + REST), BYTES),
        description(BYTES, ignore_merges=True),
        description(BYTES, normalizer={"type": "Lowercase"}),
        description(BYTES) | {"pre_tokenizer": None},
    ],
)
def test_other_rules_are_refused_with_another_way_named(tokenizer):
    with pytest.raises(ConfigError, match=r"convert_hf_to_gguf\.py FOLDER --outfile"):
        pretokenizer_name(tokenizer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_type": "mamba"},
        {"activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True},
        {"vocab_size": 3},
    ],
    ids=str,
)
def test_a_model_that_llama_cpp_computes_differently_is_refused(wrong, copied, tmp_path):
    change(copied / "config.json", **wrong)
    with pytest.raises(ConfigError, match="cannot write GGUF"):
        write_gguf(copied, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_mistakes_are_said_before_anything_is_written(exported, tmp_path):
    (tmp_path / "there.gguf").touch()
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        write_gguf(exported["gpt2"], tmp_path / "there.gguf")
    with pytest.raises(ConfigError, match="rim export RUN"):
        write_gguf(tmp_path, tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match=r"ends with \.gguf, got .*model"):
        write_gguf(exported["gpt2"], tmp_path / "model")
    with pytest.raises(ConfigError, match="f32, f16, bf16, q8_0"):
        write_gguf(exported["gpt2"], tmp_path / "m.gguf", weights="q4_k_m")  # type: ignore[arg-type]


def test_an_export_that_was_changed_is_not_written(copied, tmp_path):
    (copied / "later.gguf").touch()  # came later, and does no harm
    write_gguf(copied, tmp_path / "first.gguf")
    for name in ("chat_template.jinja", "model.safetensors"):
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content + b" ")
        with pytest.raises(ConfigError, match=f"{name} changed after the export; export again"):
            write_gguf(copied, tmp_path / "m.gguf")
        (copied / name).write_bytes(content)


def test_an_export_in_another_data_type_needs_a_type(copied, tmp_path):
    change(copied / "config.json", dtype="float64")
    with pytest.raises(ConfigError, match=r"weights are float64.*--type .*f32, f16, bf16, q8_0"):
        write_gguf(copied, tmp_path / "m.gguf")
    assert write_gguf(copied, tmp_path / "m.gguf", weights="f32").weights == "f32"


def test_the_command_offers_every_type():
    options = get_type_hints(gguf_command.gguf)["weights"]
    assert get_args(options) == (Literal[WEIGHTS], NoneType)


def test_the_command_writes_the_file_and_says_how_to_serve_it(exported, tmp_path):
    file = tmp_path / "my [v2] model.gguf"
    result = CliRunner().invoke(app, ["gguf", str(exported["llama"]), "--out", str(file)])
    assert result.exit_code == 0, result.output
    assert f"Written: {file} (" in result.output
    assert result.output.splitlines()[-1] == f"Serve it: rim serve {shlex.quote(str(file))}"
    assert gguf.GGUFReader(file).get_field("general.architecture").contents() == "llama"
    again = CliRunner().invoke(app, ["gguf", str(exported["llama"]), "--out", str(file)])
    assert again.exit_code == 2
