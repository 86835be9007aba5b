"""Is anything lost? Stops a training at random moments, inside saves too, and lets it continue.

    python benchmarks/crash.py [--stops 20] [--seed 0] [--out FILE]

A small model is trained once without a stop, and then once for each of kill -9, SIGINT (Ctrl-C) and
SIGTERM: stopped so many times, continued with `rim train --resume` every time. Its weights, and the
last word of its log on every step, must be those of the first, bit for bit (on one CPU). Exits with
1 if they are not. Prints one JSON line last.

Says after every stop how many are done. A signal that is finished is written to --out, and the same
command goes on with the others.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import torch
import yaml

import rim.train.curriculum  # noqa: F401 (imported before the processes are forked)
from rim.cli import app
from rim.results import environment, read_json, write_json
from rim.train.checkpoints import ASIDE

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
RECIPE: dict[str, Any] = {
    "method": "rim",
    "data": {
        "train": {"format": "arithmetic", "arithmetic": {"num_examples": 64}},
        "validation": {
            "format": "arithmetic",
            "arithmetic": {"num_examples": 8, "split": "validation"},
        },
    },
    "model": {
        "scratch": {"layers": 2, "width": 32, "heads": 2, "vocab_size": 16, "alphabet": "data"},
        "tuning": "full",
    },
    "memory": {"blocks": 5},
    "templates": {"question": "{question}", "answer": "{answer}", "step_separator": ";"},
    "validation": {"num_examples": 8, "max_new_tokens": 4},
}
STAGE = {"max_steps": 60, "batch_size": 8, "learning_rate": 1e-3, "evaluate_every": 3}
STAGES = [
    {"name": "grounding", "objective": "steps", "dropout": 0.1, "micro_batch_size": 4} | STAGE,
    {"name": "refinement", "objective": "answer", "trainer": {"logging_steps": 7}} | STAGE,
]


def start(recipe: Path, folder: Path, log: Path) -> int:
    """`rim train` in a process of its own, as a person continues it; its number."""
    resume = ["--resume"] if (folder / "config.yaml").exists() else []
    process = os.fork()
    if process:
        return process
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    try:
        app(["train", str(recipe), *resume])
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException as error:
        print("UNEXPECTED", repr(error), flush=True)
        os._exit(99)
    os._exit(0)


def wait(process: int) -> int:
    """Exit code as a shell gives it."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code >= 0 else 128 - code


def stop(
    process: int, number: signal.Signals, folder: Path, draw: random.Random, within: float
) -> int | None:
    """Send a signal at a random moment, every second time inside a save; the exit code, None where
    the run had ended before, or could end all the same.
    """
    until = time.monotonic() + draw.uniform(0, within)
    inside, delay = draw.random() < 0.5, draw.uniform(0, 0.02)
    while time.monotonic() < until or (inside and not any(folder.glob(f"stages/*/{ASIDE}"))):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            assert code == 0, f"the run ended by itself with {code}"
            return None
        time.sleep(0.0005)
    time.sleep(delay if inside else 0)
    os.kill(process, number)
    return wait(process) or None


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], dict[Any, Any]]:
    """Weights, and the last word of the log on every step (a continued run repeats some)."""
    from safetensors.torch import load_file

    last: dict[Any, Any] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for key in ("loss", "token_loss", "eval_loss", "eval_accuracy", "eval_token_loss"):
            if key in record:
                last[record["stage"], record["step"], key] = record[key]
    return load_file(folder / "model" / "model.safetensors"), last


def recipe_of(root: Path, run: str, steps: int) -> tuple[Path, Path]:
    """A recipe's file and the run folder that it names."""
    file = root / f"{run}.yaml"
    stages = [stage | {"max_steps": steps} for stage in STAGES]
    raw = RECIPE | {"name": run, "runs_dir": str(root / "runs"), "stages": stages}
    file.write_text(yaml.safe_dump(raw))
    return file, root / "runs" / run


def begun(options: argparse.Namespace) -> dict[str, Any]:
    """What an earlier call with the same settings and the same code has measured, or nothing."""
    settings = {"seed": options.seed, "stops": options.stops, "steps": options.steps}
    result = {"environment": environment(), **settings, "signals": {}}
    if options.out and options.out.exists():
        earlier = read_json(options.out)
        commit = earlier["environment"]["git_commit"]
        same_settings = all(earlier.get(key) == value for key, value in settings.items())
        if same_settings and commit == result["environment"]["git_commit"]:
            return earlier
    return result


def stopped_by(
    number: signal.Signals,
    root: Path,
    whole: tuple[Any, Any],
    within: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Runs stopped by one signal and continued, until it was sent often enough."""
    draw = random.Random(f"{options.seed} {number.name}")
    log = root / "log"
    recipe, folder = recipe_of(root, number.name, options.steps)
    codes: Counter[int] = Counter()
    inside = 0
    started = time.monotonic()
    while sum(codes.values()) < options.stops:
        if (folder / "model").exists():  # done before it was stopped often enough
            folder.rename(root / f"{number.name}-{len([*root.glob(f'{number.name}-*')])}")
        code = stop(start(recipe, folder, log), number, folder, draw, within)
        if code is not None:
            codes[code] += 1
            inside += any(folder.glob(f"stages/*/{ASIDE}"))
            told = f"{number.name}: {sum(codes.values())} of {options.stops} stops"
            print(f"{told}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if not (folder / "model").exists():
        assert wait(start(recipe, folder, log)) == 0, log.read_text()[-3000:]
    runs = [folder, *root.glob(f"{number.name}-*")]
    weights, logged = whole
    same = []
    for run in runs:
        other_weights, other_logged = outcome(run)
        same_weights = all(torch.equal(weights[key], other_weights[key]) for key in weights)
        same.append(same_weights and logged == other_logged)
    return {
        "stops": sum(codes.values()),
        "exit_codes": {str(code): count for code, count in sorted(codes.items())},
        "stopped_with_a_save_unfinished": inside,
        "runs": len(runs),
        "same_bit_for_bit": all(same),
        "seconds": round(time.monotonic() - started),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60, help="Steps of each of the two stages.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = begun(options)
    gc.collect()
    gc.freeze()  # or every run would look through all that was imported, to free memory
    rows = result["signals"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        log = root / "log"
        started = time.monotonic()
        recipe, folder = recipe_of(root, "whole", options.steps)
        assert wait(start(recipe, folder, log)) == 0, log.read_text()
        within = time.monotonic() - started  # a stop may come at any moment of a run
        whole = outcome(folder)
        print(f"a run without a stop took {within:.0f} s", file=sys.stderr)
        for number in SIGNALS:
            if number.name not in rows:
                rows[number.name] = stopped_by(number, root, whole, within, options)
                if options.out:
                    write_json(options.out, result)
            print(number.name, rows[number.name], file=sys.stderr, flush=True)
        assert "UNEXPECTED" not in log.read_text(), log.read_text()[-3000:]
    print(json.dumps(result))
    return 0 if all(row["same_bit_for_bit"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
