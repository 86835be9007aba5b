"""How far shortcuts get in the tasks whose steps have values: a part of the question looked up.

A shortcut sees one feature of a question (the last number, one hop, one row), and answers what was
most frequent with that feature among training questions. A task that wants its steps taken leaves
each near the most frequent answer. Prints one JSON line last.

    python benchmarks/task_shortcuts.py [--examples 2000] [--seed 0] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples, task_source
from rim.results import environment, write_json

Feature = Callable[[Example], Hashable]


def _numbers(example: Example) -> list[str]:
    return re.findall(r"\d+", example.question)


def _pairs(example: Example) -> list[str]:
    return re.findall(r"\b[a-z]{2}\b", example.question)


def _result(step: str) -> str:
    return step.partition("=")[2] or step[-1]


_ALL: dict[str, Feature] = {
    "nothing (the most frequent answer)": lambda e: 0,
    "number of steps": lambda e: len(e.steps),
    "value after the first step": lambda e: _result(e.steps[0]),
}
FEATURES: dict[str, dict[str, Feature]] = {
    "arithmetic": {
        "last number": lambda e: _numbers(e)[-1],
        "first and last number": lambda e: (_numbers(e)[0], _numbers(e)[-1]),
    },
    "pointers": {
        "who is asked about, and how far": lambda e: e.question.rpartition(":")[2],
        "first and last arrow": lambda e: (_pairs(e)[0], _pairs(e)[-1]),
    },
    "brackets": {
        "value of the last bracket": lambda e: _result(e.steps[-1]),
        "last number": lambda e: _numbers(e)[-1],
    },
    "prefix_counts": {
        "last chunk": lambda e: e.question.removesuffix("=").split()[-1],
        "value before the last chunk": lambda e: e.steps[-2],
    },
    "pair_matching": {
        "number of different digits": lambda e: len(set("".join(_numbers(e)))),
        "first row": lambda e: e.steps[0],
        "first and last item": lambda e: (_numbers(e)[0], _numbers(e)[-1]),
    },
}
#: What is measured, row by row: a task and its knobs. The last two are those of
#: recipes/compare_long_counts.yaml and recipes/compare_pairs.yaml.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "arithmetic": ("arithmetic", {"start": "last"}),
    **{task: (task, {}) for task in FEATURES if task != "arithmetic"},
    "long counts": (
        "prefix_counts",
        {"modulus": 4, "chunk": 3, "min_chunks": 10, "max_chunks": 10},
    ),
    "pairs, target last": (
        "pair_matching",
        {
            **{"min_items": 6, "max_items": 6, "digits": 1, "modulus": 10, "max_pairs": 3},
            **{"ask": "count", "target": "last", "steps": "partners"},
        },
    ),
}


def share_right(feature: Feature, train: Sequence[Example], test: Sequence[Example]) -> float:
    """Accuracy of the answer that was most frequent with a feature; where it never occurred, of the
    most frequent answer of all.
    """
    seen: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for example in train:
        seen[feature(example)][example.answer] += 1
    overall = Counter(example.answer for example in train)

    def guess(example: Example) -> str:
        return seen.get(feature(example), overall).most_common(1)[0][0]

    return sum(guess(example) == example.answer for example in test) / len(test)


def measure(row: str, examples: int, seed: int) -> dict[str, Any]:
    task, knobs = ROWS[row]
    knobs = knobs | {"seed": seed}
    train, test = (
        load_examples(task_source(task, {**knobs, "num_examples": count, "split": split}))
        for count, split in ((10 * examples, "train"), (examples, "test"))
    )
    features = {**_ALL, **FEATURES[task]}
    right = {name: round(share_right(f, train, test), 4) for name, f in features.items()}
    return {
        "examples": len(test),
        "hash": data_hash(test),
        "answers": len({example.answer for example in test}),
        "right": right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    tasks = {row: measure(row, arguments.examples, arguments.seed) for row in ROWS}
    result = {"seed": arguments.seed, "tasks": tasks, "environment": environment()}
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
