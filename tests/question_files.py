"""Small files in published formats, whose gold answers a test chooses; examples of a task; the rows
of a JSONL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rim.data.sources import load_examples, task_source

NUMBERS = ("7", "12", "1,250", "0.5", "-3", "40")


def examples_of(task, *overrides, num_examples=150, split="train", seed=0):
    knobs = {"num_examples": num_examples, "split": split, "seed": seed}
    return load_examples(task_source(task, knobs, overrides))


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def gsm8k_file(folder: Path, answers: Sequence[str] = NUMBERS) -> Path:
    lines = [
        {"question": f"How many are {i} and 4? ", "answer": f"Well, <<{i}+4={a}>>{a}.\n#### {a}"}
        for i, a in enumerate(answers)
    ]
    path = folder / "gsm8k.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def svamp_file(folder: Path, answers: Sequence[str] = NUMBERS) -> Path:
    records = [
        {"Body": f"There are {i} pears", "Question": "How many? ", "Answer": a}
        for i, a in enumerate(answers)
    ]
    path = folder / "svamp.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path
