"""What can only be said on a GPU, in one command for one CUDA device: equivalence there, latency at
the paper's shapes, training steps, memory of the logits, FSDP.

    python benchmarks/gpu.py --out results/gpu.json --minutes 8    # again until it exits with 0
    python benchmarks/gpu.py --out /tmp/gpu.json --device cpu --tiny    # all of it at toy size

Every measurement is written as soon as it is made, and what is there is not made again; exit code
143 says that time ran out. `--data gsm8k_train.jsonl` gives the training steps GSM8K's lengths;
without it they have generated word problems. With `--tiny` the JSON says so: those numbers show
that the script works and nothing else.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import all_answers
import logits_memory
import torch
import training_step
import yaml

from rim.config import DataSource, ModelConfig, PromptFormat, ScratchConfig, StageConfig
from rim.core.layout import lay_out
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import load_examples, open_file
from rim.methods import METHODS
from rim.models.loading import load_base
from rim.results import environment, read_json, write_json
from rim.study.bench.measure import run_benchmark
from rim.study.bench.settings import GPT2_SMALL, LLAMA_1B, LLAMA_3B, BenchmarkSettings
from rim.study.bench.subject import scratch_subject
from rim.study.bench.timing import memory_kind, peak_memory
from rim.train.parallel_or_separate import MARGIN, ROUNDING, readout_error
from rim.train.stopping import TerminatedError, time_limit

SHAPES = {"gpt2": GPT2_SMALL, "llama3.2-1b": LLAMA_1B, "llama3.2-3b": LLAMA_3B}
#: Tokens: a question of GSM8K's, and what chain of thought writes before an answer (our reading;
#: the paper's ratio of 26 to direct is about that many passes). Blocks and latents are the paper's.
QUESTION, WRITTEN = 64, 28
STAGES = (
    StageConfig(
        name="grounding",
        objective="steps",
        alignment="own_step",
        surplus_blocks="answer",
        max_steps=1,
    ),
    StageConfig(name="refinement", objective="answer", weighting="later_more", max_steps=1),
)
Measurement = Callable[[], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--data", type=Path, help="GSM8K's training file")
    parser.add_argument("--only", help="measurements whose name begins so")
    args = parser.parse_args()
    if args.device == "cpu" and not args.tiny:
        sys.exit("on a CPU only --tiny is of use")
    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --device cpu --tiny tries the script")
    record = begin(args)
    try:
        with time_limit(args.minutes):
            for name, measure in measurements(args).items():
                if name.startswith(args.only or "") and name not in record["measurements"]:
                    record["measurements"][name] = once(name, measure)
                    write_json(args.out, record)
    except TerminatedError as error:
        sys.exit(error.exit_code)
    print(json.dumps(record))
    if failed := [name for name, found in record["measurements"].items() if "failed" in found]:
        sys.exit(f"failed, and made again where their entry is deleted: {', '.join(failed)}")


def begin(args: argparse.Namespace) -> dict[str, Any]:
    """The record so far; one of another device, size or data is not continued."""
    fresh = {
        "benchmark": "gpu",
        "tiny": args.tiny,
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
        "data": args.data.name if args.data else "generated word problems",
    }
    if not args.out.exists():
        return fresh | {"environment": environment(), "measurements": {}}
    record = read_json(args.out)
    for key, value in fresh.items():
        if record.get(key) != value:
            sys.exit(f"{args.out} was made with {key} {record.get(key)!r}, not {value!r}")
    return record


def once(name: str, measure: Measurement) -> dict[str, Any]:
    """A measurement with its seconds. Memory that does not suffice, or a kernel that does not
    compile, is a result too, and the next one is made.
    """
    print(name, file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        found = measure()
    except RuntimeError as error:  # torch's own: out of memory, its compilers
        found = {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found | {"measured_in_seconds": round(time.perf_counter() - began, 1)}


def measurements(args: argparse.Namespace) -> dict[str, Measurement]:
    """All of them by name, the quick and the important ones first."""
    found: dict[str, Measurement] = {}
    for family in ("gpt2", "llama", "qwen3"):
        for attention in ("sdpa", *(["flex_attention"] if family != "gpt2" else [])):
            for dtype in ("float32", "bfloat16"):
                name = f"equivalence/{family}/{attention}/{dtype}"
                found[name] = functools.partial(equivalence, args, family, attention, dtype)
    for shape in SHAPES:
        found[f"latency/{shape}"] = functools.partial(latency, args, shape)
    for kind in logits_memory.KINDS:
        found[f"logits_memory/{kind}"] = functools.partial(logits, args, kind)
    for shape in ("gpt2", "llama3.2-1b"):
        found[f"training_step/{shape}"] = functools.partial(step_times, args, shape)
    found["all_answers/gpt2"] = functools.partial(answers, args)
    found["fsdp"] = functools.partial(fsdp, args)
    return found


def examples_of(args: argparse.Namespace, count: int) -> list[Example]:
    if args.data:
        return [e for e in open_file(args.data) if e.steps][:count]
    task = {"format": "word_problems", "word_problems": {"num_examples": count}}
    return load_examples(DataSource.model_validate(task))


def shrunk(scratch: ScratchConfig, tiny: bool) -> ScratchConfig:
    """The same family at toy size."""
    sizes = {"layers": 2, "width": 64, "heads": 4, "feed_forward": 128, "vocab_size": 512}
    grouped = {"key_value_heads": 2} if scratch.key_value_heads else {}
    return scratch.model_copy(update=sizes | grouped) if tiny else scratch


def random_model(
    args: argparse.Namespace, scratch: ScratchConfig, attention: str = "sdpa"
) -> tuple[Any, PromptEncoder]:
    """Random weights of a size, with a tokenizer that was trained on the examples."""
    config = ModelConfig(scratch=scratch, tuning="full", attention=attention)  # type: ignore[arg-type]
    learned = config.model_copy(
        update={"scratch": scratch.model_copy(update={"vocab_size": min(2048, scratch.vocab_size)})}
    )
    prompt_format = PromptFormat()
    texts = (f"{e.question} {' '.join(e.steps)}" for e in examples_of(args, 2000))
    model, tokenizer = load_base(learned, prompt_format, texts, 0)
    if scratch.vocab_size > len(tokenizer):
        model.resize_token_embeddings(scratch.vocab_size, mean_resizing=False)
    return model.to(args.device), PromptEncoder(tokenizer, prompt_format)


# --- measurements --------------------------------------------------------------------------------


def equivalence(args: argparse.Namespace, family: str, attention: str, dtype: str) -> Any:
    """Read-outs in one pass against each alone, on a model lively enough to show a difference."""
    scratch = ScratchConfig(
        family=family,  # type: ignore[arg-type]
        layers=2 if args.tiny else 12,
        width=64 if args.tiny else 512,
        heads=4 if args.tiny else 8,
        max_positions=1024,
        initializer_range=0.1,
    )
    model, encoder = random_model(args, scratch, attention)
    model = model.to(getattr(torch, dtype)).eval()
    rounding = ROUNDING[getattr(torch, dtype)]
    errors = {"parallel": 0.0, "separate": 0.0}
    # Compiling flex attention for a CPU takes minutes and says nothing of a GPU.
    stance = "force_eager" if args.device == "cpu" else "default"
    with torch.compiler.set_stance(stance):
        for example in examples_of(args, 2 if args.tiny else 20):
            for stage in STAGES:
                layout = lay_out(METHODS["rim"], example, stage, encoder)
                for way, error in errors.items():
                    errors[way] = max(error, readout_error(model, layout, way))  # type: ignore[arg-type]
    allowed = min(max(rounding["floor"], MARGIN * errors["separate"]), rounding["cap"])
    return {"errors": errors, "rounding": allowed, "equal": errors["parallel"] <= allowed}


def latency(args: argparse.Namespace, shape: str) -> Any:
    subject = scratch_subject(shape, shrunk(SHAPES[shape], args.tiny), args.device, "bfloat16")
    settings = BenchmarkSettings(
        methods=("direct", "rim", "coconut", "cot"),
        question_tokens=(QUESTION,),
        step_tokens=WRITTEN,
        warmup=1 if args.tiny else 3,
        repeats=2 if args.tiny else 20,
    )
    result = run_benchmark(subject, settings)
    ratios = {row["method"]: row["ttft_to_direct"]["median"] for row in result["rows"]}
    return result | {"ttft_to_direct": ratios, "rim_within_1.05": ratios["rim"] <= 1.05}


def logits(args: argparse.Namespace, kind: str) -> Any:
    """Memory that one pass takes beyond what its model, gradients and batch hold."""
    vocabulary = 4096 if args.tiny else logits_memory.VOCABULARY
    step = logits_memory.prepare(kind, args.device, vocabulary)
    device = torch.device(args.device)
    held, peak = peak_memory(lambda: None, device), peak_memory(step, device)
    grown = None if held is None or peak is None else peak - held
    return {"vocabulary": vocabulary, "mib": grown, "memory": memory_kind(device)}


def step_times(args: argparse.Namespace, shape: str) -> Any:
    """Packed, one row each, bfloat16, plain language modelling, K sequences; full tuning."""
    batch = 4 if args.tiny else {"gpt2": 64, "llama3.2-1b": 16}[shape]
    model, encoder = random_model(args, shrunk(SHAPES[shape], args.tiny))
    model.train()
    step = functools.partial(
        training_step.rim_step, model, torch.optim.AdamW(model.parameters(), 1e-5)
    )
    repeats, examples = (1, 8) if args.tiny else (5, 1024)
    rows = training_step.stage_rows(
        step, encoder, STAGES, examples_of(args, examples), batch, repeats
    )
    rows["separate_sequences"] = training_step.separate(encoder, STAGES[1], step, repeats)
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "batch": batch, "rows": rows}


def answers(args: argparse.Namespace) -> Any:
    model, encoder = random_model(args, shrunk(GPT2_SMALL, args.tiny))
    questions = [e.question for e in examples_of(args, 2 if args.tiny else 8)]
    repeats = 1 if args.tiny else 5
    return all_answers.seconds_of(model.eval(), encoder, questions, repeats)


def fsdp(args: argparse.Namespace) -> Any:
    """A short training in one process under torchrun, with FSDP2 and without: the same losses?"""
    if args.device == "cpu":
        return {"skipped": "accelerate shards nothing on a CPU"}
    with tempfile.TemporaryDirectory() as name:
        losses = {kind: trained_losses(Path(name), kind) for kind in ("plain", "fsdp")}
    pairs = list(zip(losses["plain"], losses["fsdp"], strict=True))
    return {"losses": losses, "largest_difference": max(abs(a - b) for a, b in pairs)}


#: Trains a recipe as `rim train` does, and refuses to pass for what it was not asked to be.
PROGRAM = """
import sys
from accelerate.state import AcceleratorState
from rim.config.recipe_yaml import load_recipe
from rim.train.curriculum import train

