"""What a training step costs: packed rows against one row an example, against plain language
modelling on as many tokens, and all read-outs in one pass against one sequence each.

    RIM_DATA=... python benchmarks/training_step.py --layers 8 --width 96 [--batch 128] [--out X]

One thread, processor time, the variants taking turns in one run; the medians' ratios count, not
the seconds. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from rim.config.recipe_yaml import load_recipe
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layout import Layout, lay_out
from rim.core.readout_weights import readout_weights
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.models.loading import load_base
from rim.results import environment, write_json
from rim.study.bench.timing import timed

EXAMPLES = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3, help="0: only how full the rows are")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "gsm8k_tiny.yaml")
    train_set, _ = load_training_data(recipe.data, 0)
    scratch = recipe.model.scratch
    assert scratch is not None
    sizes = {"layers": args.layers, "width": args.width}
    config = recipe.model.model_copy(update={"scratch": scratch.model_copy(update=sizes)})
    texts = (recipe.templates.question_text(x.question) for x in train_set)
    model, tokenizer = load_base(config, recipe.prompt_format, texts, 0)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    step = functools.partial(rim_step, model, torch.optim.AdamW(model.parameters(), 1e-4))
    rows = stage_rows(
        step, encoder, recipe.stages, train_set[:EXAMPLES], args.batch, args.repeats, args.compile
    )
    if args.repeats:
        rows["separate_sequences"] = separate(encoder, recipe.stages[1], step, args.repeats)
    result = {
        "benchmark": "training_step",
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": args.batch,
        "threads": 1,
        "rows": rows,
        "environment": environment(),
    }
    print(json.dumps(result))
    if args.out:
        write_json(args.out, result)


def stage_rows(
    step: Any,
    encoder: Any,
    stages: Sequence[Any],
    examples: Sequence[Example],
    batch: int,
    repeats: int,
    compile_too: bool = False,
) -> dict[str, Any]:
    """For each stage: how full rows are, and what the variants of a step take.

    Args:
        step: `rim_step` with its model and optimizer.
    """
    model, optimizer = step.args
    rows: dict[str, Any] = {}
    for stage in stages:
        layouts = [lay_out(METHODS["rim"], e, stage, encoder) for e in examples]
        rows[stage.name] = filled(layouts, batch)
        if not repeats:
            continue
        chosen = layouts[:batch]
        step(collate(chosen[:8]), stage, encoder)  # warms up
        packed = collate(chosen, pack=True)
        variants: dict[str, Callable[[], None]] = {
            "one_row_each": lambda s=stage, c=chosen: step(collate(c), s, encoder),
            "packed": lambda s=stage, c=chosen: step(collate(c, pack=True), s, encoder),
            "packed_bf16": lambda s=stage, c=chosen: step(
                collate(c, pack=True), s, encoder, bf16=True
            ),
            "language_modelling": functools.partial(
                language_modelling, model, optimizer, packed["input_ids"].shape
            ),
        }
        if compile_too:
            compiled = torch.compile(model, dynamic=True)
            again = functools.partial(rim_step, compiled, optimizer)
            variants["packed_compiled"] = lambda s=stage, c=chosen, f=again: f(
                collate(c, pack=True), s, encoder
            )
        seconds = take_turns(variants, repeats, model.device)
        plain = seconds["language_modelling"] / packed["input_ids"].numel()
        rows[stage.name] |= {
            "seconds": seconds,
            "packed_to_one_row_each": seconds["packed"] / seconds["one_row_each"],
            "bf16_to_float32": seconds["packed_bf16"] / seconds["packed"],
            "tokens_per_second_to_language_modelling": plain
            / (seconds["packed"] / sum(len(x.fields_TF) for x in chosen)),
        }
        if compile_too:
            rows[stage.name]["compiled_to_not"] = seconds["packed_compiled"] / seconds["packed"]
    return rows


def filled(layouts: list[Layout], batch: int) -> dict[str, float]:
    """Share of the positions that carry an example, mean over batches."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for first in range(0, len(layouts) - batch + 1, batch):
        for pack, found in shares.items():
            ids = collate(layouts[first : first + batch], pack=pack)["input_ids"]
            found.append(float((ids >= 0).float().mean()))
    return {
        "filled_one_row_each": statistics.fmean(shares[False]),
        "filled_packed": statistics.fmean(shares[True]),
    }


def rim_step(
    model: Any, optimizer: Any, batch: Any, stage: Any, encoder: Any, bf16: bool = False
) -> None:
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    weights_BR = readout_weights(
        stage.weighting,
        batch["num_readouts"],
        batch["num_step_readouts"],
        width=batch["target_counts"].shape[1],
        max_readouts=9,
        progress=0.0,
    )
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        loss = forward_readouts(model, batch, encoder.format.memory, weights_BR)
    loss.per_example_B.mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def language_modelling(model: Any, optimizer: Any, shape: torch.Size) -> None:
    """What transformers' Trainer does with full rows: no mask, the model's own loss everywhere."""
    ids = torch.randint(0, model.config.vocab_size, shape, device=model.device)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def separate(encoder: Any, stage: Any, step: Any, repeats: int) -> dict[str, float]:
    """Stage 2, K = 8, questions of 64 tokens: one pass with all read-outs, and K sequences."""
    model, optimizer = step.args
    word = " a"
    question = word * 200
    while len(encoder.question(question, True)[0]) > 64:
        question = question.removesuffix(word)
    example = Example(question, ("1+1=2",), "42")
    layouts = [lay_out(METHODS["rim"], example, stage, encoder)] * 8
    answer = encoder.answer_ids("42")
    prompts = [encoder.prompt_ids(question, k) for k in range(1, 9)] * 8
    width = len(prompts[7]) + len(answer)
    ids, labels = torch.zeros(64, width, dtype=torch.long), torch.full((64, width), -100)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)

    ids, labels = ids.to(model.device), labels.to(model.device)

    def one_sequence_each() -> None:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        F.cross_entropy(logits[labels[:, 1:] >= 0], labels[:, 1:][labels[:, 1:] >= 0]).backward()
        optimizer.step()
        optimizer.zero_grad()

    variants = {
        "parallel": lambda: step(collate(layouts, pack=True), stage, encoder),
        "separate": one_sequence_each,
    }
    seconds = take_turns(variants, repeats, model.device)
    tokens = len(encoder.question(question, True)[0])
    return {
        "question_tokens": tokens,
        **seconds,
        "times_faster": seconds["separate"] / seconds["parallel"],
    }


def take_turns(
    variants: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each: the processor's on a CPU, the clock's elsewhere."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            seconds[name].append(timed(run, device, clock)[0] / 1000)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
