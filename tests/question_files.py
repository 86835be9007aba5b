"""Small files in published formats, whose gold answers a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

NUMBERS = ("7", "12", "1,250", "0.5", "-3", "40")


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
