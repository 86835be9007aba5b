"""Our GGUF files beside those of llama.cpp's own converter, for vocabularies that it knows.

Builds tiny random models with the vocabularies of GPT-2, Llama 3 and Qwen 2 (from llama.cpp's
test files), exports them, writes each with `rim gguf` and with `convert_hf_to_gguf.py` (needs
sentencepiece), and lists every difference. Prints one JSON line last.

    python benchmarks/gguf_official.py LLAMA_CPP_SOURCE [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rim.config import MemoryConfig, ModelConfig, PromptFormat, ScratchConfig, TemplatesConfig
from rim.core.tokens import add_memory_tokens
from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.export.gguf.vocabulary import SPLITS
from rim.models.loading import save_trained
from rim.models.scratch import build_model
from rim.results import environment, write_json

#: llama.cpp's vocabulary file: the family that it is tried with.
FAMILIES = {"gpt-2": "gpt2", "llama-bpe": "llama", "qwen2": "qwen3"}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def known_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """A tokenizer for transformers out of a vocabulary file of llama.cpp."""
    fields = _fields(gguf.GGUFReader(file))
    read = {name: fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges")}
    name = fields["tokenizer.ggml.pre"]
    kinds = dict(zip(read["tokens"], read["token_type"], strict=True))
    stop, start = (read["tokens"][fields[f"tokenizer.ggml.{n}_token_id"]] for n in ("eos", "bos"))
    is_gpt2, is_llama = name == "gpt-2", name == "llama-bpe"
    words = {
        token: i
        for i, token in enumerate(read["tokens"])
        if kinds[token] == gguf.TokenType.NORMAL or (is_gpt2 and token == stop)
    }
    merges = [tuple(merge.split(" ", 1)) for merge in read["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=merges, ignore_merges=is_llama))
    tokenizer.decoder = decoders.ByteLevel()
    if is_gpt2:
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    else:
        (pattern,) = (key[0] for key, value in SPLITS.items() if value == name)
        splits = [Split(Regex(pattern), "isolated"), ByteLevel(False, use_regex=False)]
        tokenizer.pre_tokenizer = Sequence(splits)
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    control = [t for t in read["tokens"] if kinds[t] == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control or [stop]])
    if is_llama:
        special = [(start, tokenizer.token_to_id(start))]
        tokenizer.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=stop, bos_token=start, pad_token=stop
    )


def export_tiny(family: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """An exported random model of a family with this tokenizer."""
    wanted = PromptFormat(memory=MemoryConfig(blocks=3), templates=TemplatesConfig())
    add_memory_tokens(tokenizer, wanted.memory)
    scratch = ScratchConfig(family=family, layers=2, width=32, heads=2, max_positions=512)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = build_model(scratch, tokenizer, "sdpa")
    if family == "llama":
        model.config.rope_parameters = LLAMA3_ROPE
    save_trained(
        model, tokenizer, wanted, ModelConfig(scratch=scratch, tuning="full"), folder / "model"
    )
    return export_run(folder, folder / "exported").folder


def _fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def differences(ours: Path, official: Path) -> dict[str, Any]:
    """What one file has and the other has not or has otherwise."""
    readers = gguf.GGUFReader(ours), gguf.GGUFReader(official)
    own, other = (_fields(reader) for reader in readers)
    tensors, others = ({t.name: t for t in reader.tensors} for reader in readers)
    common = sorted(set(tensors) & set(others))
    return {
        "tensors": len(common),
        "tensors_of_one_alone": sorted(set(tensors) ^ set(others)),
        "largest_difference": {
            name: _difference(tensors[name], others[name])
            for name in common
            if tensors[name].tensor_type != others[name].tensor_type
            or not np.array_equal(tensors[name].data, others[name].data)
        },
        "fields": len(set(own) & set(other)),
        "fields_that_differ": sorted(k for k in set(own) & set(other) if own[k] != other[k]),
        "fields_of_ours_alone": sorted(set(own) - set(other)),
        "fields_of_the_official_alone": sorted(set(other) - set(own)),
    }


def _difference(one: gguf.ReaderTensor, other: gguf.ReaderTensor) -> float:
    values = [gguf.quants.dequantize(t.data, t.tensor_type) for t in (one, other)]
    return float(np.abs(values[0] - values[1]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path, help="folder of llama.cpp's source")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name, family in FAMILIES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            tokenizer = known_tokenizer(arguments.source / f"models/ggml-vocab-{name}.gguf")
            exported = export_tiny(family, tokenizer, folder)
            for weights in ("f32", "q8_0"):
                ours = write_gguf(exported, folder / f"{weights}.gguf", weights=weights).file
                official = folder / f"official-{weights}.gguf"
                script = arguments.source / "convert_hf_to_gguf.py"
                command = [sys.executable, script, exported, "--outfile", official]
                subprocess.run([*command, "--outtype", weights], check=True, capture_output=True)
                found[f"{name} {weights}"] = differences(ours, official)
    result = {"differences": found, "environment": environment()}
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
