"""Does the memory of a training grow with its data? Trains on files of several sizes, held and
streamed (`data.train.streaming`).

    python benchmarks/streaming.py [--examples 2000,8000,32000] [--out X]

Each training is a process of its own: it reads and checks the file, lays it out and takes a few
steps with a tiny model. Memory is the largest resident set of that process, the disk what it wrote
to the cache of layouts. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import yaml

from rim.results import environment, write_json

WORDS = ("the", "of", "sold", "bought", "apples", "pears", "had", "then", "gave", "each", "more")
RECIPE: dict[str, Any] = {
    "method": "rim",
    "model": {
        "scratch": {"layers": 1, "width": 16, "heads": 2, "vocab_size": 300},
        "tuning": "full",
        "readouts": "parallel",
    },
    "memory": {"blocks": 1, "tokens": 1},
    "stages": [
        {
            "name": "refinement",
            "objective": "answer",
            "max_steps": 5,
            "batch_size": 8,
            "micro_batch_size": 8,
            "learning_rate": 1e-3,
            "evaluate_every": 5,
        }
    ],
    "validation": {"num_examples": 4, "max_new_tokens": 2},
}


def write_questions(file: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    with file.open("w", encoding="utf-8") as out:
        for i in range(count):
            question = f"{seed}-{i}: {' '.join(draw.choices(WORDS, k=80))}?"
            out.write(json.dumps({"question": question, "answer": draw.randrange(100)}) + "\n")


def measure(folder: Path, count: int, streaming: bool) -> dict[str, Any]:
    """One training in a process of its own."""
    name = f"{count}-{streaming}"
    train, valid = folder / f"{count}.jsonl", folder / "valid.jsonl"
    if not train.exists():
        write_questions(train, count, 1)
        write_questions(valid, 4, 2)
    data = {
        "train": {"format": "jsonl", "path": str(train), "streaming": streaming},
        "validation": {"format": "jsonl", "path": str(valid)},
    }
    recipe = folder / f"{name}.yaml"
    settings = RECIPE | {"name": name, "runs_dir": str(folder / "runs"), "data": data}
    recipe.write_text(yaml.safe_dump(settings))
    cache = folder / f"cache-{name}"
    began = time.perf_counter()
    process = os.fork()
    if not process:
        os.environ["XDG_CACHE_HOME"] = str(cache)
        os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        command = "from rim.cli import app; app()"
        os.execv(sys.executable, [sys.executable, "-c", command, "train", str(recipe)])
    _, status, usage = os.wait4(process, 0)
    assert status == 0, (folder / "log").read_text()[-3000:]
    row = {
        "examples": count,
        "streaming": streaming,
        "file_bytes": train.stat().st_size,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "bytes_on_disk": sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(row, file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", default="2000,8000,32000")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    counts = [int(count) for count in args.examples.split(",")]
    with tempfile.TemporaryDirectory() as name:
        rows = [measure(Path(name), n, streaming) for n in counts for streaming in (True, False)]
    growth = {}
    for streaming in (True, False):
        first, *_, last = (row for row in rows if row["streaming"] == streaming)
        more = {key: last[key] - first[key] for key in ("peak_memory_bytes", "file_bytes")}
        growth["streamed" if streaming else "held"] = round(
            more["peak_memory_bytes"] / more["file_bytes"], 3
        )
    result = {
        "benchmark": "streaming",
        "memory_growth_a_byte_of_the_file": growth,
        "rows": rows,
        "environment": environment(),
    }
    print(json.dumps(result))
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
