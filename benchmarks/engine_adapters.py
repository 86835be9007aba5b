"""Engines that answer questions from an exported folder, one small adapter each.

An adapter gets a `Subject` and returns a function from a question and a number of memory blocks to
the answer's token ids, the stop token left out (to its text, where an engine tells no more). It
imports its engine itself, so an engine that is not installed is an ImportError. Everything runs on
one thread, greedily, one question at a time. The servers are in engine_servers.py.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from engine_servers import served
from transformers import AutoModelForCausalLM, AutoTokenizer

from rim.deploy.serve import Plan
from rim.infer.decode import generate
from rim.infer.reasoner import load

Ask = Callable[[str, int], list[int] | str]


@dataclass(frozen=True)
class Subject:
    """What is asked: a run, its export, and how. `work` takes converted models, `servers` ends
    those that adapters started, `plans` are theirs by engine.
    """

    run: Path
    exported: Path
    work: Path
    max_new_tokens: int
    servers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    plans: dict[str, Plan] = field(default_factory=dict)

    @functools.cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.exported)

    @functools.cached_property
    def forbidden(self) -> list[int]:
        """The memory tokens, which no answer may hold."""
        config = json.loads((self.exported / "generation_config.json").read_text(encoding="utf-8"))
        return config["suppress_tokens"]

    def prompt_ids(self, question: str, blocks: int) -> list[int]:
        """What every client of a server or an engine does first."""
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            blocks=blocks,
            add_generation_prompt=True,
            return_dict=False,
        )


def ours(subject: Subject) -> Ask:
    """The reference: this package on the run itself."""
    reasoner = load(subject.run, device="cpu")

    def ask(question: str, blocks: int) -> list[int]:
        ((answer,),) = generate(
            reasoner.model,
            reasoner.encoder,
            [question],
            blocks=blocks,
            max_new_tokens=subject.max_new_tokens,
        )
        return list(answer.token_ids)

    return ask


def transformers(subject: Subject) -> Ask:
    model = AutoModelForCausalLM.from_pretrained(subject.exported).eval()

    def ask(question: str, blocks: int) -> list[int]:
        ids = torch.tensor([subject.prompt_ids(question, blocks)])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=subject.max_new_tokens
        )
        answer = output[0, ids.shape[1] :].tolist()
        return answer[:-1] if answer and answer[-1] == subject.tokenizer.eos_token_id else answer

    return ask


def ctranslate2(subject: Subject, compute_type: str) -> Ask:
    import ctranslate2 as engine
    from ctranslate2.converters import TransformersConverter

    folder = subject.work / f"ctranslate2-{compute_type}"
    TransformersConverter(str(subject.exported)).convert(
        str(folder), quantization=compute_type, force=True
    )
    _name_missing_tokens(folder / "config.json", subject.tokenizer.eos_token)
    generator = engine.Generator(
        str(folder), compute_type=compute_type, inter_threads=1, intra_threads=1
    )
    as_tokens = subject.tokenizer.convert_ids_to_tokens

    def ask(question: str, blocks: int) -> list[int]:
        (result,) = generator.generate_batch(
            [as_tokens(subject.prompt_ids(question, blocks))],
            max_length=subject.max_new_tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=subject.tokenizer.eos_token,
            suppress_sequences=[[token] for token in as_tokens(subject.forbidden)],
        )
        return list(result.sequences_ids[0])

    return ask


def _name_missing_tokens(file: Path, token: str) -> None:
    """A tokenizer without a begin or unknown token leaves a null, at which the engine stops with
    "[json.exception.type_error.302] type must be string, but is null". Neither is ever used here.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    names = ("bos_token", "unk_token")
    missing = {name: token for name in names if config.get(name) is None}
    file.write_text(json.dumps(config | missing), encoding="utf-8")


def onnx_genai(subject: Subject, precision: str) -> Ask:
    import onnxruntime_genai as engine

    folder = subject.work / f"onnx-{precision}"
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
    cache = subject.work / "cache"
    builder += ["-m", subject.exported, "-o", folder, "-c", cache, "-p", precision]
    done = subprocess.run([str(part) for part in builder], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    config_file = folder / "genai_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    # Written over the checkpoint's by the builder where the tokenizer has none.
    config["model"]["eos_token_id"] = subject.tokenizer.eos_token_id
    config_file.write_text(json.dumps(config), encoding="utf-8")
    model = engine.Model(str(folder))

    def ask(question: str, blocks: int) -> list[int]:
        ids = subject.prompt_ids(question, blocks)
        parameters = engine.GeneratorParams(model)
        parameters.set_search_options(do_sample=False, max_length=len(ids) + subject.max_new_tokens)
        generator = engine.Generator(model, parameters)
        generator.append_tokens(ids)
        answer: list[int] = []
        while not generator.is_done() and len(answer) < subject.max_new_tokens:
            logits = generator.get_logits()
            logits[..., subject.forbidden] = -torch.inf  # it reads no suppress_tokens
            generator.set_logits(logits)
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
        return answer[:-1] if answer[-1] == subject.tokenizer.eos_token_id else answer

    return ask


#: By name, the reference first. A new engine is one function above and one line here.
ENGINES: dict[str, Callable[[Subject], Ask]] = {
    "ours": ours,
    "transformers": transformers,
    "transformers serve": functools.partial(served, engine="transformers"),
    "llama.cpp": functools.partial(served, engine="llama.cpp"),
    "vllm": functools.partial(served, engine="vllm"),
    "ctranslate2 float32": functools.partial(ctranslate2, compute_type="float32"),
    "ctranslate2 int8": functools.partial(ctranslate2, compute_type="int8"),
    "onnxruntime-genai fp32": functools.partial(onnx_genai, precision="fp32"),
    "onnxruntime-genai int4": functools.partial(onnx_genai, precision="int4"),
}
