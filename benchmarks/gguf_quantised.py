"""A trained run in llama.cpp at several weight types: accuracy and time of an answer.

Exports the run, writes GGUF files, lets `llama-quantize` make a 4-bit one, starts one llama-server
each, and asks all of them, transformers and our own decoder the same questions: one at a time, one
thread, no prompt kept from an earlier request, engines taking turns. Prints one JSON line last.

    python benchmarks/gguf_quantised.py RUN [--data FILE] [--questions 200] [--out FILE]

Without --data it asks held-out questions of the demo's task. `make llama-server` builds the
programs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import llama_server
import torch
from rich.console import Console
from running_server import client_of, running
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples, open_file, task_source
from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.serve import Plan
from rim.deploy.serve.engines import LLAMA_VERSION
from rim.evaluate.statistics import share
from rim.infer.answers import grade
from rim.infer.reasoner import Reasoner, load
from rim.results import environment, write_json
from rim.study.bench.timing import limited_threads, spread
from rim.train.callbacks import progress_bar

#: A question and its answer.
Ask = Callable[[str], str]
TOKENS = 16
FLAGS = (*llama_server.FLAGS, "--parallel", "1", "--no-cache-prompt")


def write_files(exported: Path, folder: Path) -> dict[str, Path]:
    """One GGUF file per weight type."""
    files = {
        weights: write_gguf(exported, folder / f"{weights}.gguf", weights=weights).file
        for weights in ("f32", "f16", "q8_0")
    }
    files["q4_k_m"] = folder / "q4_k_m.gguf"
    subprocess.run(
        [llama_server.program("llama-quantize"), files["f32"], files["q4_k_m"], "Q4_K_M", "1"],
        check=True,
        capture_output=True,
    )
    return files


def stored_types(file: Path) -> dict[str, int]:
    """How many tensors have which type: rows that 4-bit blocks do not fill get another."""
    return dict(Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors))


def ask_server(plan: Plan) -> Ask:
    client = client_of(plan)
    return lambda question: client.ask(question, max_new_tokens=TOKENS).text


def transformers_engine(exported: Path) -> Ask:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported).eval()

    def ask(question: str) -> str:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=TOKENS)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return ask


def measure(
    engines: dict[str, Ask], examples: Sequence[Example], reasoner: Reasoner, rounds: int
) -> dict[str, dict[str, Any]]:
    """Every engine answers every question in each round; the first one to speak changes."""
    milliseconds: dict[str, list[float]] = {name: [] for name in engines}
    answers: dict[str, list[str]] = {}
    names = list(engines)
    for name in names:
        engines[name](examples[0].question)  # what the first call of an engine sets up
    with progress_bar(Console(stderr=True)) as bar:
        task = bar.add_task("answers", total=rounds * len(names), note="")
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                answers[name] = []
                for example in examples:
                    start = time.perf_counter()
                    answers[name].append(engines[name](example.question))
                    milliseconds[name].append(1000 * (time.perf_counter() - start))
                bar.update(task, advance=1, note=name)
    own = answers["rim"]
    return {
        name: {
            **_accuracy(texts, examples, reasoner),
            "equal_to_rim": sum(a.strip() == b.strip() for a, b in zip(texts, own, strict=True)),
            "milliseconds": spread(milliseconds[name]),
        }
        for name, texts in answers.items()
    }


def _accuracy(
    texts: Sequence[str], examples: Sequence[Example], reasoner: Reasoner
) -> dict[str, Any]:
    pairs = zip(texts, examples, strict=True)
    return share([grade(text, example, reasoner.encoder) for text, example in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="questions; the demo's test task if left out")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    knobs = {"num_examples": arguments.questions, "split": "test"}
    examples = (
        open_file(arguments.data, limit=arguments.questions)
        if arguments.data
        else load_examples(task_source("arithmetic", knobs))
    )
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as servers:
        folder = Path(temporary)
        exported = export_run(arguments.run, folder / "exported").folder
        files = write_files(exported, folder)
        reasoner = load(arguments.run, device="cpu")
        engines: dict[str, Ask] = {
            "rim": lambda question: reasoner.ask(question, max_new_tokens=TOKENS).text,
            "transformers": transformers_engine(exported),
        }
        started = {f"llama.cpp {weights}": (file, ()) for weights, file in files.items()}
        # Beside llama.cpp's defaults.
        started["llama.cpp f32, exact"] = (files["f32"], llama_server.EXACT)
        for name, (file, flags) in started.items():
            server = running(file, "llama.cpp", [*FLAGS, *flags])
            engines[name] = ask_server(servers.enter_context(server))
        with limited_threads(1):
            measured = measure(engines, examples, reasoner, arguments.rounds)
            result = {
                "engines": measured,
                "files": {
                    weights: {"bytes": file.stat().st_size, "tensors": stored_types(file)}
                    for weights, file in files.items()
                },
                "blocks": reasoner.encoder.format.trained_blocks,
                "rounds": arguments.rounds,
                "data_hash": data_hash(examples),
                "llama_cpp": {
                    "llama_cpp_python_sdist": LLAMA_VERSION,
                    "program": _version(),
                    "flags": " ".join(FLAGS),
                    "exact_flags": " ".join(llama_server.EXACT),
                },
                "environment": environment(),
            }
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


def _version() -> str:
    command = [llama_server.program("llama-server"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return next(line for line in (said.stdout + said.stderr).splitlines() if "version" in line)


if __name__ == "__main__":
    main()