train(load_recipe(sys.argv[1]))
used = AcceleratorState().distributed_type.value == "FSDP"
assert used == (sys.argv[2] == "fsdp"), f"FSDP used: {used}"
"""


def trained_losses(folder: Path, kind: str) -> list[float]:
    """Losses of the stages as the run logged them.

    Raises:
        RuntimeError: the training failed, or FSDP was not what trained.
    """
    settings = {"fsdp": True, "fsdp_config": {"reshard_after_forward": True}}
    stages = [
        stage.model_copy(
            update={"max_steps": 4, "batch_size": 8, "micro_batch_size": 8, "evaluate_every": 4}
        )
        for stage in STAGES
    ]
    recipe = {
        "name": kind,
        "method": "rim",
        "runs_dir": str(folder),
        "data": {
            "train": {"format": "word_problems", "word_problems": {"num_examples": 64}},
            "holdout": 8,
        },
        "model": {
            "tuning": "full",
            "scratch": {"layers": 2, "width": 64, "heads": 4, "vocab_size": 512},
        },
        "stages": [
            stage.model_dump(mode="json")
            | {"trainer": {"logging_steps": 1} | (settings if kind == "fsdp" else {})}
            for stage in stages
        ],
        "validation": {"num_examples": 8, "max_new_tokens": 4},
    }
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", *launcher, str(program), str(file), kind]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"}
    )
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if "Error: " in line]
        raise RuntimeError(f"{kind}: {said[0] if said else f'exit code {done.returncode}'}")
    lines = (folder / kind / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines]
    return [row["loss"] for row in logged if "loss" in row]


if __name__ == "__main__":
    main()
