"""A folder that is the hub to whoever stands in it: data sets and models under their hub names, in
the hub's own file formats, with few rows and tiny random weights. Nothing but the download differs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch

from rim.config import ScratchConfig
from rim.models.scratch import build_model, train_tokenizer

MODELS = {
    "openai-community/gpt2": "gpt2",
    "meta-llama/Llama-3.2-1B": "llama",
    "meta-llama/Llama-3.2-3B": "llama",
    "Qwen/Qwen3-0.6B-Base": "qwen3",
}


def sum_of(first: int, second: int) -> tuple[str, list[str], str]:
    """Question, steps and answer of a problem like GSM8K's."""
    question = f"Tom has {first} apples and buys {second} bags of 2. How many apples has he?"
    steps = [f"<<{second}*2={2 * second}>>", f"<<{first}+{2 * second}={first + 2 * second}>>"]
    return question, steps, str(first + 2 * second)


TRAINING = [sum_of(a, b) for a in range(3, 9) for b in range(2, 10)]
TESTING = [sum_of(a, b) for a in range(20, 23) for b in range(2, 5)]


def write_card(folder: Path, configs: list[dict]) -> None:
    """The README.md that tells the hub's loader which files are which split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")


def files_of(**splits: str) -> list[dict]:
    return [{"split": split, "path": path} for split, path in splits.items()]


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_data_sets(root: Path) -> None:
    shard = "-00000-of-00001.parquet"
    folder = root / "whynlp/gsm8k-aug"
    splits = {"train": TRAINING, "validation": TRAINING[:2], "test": TESTING}
    write_card(
        folder,
        [
            {
                "config_name": "default",
                "data_files": files_of(**{s: f"data/{s}-*" for s in splits}),
            }
        ],
    )
    for split, problems in splits.items():
        rows = [{"question": q, "steps": s, "answer": a} for q, s, a in problems]
        write_table(folder / f"data/{split}{shard}", rows)

    folder = root / "zen-E/GSM8k-Aug"
    names = {"train": "train.jsonl", "test": "test.jsonl"}
    write_card(folder, [{"config_name": "default", "data_files": files_of(**names)}])
    for split, name in names.items():
        rows = [{"question": q, "cot": " ".join(s), "answer": a} for q, s, a in splits[split]]
        write_lines(folder / name, rows)

    folder = root / "openai/gsm8k"
    write_card(folder, [{"config_name": "main", "data_files": files_of(test="main/test-*")}])
    rows = [{"question": q, "answer": f"He buys {s[0]}.\n#### {a}"} for q, s, a in TESTING]
    write_table(folder / f"main/test{shard}", rows)

    folder = root / "reasoning-machines/gsm-hard"
    write_card(
        folder, [{"config_name": "default", "data_files": files_of(train="gsmhardv2.jsonl")}]
    )
    rows = [{"input": q, "code": "def solution(): ...", "target": float(a)} for q, _, a in TESTING]
    write_lines(folder / "gsmhardv2.jsonl", rows)

    for name, rows in {
        "ChilleD/SVAMP": [
            {
                "ID": f"chal-{i}",
                "Body": "Ann has 3 pens",
                "Question": f"Is {i} more?",
                "Answer": "3",
            }
            for i in range(4)
        ],
        "ChilleD/MultiArith": [
            {"question": f" Eva baked {i} cakes. How many? ", "final_ans": str(i)} for i in range(4)
        ],
    }.items():
        folder = root / name
        both = {"train": "train.jsonl", "test": "test.jsonl"}
        write_card(folder, [{"config_name": "default", "data_files": files_of(**both)}])
        write_lines(folder / "train.jsonl", rows[:3])
        write_lines(folder / "test.jsonl", rows[3:])


def write_models(root: Path) -> None:
    texts = [f"{q}\n{' '.join(s)} #### {a}" for q, s, a in TRAINING]
    for name, family in MODELS.items():
        tokenizer = train_tokenizer(texts, 300)
        scratch = ScratchConfig(family=family, layers=2, width=32, heads=2, max_positions=512)  # type: ignore[arg-type]
        torch.manual_seed(0)
        build_model(scratch, tokenizer, "sdpa").save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
