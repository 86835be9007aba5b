"""How long it takes to look inside a run, command by command: what docs/inside.md shows.

    python benchmarks/inside_times.py RUN --out results/inside_times.json [--keep results]

Every command is the one that a person would type, in a process of its own with one thread; wall
time and processor time are those of the whole process, imports included. On a busy machine the
processor time is the one to look at. With --keep the commands' results are copied to a folder as
inside_NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rim.data.sources import data_hash, load_examples, task_source, write_file
from rim.evaluate.protocols.running import task_of
from rim.models.folder import find_model_dir, read_prompt_format
from rim.results import environment, write_json

#: Questions of each file. Nothing is trained or chosen on the last: probes are scored on it.
COUNTS = {"validation": 300, "test": 600, "other": 600}


def write_data(run: Path, folder: Path) -> dict[str, Path]:
    """Fresh questions of the task that the run was trained on, no question in two files."""
    source = task_of(run)
    assert source.task is not None
    files = {}
    for split, names in (("validation", ["validation"]), ("test", ["test", "other"])):
        total = sum(COUNTS[name] for name in names)
        knobs = source.task.model_dump() | {"split": split, "num_examples": total}
        examples = load_examples(task_source(source.format, knobs))
        for name in names:
            own, examples = examples[: COUNTS[name]], examples[COUNTS[name] :]
            files[name] = folder / f"{name}.jsonl"
            write_file(files[name], own)
            print(f"{name}: {len(own)} questions, {data_hash(own)}")
    return files


def commands(run: Path, files: dict[str, Path], page: Path) -> dict[str, list[object]]:
    """By name; the order is the one in which each finds what it needs."""
    test, validation, other = files["test"], files["validation"], files["other"]
    with test.open(encoding="utf-8") as lines:
        first = json.loads(next(lines))["question"]
    return {
        "transplant": ["controls", run, test, "--protocol", "transplant", "--overwrite"],
        "analysis": ["analyze", run, test, "--overwrite"],
        "faithfulness": ["explain", run, "--data", other, "--overwrite"],
        "calibration": ["eval", run, validation, "--select", "all", "--calibrate", "--overwrite"],
        "selection": ["eval", run, other, "--select", "all", "--overwrite"],
        "interchange": ["controls", run, test, "--protocol", "interchange", "--overwrite"],
        "content": ["controls", run, test, "--protocol", "content", "--overwrite"],
        "controls": ["controls", run, test, "--overwrite"],
        "explain": ["explain", run, first],
        "eval": ["eval", run, test, "--blocks", "1,2,3,4,5", "--overwrite"],
        "report": ["report", run, "--out", page],
    }


#: Where a command leaves the result that is kept, below the run folder.
RESULTS = {
    "controls": "controls/test-k{blocks}.json",
    "transplant": "controls/transplant-test-k{blocks}.json",
    "interchange": "controls/interchange-test-k{blocks}.json",
    "content": "controls/content-test-k{blocks}.json",
    "analysis": "analysis/test/analysis.json",
    "selection": "evaluations/other-k{blocks}.json",
    "faithfulness": "explain/other-k{blocks}.json",
}


def timed(command: list[object]) -> dict[str, Any]:
    """Wall and processor seconds of one command of ours, which must succeed."""
    words = [sys.executable, "-c", "from rim.cli import app; app()", *map(str, command)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"rim {' '.join(map(str, command))} ended with {done.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": round(wall, 1), "processor_seconds": round(spent, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    run = arguments.run.resolve()
    blocks = read_prompt_format(find_model_dir(run)).trained_blocks
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_data(run, folder)
        record: dict[str, Any] = {
            "run": run.name,
            "questions": COUNTS,
            "commands": {},
            "environment": environment(),
        }
        rows = record["commands"]
        for name, command in commands(run, files, run / "report.html").items():
            print(f"--- {name}", flush=True)
            shown = " ".join(Path(str(w)).name if isinstance(w, Path) else str(w) for w in command)
            rows[name] = {"command": f"rim {shown}", **timed(command)}
            spent = sum(row["processor_seconds"] for row in rows.values())
            write_json(arguments.out, record | {"total_processor_seconds": round(spent, 1)})
            if arguments.keep is not None and name in RESULTS:
                kept = arguments.keep / f"inside_{name}.json"
                shutil.copyfile(run / RESULTS[name].format(blocks=blocks), kept)
    print(json.dumps({"out": str(arguments.out), "commands": len(rows)}))


if __name__ == "__main__":
    main()
