"""What a budget per question is worth: blocks by difficulty, and a router to chain of thought.

Two trained runs of the demo's task are exported, written as GGUF and served by llama.cpp, one
thread each. Every question is asked once with every number of blocks and once of the
chain-of-thought model; the policies are then worked out on these answers and times. Blocks and
confidence are chosen on validation questions; what is reported is the test set's.

    python benchmarks/budget.py runs/demo-seed0/rim runs/demo-seed0/cot --out results/budget.json

Needs llama-server (`make llama-server`). Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import llama_server
from rich.console import Console
from running_server import client_of, running

from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples, task_source
from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.serve import Client, calibrate_blocks, calibrate_confidence
from rim.deploy.serve.routing import probability
from rim.evaluate.statistics import share
from rim.infer.answers import grade
from rim.infer.reasoner import Reasoner, load
from rim.results import environment, write_json
from rim.train.callbacks import progress_bar

#: No prompt is kept from an earlier request: every question pays for its own prefill.
FLAGS = ("--threads", "1", "--parallel", "1", "--no-cache-prompt")
LOSS = 0.01


@dataclass(frozen=True)
class Asked:
    """One model's answers to some questions; only the first model of a router has probabilities."""

    right: list[bool] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


#: What is asked: a number of blocks, or the other model.
SLOW = "chain of thought"


def ask_all(
    fast: tuple[Client, Reasoner],
    slow: tuple[Client, Reasoner],
    examples: Sequence[Example],
    advance: Callable[[], None],
) -> dict[int | str, Asked]:
    """Every question of every number of blocks and of the slow model, as `Router` asks them.

    Who begins changes with each question.
    """
    asked = {turn: Asked() for turn in (*range(fast[1].trained_blocks + 1), SLOW)}
    turns = list(asked)
    for number, example in enumerate(examples):
        first = number % len(turns)
        for turn in turns[first:] + turns[:first]:
            client, reasoner = slow if turn == SLOW else fast
            options = {} if turn == SLOW else {"blocks": turn, "logprobs": True}
            answer = client.ask(example.question, max_new_tokens=64, **options)
            asked[turn].right.append(
                grade(answer.text, example, reasoner.encoder, finished=answer.finished)
            )
            asked[turn].milliseconds.append(answer.answer_ms)
            if turn != SLOW:
                asked[turn].probability.append(probability(answer))
        advance()
    return asked


def operations(question: str) -> int:
    """How hard a chain is, told from the question alone."""
    return sum(question.count(sign) for sign in "+-")


def summary(right: Sequence[bool], milliseconds: Sequence[float]) -> dict[str, Any]:
    return {
        **share(right),
        "mean_ms": round(statistics.fmean(milliseconds), 2),
        "median_ms": round(statistics.median(milliseconds), 2),
    }


def routed(first: Asked, second: Asked, confidence: float) -> dict[str, Any]:
    """A router's accuracy and time, from the answers of both models."""
    believed = [p >= confidence for p in first.probability]
    rows = list(zip(believed, first.right, second.right, strict=True))
    waits = zip(believed, first.milliseconds, second.milliseconds, strict=True)
    return {
        **summary(
            [a if sure else b for sure, a, b in rows],
            [a if sure else a + b for sure, a, b in waits],
        ),
        "confidence": confidence if math.isfinite(confidence) else None,  # None: never believed
        "second_asked": 1 - sum(believed) / len(believed),
    }


def by_level(asked: dict[int, Asked], levels: Sequence[int], chosen: dict[Any, int]) -> Asked:
    """Each question with the number of blocks of its level."""
    picked = [(asked[chosen[level]], i) for i, level in enumerate(levels)]
    return Asked(
        [a.right[i] for a, i in picked],
        [a.probability[i] for a, i in picked],
        [a.milliseconds[i] for a, i in picked],
    )


def policies(
    validation: dict[int | str, Asked],
    test: dict[int | str, Asked],
    levels: tuple[list[int], list[int]],
    trained: int,
) -> dict[str, Any]:
    """Everything chosen on validation questions and reported on the test's."""
    slow = test.pop(SLOW)
    slow_right = validation.pop(SLOW).right
    marks = {int(k): asked.right for k, asked in validation.items()}
    chosen = calibrate_blocks(levels[0], marks, loss=LOSS)
    first = validation[trained]
    confidence = calibrate_confidence(first.probability, first.right, slow_right, loss=LOSS)
    blocks = {int(k): asked for k, asked in test.items()}
    adaptive = by_level(blocks, levels[1], chosen)
    return {
        "fixed": {k: summary(a.right, a.milliseconds) for k, a in blocks.items()},
        "chain_of_thought": summary(slow.right, slow.milliseconds),
        "by_level": summary(adaptive.right, adaptive.milliseconds)
        | {
            "blocks": {str(level): k for level, k in sorted(chosen.items())},
            "mean_blocks": statistics.fmean(chosen[level] for level in levels[1]),
        },
        "router": routed(blocks[trained], slow, confidence),
        "router_curve": [
            routed(blocks[trained], slow, c) for c in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
        ],
        "accuracy_by_level": {
            str(level): {
                k: statistics.fmean(
                    right for right, at in zip(a.right, levels[1], strict=True) if at == level
                )
                for k, a in blocks.items()
            }
            for level in sorted(set(levels[1]))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("rim", type=Path, help="run with memory blocks")
    parser.add_argument("cot", type=Path, help="chain-of-thought run on the same task")
    parser.add_argument("--questions", type=int, default=500, help="test questions")
    parser.add_argument("--validation", type=int, default=300, help="validation questions")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    llama_server.program("llama-server")  # ends here where there is none
    splits = [
        load_examples(task_source("arithmetic", {"num_examples": count, "split": split}))
        for split, count in (("validation", arguments.validation), ("test", arguments.questions))
    ]
    levels = tuple([operations(example.question) for example in part] for part in splits)
    with tempfile.TemporaryDirectory() as temporary:
        files = {}
        for name in ("rim", "cot"):
            exported = export_run(getattr(arguments, name), Path(temporary) / name).folder
            files[name] = write_gguf(exported, exported / f"{name}.gguf").file
        fast, slow = load(arguments.rim, device="cpu"), load(arguments.cot, device="cpu")
        with (
            running(files["rim"], "llama.cpp", FLAGS) as rim_server,
            running(files["cot"], "llama.cpp", FLAGS) as cot_server,
            progress_bar(Console(stderr=True)) as bar,
        ):
            task = bar.add_task("questions", total=sum(map(len, splits)), note="")
            clients = (client_of(rim_server), fast), (client_of(cot_server), slow)
            for client, _ in clients:
                client.ask(splits[0][0].question)  # the first answer of a server is slow
            asked = [ask_all(*clients, part, lambda: bar.advance(task)) for part in splits]
    result = {
        **policies(asked[0], asked[1], (levels[0], levels[1]), fast.trained_blocks),
        "trained_blocks": fast.trained_blocks,
        "loss": LOSS,
        "questions": {
            split: {"examples": len(part), "hash": data_hash(part)}
            for split, part in zip(("validation", "test"), splits, strict=True)
        },
        "flags": " ".join(FLAGS),
        "environment": environment(),
    }
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
