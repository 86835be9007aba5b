"""Laying out a data set of GSM8K-Aug's size: time, memory, and the second time from disk.

    RIM_DATA=... python benchmarks/laying_out.py [--examples 386000] [--out X]

Questions are GSM8K's, each time with another number before them, so that no text recurs. The cache
goes to a temporary folder. Processor seconds of one process; memory is its largest resident set,
examples included. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rim.config.recipe_yaml import load_recipe
from rim.core.layout import lay_out
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import Example
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.models.scratch import train_tokenizer
from rim.results import environment, write_json
from rim.train.layout_store import store_layouts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=386_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "gsm8k_tiny.yaml")
    train_set, _ = load_training_data(recipe.data, 0)
    tokenizer = train_tokenizer((e.question for e in train_set), 2048)
    add_memory_tokens(tokenizer, recipe.memory)
    examples = []
    for i in range(args.examples):
        old = train_set[i % len(train_set)]
        examples.append(Example(f"{i}: {old.question}", old.steps, old.answer))
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        encoder = PromptEncoder(tokenizer, recipe.prompt_format)
        for stage in recipe.stages:
            for kind in ("first", "again"):
                began = time.process_time()
                layouts = (lay_out(METHODS["rim"], e, stage, encoder) for e in examples)
                stored = store_layouts(layouts, examples, stage, encoder)
                rows.setdefault(stage.name, {})[kind] = time.process_time() - began
            rows[stage.name]["tokens"] = int(stored.column("end")[-1])
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    result = {
        "benchmark": "laying_out",
        "examples": len(examples),
        "processor_seconds": rows,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes_on_disk": size,
        "environment": environment(),
    }
    print(json.dumps(result))
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
