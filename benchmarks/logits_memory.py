"""Peak memory of a read-out loss over a large vocabulary: logits of all positions, of the target
positions, and of these in chunks.

    python benchmarks/logits_memory.py [--out X]

Each in a process of its own, on a model of one layer: the growth of the largest resident set (as
the kernel counts it) from before the step to its end, forward and backward. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rim.config import MemoryConfig
from rim.core.collate import collate
from rim.core.forward import MOST_LOGITS, forward_readouts
from rim.core.layout import Trunk, build_layout
from rim.core.losses import readout_loss, token_loss
from rim.methods.base import Readout
from rim.results import environment, write_json

VOCABULARY, EXAMPLES, BLOCKS, TARGETS, QUESTION = 128_256, 8, 8, 8, 64
KINDS = ("all_positions", "target_positions", "chunks")


def measure(kind: str) -> int:
    """Bytes by which the process grew at most."""
    torch.set_num_threads(1)
    step = prepare(kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def prepare(kind: str, device: str = "cpu", vocabulary: int = VOCABULARY) -> Callable[[], None]:
    """One forward and backward pass of a kind, its model and batch in place."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).to(device)
    for parameter in model.parameters():  # theirs is no memory of the logits
        parameter.grad = torch.zeros_like(parameter)
    trunk = Trunk.build(range(QUESTION), (1, 2, 2, 3), BLOCKS)
    targets = tuple(range(10, 10 + TARGETS))
    layout = build_layout(trunk, [Readout(k, targets) for k in range(1, BLOCKS + 1)])
    batch = {name: x.to(device) for name, x in collate([layout] * EXAMPLES).items()}
    weights_BR = torch.ones(EXAMPLES, BLOCKS, device=device)

    def step() -> None:
        if kind == "all_positions":
            ids = batch["input_ids"].long().clamp(min=0)
            logits = model(input_ids=ids, use_cache=False).logits
            targets = logits.flatten(0, 1)[batch["target_positions"]]
            tokens = token_loss(targets, batch["target_ids"])
            loss = readout_loss(tokens, batch["target_cells"], batch["target_counts"], weights_BR)
        else:
            chunk = MOST_LOGITS // vocabulary if kind == "chunks" else None
            loss = forward_readouts(model, batch, MemoryConfig(), weights_BR, chunk=chunk)
        loss.per_example_B.sum().backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.kind:
        print(measure(args.kind))
        return
    peak = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak[kind] = int(shown.split()[-1])
    result = {
        "benchmark": "logits_memory",
        "vocabulary": VOCABULARY,
        "examples": EXAMPLES,
        "readouts": BLOCKS,
        "targets_each": TARGETS,
        "question_tokens": QUESTION,
        "peak_bytes": peak,
        "to_all_positions": {k: round(v / peak["all_positions"], 3) for k, v in peak.items()},
        "environment": environment(),
    }
    print(json.dumps(result))
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
