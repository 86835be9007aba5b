"""A causal protocol on several runs of one task, in one JSON: what docs/evidence.md shows.

    python benchmarks/protocol_runs.py transplant RUN [RUN ...] [--pairs 120] [--seed 0] --out FILE

The questions are test questions of the task that the runs were trained on; `--set pool=5` changes
a knob of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rim.data.sources import load_examples, task_source
from rim.evaluate.protocols.running import lines_of, run_protocol, task_of
from rim.infer.reasoner import load
from rim.results import write_text


def on_run(
    protocol: Any, run: Path, pairs: int, seed: int, changes: Sequence[str]
) -> dict[str, Any]:
    source = task_of(run)
    assert source.task is not None
    knobs = source.task.model_dump() | {"split": "test", "num_examples": max(400, 2 * pairs)}
    source = task_source(source.format, knobs, tuple(changes))
    examples = load_examples(source)
    result = run_protocol(
        protocol, load(run, device="cpu"), examples, source, pairs=pairs, seed=seed
    )
    return {"run": run.name, **result}


def write_runs(path: Path, protocol: str, results: Sequence[dict[str, Any]]) -> None:
    """A run on each line, and of what was transplanted only whole parts and what a verdict names:
    keys, values and layers of every part make a file of many runs too large to keep.
    """
    lines = []
    for result in results:
        if "carriers" in result:
            named = {v["carrier"] for v in result["verdicts"]}
            named |= {
                row["carrier"] for v in result["verdicts"] for row in v.get("by_step", {}).values()
            }
            kept = [c for c in result["carriers"] if is_whole(c) or c["name"] in named]
            result = result | {"carriers": kept}
        lines.append(json.dumps(result, ensure_ascii=False))
    runs = ",\n".join(lines)
    write_text(path, f'{{"protocol": {json.dumps(protocol)}, "runs": [\n{runs}\n]}}\n')


def is_whole(carrier: dict[str, Any]) -> bool:
    return carrier["keys"] and carrier["values"] and carrier["layers"] is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("protocol", choices=["transplant", "interchange", "content"])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for run in arguments.runs:
        results.append(
            on_run(arguments.protocol, run, arguments.pairs, arguments.seed, arguments.set)
        )
        for line in lines_of(results[-1]):
            print(f"{run.name}: {line}", flush=True)
        write_runs(arguments.out, arguments.protocol, results)
    print(json.dumps({"out": str(arguments.out), "runs": len(results)}))


if __name__ == "__main__":
    main()
