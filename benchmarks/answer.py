"""Lines a second of `rim answer`, beside a plain loop of `model.ask` over the same questions.

    python benchmarks/answer.py [RUN] [--questions N] [--ray WORKERS] [--out FILE]

Without a run the model is a random one of two layers, made here: the ratio is then that of the
smallest models, where batching pays most. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rim.config import MemoryConfig, ModelConfig, PromptFormat, ScratchConfig
from rim.data.sources import load_examples, task_source
from rim.deploy.answer.engines import LocalEngine, RayEngine
from rim.deploy.answer.job import answer_file
from rim.infer.reasoner import best_device, load
from rim.models.loading import load_base, save_trained
from rim.results import environment, write_json


def random_run(folder: Path) -> Path:
    """A finished run whose model was never trained."""
    prompt_format = PromptFormat(method="rim", memory=MemoryConfig(blocks=4))
    config = ModelConfig(scratch=ScratchConfig(layers=2, width=128, heads=4), tuning="full")
    texts = ["How many apples are 3 and 4? 3+4=7 #### 7"]
    model, tokenizer = load_base(config, prompt_format, texts, seed=0)
    save_trained(model, tokenizer, prompt_format, config, folder / "model")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--questions", type=int, default=512)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--ray", type=int, default=0, metavar="WORKERS")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = options.run or random_run(folder)
        task = {"num_examples": options.questions}
        questions = [e.question for e in load_examples(task_source("arithmetic", task))]
        source = folder / "in.jsonl"
        source.write_text("".join(json.dumps({"question": q}) + "\n" for q in questions))
        reasoner = load(run, device=best_device())
        reasoner.ask(questions[0], max_new_tokens=options.max_new_tokens)
        begin = time.perf_counter()
        for question in questions:
            reasoner.ask(question, max_new_tokens=options.max_new_tokens)
        plain = len(questions) / (time.perf_counter() - begin)
        shared = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
        engine = LocalEngine(reasoner, run, **shared)
        rates = {"local": answer_file(source, folder / "local", engine)["lines_per_second"]}
        if options.ray:
            engine = RayEngine(run, workers=options.ray, **shared)
            answer_file(source, folder / "warm", engine)  # starting Ray is not its throughput
            rates["ray"] = answer_file(source, folder / "ray", engine)["lines_per_second"]
    result = {
        "environment": environment(),
        "run": str(options.run) if options.run else "random, 2 layers, width 128",
        "questions": options.questions,
        **shared,
        "ray_workers": options.ray or None,
        "plain_loop_lines_per_second": plain,
        "lines_per_second": rates,
        "times_the_plain_loop": {name: rate / plain for name, rate in rates.items()},
    }
    if options.out:
        write_json(options.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
