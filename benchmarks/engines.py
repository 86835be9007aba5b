"""Stock engines on an exported model: are the answers ours, and how long does one take?

    rim export RUN --out exported
    python benchmarks/engines.py exported test.jsonl --run RUN --out results/engines_NAME.json

Every engine of engine_adapters.py that is installed answers the same questions, one thread, one
question at a time, in turns that shift from question to question; with `--blocks 0,2,5` once with
each number of blocks. A time covers prompt and answer, chat template and tokenizer included. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from engine_adapters import ENGINES, Ask, Subject
from engine_servers import kept_tokens
from engine_servers import version as server_version
from rich.console import Console

from rim.cli.checks import block_counts
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import data_hash, open_file
from rim.infer.answers import grade
from rim.infer.reasoner import load
from rim.results import environment, write_json
from rim.study.bench.timing import limited_threads, spread, timed
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
    parser.add_argument("--blocks", help="numbers such as 0,2,5; as in training if left out")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, help="result JSON")
    return parser.parse_args()


def prepare(
    subject: Subject, names: list[str], questions: list[str], blocks: int
) -> tuple[dict[str, Ask], dict[str, str]]:
    """The engines that answer, their first answers behind them, and what the others said."""
    ready, failed = {}, {}
    for name in names:
        try:
            ask = ENGINES[name](subject)
            for question in questions:
                ask(question, blocks)
            ready[name] = ask
        except (ImportError, RuntimeError, ValueError) as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return ready, failed


def measure(
    engines: dict[str, Ask], asked: list[tuple[Example, int]], console: Console
) -> dict[str, list[tuple[float, list[int] | str]]]:
    """Milliseconds and token ids (or text) of every answer by engine."""
    found: dict[str, list[tuple[float, list[int] | str]]] = {name: [] for name in engines}
    order = list(engines)
    with progress_bar(console) as bar:
        task = bar.add_task("questions", total=len(asked), note="")
        for number, (example, blocks) in enumerate(asked):
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                ask = engines[name]
                found[name].append(timed(lambda: ask(example.question, blocks), CPU))  # noqa: B023
            bar.advance(task)
    return found


def summarise(
    found: dict[str, list[tuple[float, list[int] | str]]],
    asked: list[tuple[Example, int]],
    subject: Subject,
) -> dict[str, Any]:
    encoder = load(subject.run, device="cpu").encoder
    reference = [ids for _, ids in found["ours"]]
    return {
        name: summary(answers, reference, asked, encoder)
        | {
            "by_blocks": {
                str(blocks): summary(
                    *(
                        [row for row, (_, k) in zip(rows, asked, strict=True) if k == blocks]
                        for rows in (answers, reference, asked)
                    ),
                    encoder,
                )
                for blocks in dict.fromkeys(blocks for _, blocks in asked)
            }
        }
        for name, answers in found.items()
    }


def summary(
    answers: list[tuple[float, list[int] | str]],
    reference: list[list[int]],
    asked: list[tuple[Example, int]],
    encoder: PromptEncoder,
) -> dict[str, Any]:
    """One engine's answers beside ours, token for token where it tells tokens, else by text."""

    def text(answer: list[int] | str) -> str:
        if isinstance(answer, str):
            return answer
        return encoder.tokenizer.decode(answer, skip_special_tokens=True)

    right, other, texts = 0, [], False
    for (_, answer), ours, (example, blocks) in zip(answers, reference, asked, strict=True):
        right += grade(text(answer), example, encoder)
        texts = texts or isinstance(answer, str)
        if answer != (text(ours) if isinstance(answer, str) else ours):
            other.append({"question": example.question, "blocks": blocks, "answer": text(answer)})
    counts = [len(ids) for _, ids in answers if not isinstance(ids, str)]
    return {
        "accuracy": right / len(asked) if asked else 0.0,
        "compared": "text" if texts else "tokens",
        "answers": len(asked),
        "equal_answers": len(asked) - len(other),
        "milliseconds": spread([ms for ms, _ in answers]),
        "tokens_mean": sum(counts) / len(counts) if counts else None,
        "first_differences": other[:3],
    }


def main() -> None:
    args = arguments()
    if "ours" not in args.engines:
        args.engines.insert(0, "ours")
    console = Console(stderr=True)
    examples = open_file(args.data, limit=args.questions)
    reasoner = load(args.run, device="cpu")
    given = block_counts(args.blocks)
    blocks = [reasoner.trained_blocks if count is None else count for count in given]
    asked = [(example, count) for example in examples for count in blocks]
    with (
        tempfile.TemporaryDirectory() as work,
        limited_threads(1),
        torch.inference_mode(),
        contextlib.ExitStack() as servers,
    ):
        subject = Subject(args.run, args.exported, Path(work), args.max_new_tokens, servers)
        with console.status("Converting and starting"):
            questions = [example.question for example in examples]
            engines, failed = prepare(subject, args.engines, questions[:2], blocks[-1])
        found = measure(engines, asked, console)
        kept = {
            name: kept_tokens(subject, plan, questions, sorted({*blocks}))
            for name, plan in subject.plans.items()
            if name in engines
        }
        machine = environment()
        for package in PACKAGES:
            machine["packages"][package] = version(package)
        for name, plan in subject.plans.items():
            if told := server_version(plan):
                machine["packages"][name] = told
    config = reasoner.model.config
    result = {
        "model": {
            "run": args.run.resolve().name,
            "family": config.model_type,
            "parameters": reasoner.model.num_parameters(),
            "vocabulary": config.vocab_size,
        },
        "data": {"name": args.data.name, "questions": len(examples), "hash": data_hash(examples)},
        "settings": {
            "blocks": blocks[0] if len(blocks) == 1 else blocks,
            "max_new_tokens": args.max_new_tokens,
            "threads": 1,
        },
        "engines": summarise(found, asked, subject),
        "kept_prompt_tokens": kept,
        "failed": failed,
        "environment": machine,
    }
    for name, row in result["engines"].items():
        console.print(
            f"{name:24} {100 * row['accuracy']:5.1f} %  equal {row['equal_answers']}/"
            f"{len(asked)} ({row['compared']})  {row['milliseconds']['median']:.2f} ms",
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
