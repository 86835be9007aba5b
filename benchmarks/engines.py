"""Stock engines on an exported model: are the answers ours, and how long does one take?

    rim export RUN --out exported
    python benchmarks/engines.py exported test.jsonl --run RUN --out results/engines_NAME.json

Every engine of engine_adapters.py that is installed answers the same questions, one thread, one
question at a time, in turns that shift from question to question. A time covers prompt and answer,
chat template and tokenizer included. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from engine_adapters import ENGINES, Ask, Subject
from rich.console import Console

from rim.data.examples import Example
from rim.data.sources import data_hash, open_file
from rim.evaluate.accuracy import Accuracy
from rim.infer.answers import grade
from rim.infer.reasoner import load
from rim.results import environment, write_json
from rim.study.bench.timing import Spread, limited_threads, timed
from rim.train.callbacks import progress_bar

PACKAGES = ("ctranslate2", "onnxruntime", "onnxruntime-genai")
CPU = torch.device("cpu")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exported", type=Path, help="folder that `rim export` wrote")
    parser.add_argument("data", type=Path, help="data file, any that `rim eval` reads")
    parser.add_argument("--run", type=Path, required=True, help="the run it was exported from")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--blocks", type=int, help="memory blocks; as in training if left out")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, help="result JSON")
    return parser.parse_args()


def prepare(
    subject: Subject, names: list[str], questions: list[str]
) -> tuple[dict[str, Ask], dict[str, str]]:
    """The engines that answer, their first answers behind them, and what the others said."""
    ready, failed = {}, {}
    for name in names:
        try:
            ask = ENGINES[name](subject)
            for question in questions:
                ask(question)
            ready[name] = ask
        except (ImportError, RuntimeError, ValueError) as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return ready, failed


def measure(
    engines: dict[str, Ask], examples: list[Example], console: Console
) -> dict[str, list[tuple[float, list[int]]]]:
    """Milliseconds and token ids of every answer by engine."""
    found: dict[str, list[tuple[float, list[int]]]] = {name: [] for name in engines}
    order = list(engines)
    with progress_bar(console) as bar:
        task = bar.add_task("questions", total=len(examples), note="")
        for number, example in enumerate(examples):
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                ask = engines[name]
                found[name].append(timed(lambda: ask(example.question), CPU))  # noqa: B023
            bar.advance(task)
    return found


def summarise(
    found: dict[str, list[tuple[float, list[int]]]], examples: list[Example], subject: Subject
) -> dict[str, Any]:
    encoder = load(subject.run, device="cpu").encoder
    reference = [ids for _, ids in found["ours"]]
    rows = {}
    for name, answers in found.items():
        texts = [encoder.tokenizer.decode(ids, skip_special_tokens=True) for _, ids in answers]
        right = sum(grade(t, e, encoder) for t, e in zip(texts, examples, strict=True))
        pairs = zip(answers, reference, examples, texts, strict=True)
        other = [
            {"question": e.question, "answer": t} for (_, ids), ours, e, t in pairs if ids != ours
        ]
        rows[name] = {
            "accuracy": Accuracy.of(right, len(examples)).accuracy,
            "equal_answers": len(examples) - len(other),
            "milliseconds": vars(Spread.of([ms for ms, _ in answers])),
            "tokens_mean": sum(len(ids) for _, ids in answers) / len(answers),
            "first_differences": other[:3],
        }
    return rows


def main() -> None:
    args = arguments()
    if "ours" not in args.engines:
        args.engines.insert(0, "ours")
    console = Console(stderr=True)
    examples = open_file(args.data, limit=args.questions)
    reasoner = load(args.run, device="cpu")
    blocks = reasoner.trained_blocks if args.blocks is None else args.blocks
    with tempfile.TemporaryDirectory() as work, limited_threads(1), torch.inference_mode():
        subject = Subject(args.run, args.exported, Path(work), blocks, args.max_new_tokens)
        with console.status("Converting"):
            first = [example.question for example in examples[:2]]
            engines, failed = prepare(subject, args.engines, first)
        found = measure(engines, examples, console)
        machine = environment()
    for package in PACKAGES:
        machine["packages"][package] = version(package)
    config = reasoner.model.config
    result = {
        "model": {
            "run": args.run.resolve().name,
            "family": config.model_type,
            "parameters": reasoner.model.num_parameters(),
            "vocabulary": config.vocab_size,
        },
        "data": {"name": args.data.name, "questions": len(examples), "hash": data_hash(examples)},
        "settings": {"blocks": blocks, "max_new_tokens": args.max_new_tokens, "threads": 1},
        "engines": summarise(found, examples, subject),
        "failed": failed,
        "environment": machine,
    }
    for name, row in result["engines"].items():
        console.print(
            f"{name:24} {100 * row['accuracy']:5.1f} %  equal {row['equal_answers']}/"
            f"{len(examples)}  {row['milliseconds']['median']:.2f} ms",
            highlight=False,
        )
    for name, reason in failed.items():
        console.print(f"{name:24} {reason}", highlight=False)
    if args.out:
        write_json(args.out, result)
    print(json.dumps(result))


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
