"""All K answers from one prefill against the final one alone, and against K generations.

    RIM_DATA=... python benchmarks/all_answers.py [--out X]

A random model, so answers are of full length. One thread, processor time, the three taking turns;
medians. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from rim.config.recipe_yaml import load_recipe
from rim.core.tokens import PromptEncoder
from rim.data.training import load_training_data
from rim.infer.decode import generate
from rim.models.loading import load_base
from rim.results import environment, write_json
from rim.study.bench.timing import timed

BLOCKS, NEW_TOKENS = 8, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "gsm8k_tiny.yaml")
    train_set, _ = load_training_data(recipe.data, 0)
    scratch = recipe.model.scratch
    assert scratch is not None
    sizes = {"layers": args.layers, "width": args.width}
    config = recipe.model.model_copy(update={"scratch": scratch.model_copy(update=sizes)})
    texts = (recipe.templates.question_text(x.question) for x in train_set[:2000])
    model, tokenizer = load_base(config, recipe.prompt_format, texts, 0)
    model.eval()
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    questions = [x.question for x in train_set[: args.questions]]
    seconds = seconds_of(model, encoder, questions, args.repeats)
    result = {
        "benchmark": "all_answers",
        "parameters": sum(p.numel() for p in model.parameters()),
        "questions": args.questions,
        "blocks": BLOCKS,
        "new_tokens": NEW_TOKENS,
        **seconds,
        "environment": environment(),
    }
    print(json.dumps(result))
    if args.out:
        write_json(args.out, result)


def seconds_of(
    model: Any, encoder: PromptEncoder, questions: list[str], repeats: int
) -> dict[str, Any]:
    """Median seconds of each way (the processor's on a CPU, the clock's elsewhere), and ratios."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    options = {"max_new_tokens": NEW_TOKENS}
    variants = {
        "final": lambda: generate(model, encoder, questions, blocks=BLOCKS, **options),
        "all": lambda: generate(model, encoder, questions, blocks=BLOCKS, after="all", **options),
        "one_by_one": lambda: [
            generate(model, encoder, questions, blocks=k, **options) for k in range(1, BLOCKS + 1)
        ],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            milliseconds, _ = timed(run, model.device, clock)
            if turn:  # the first warms up
                seconds[name].append(milliseconds / 1000)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": median,
        "all_to_final": median["all"] / median["final"],
        "times_faster_than_one_by_one": median["one_by_one"] / median["all"],
    }


if __name__ == "__main__":
    main()
