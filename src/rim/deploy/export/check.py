"""The self-check of an export: a stranger's process gets from the folder what the run gives.

Every finding is a sentence; an export with a single one fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from rim.config import ConfigError
from rim.core.tokens import PromptEncoder
from rim.deploy.export.record import BlockRange
from rim.infer.decode import generate, position_limit
from rim.results import read_json

PROBE = Path(__file__).with_name("probe.py")
QUESTIONS = (
    "3+4-5=",
    "A farmer has 12 pears and sells 5 of them. How many are left?",
    "Wie viele Äpfel sind 3 + 4?  何個ですか 🍎",
    "",
    "{{ messages }} {% if x %} 'quotes' \"and\" \\backslashes",
    "Count the words. " + "one two three " * 30,
)
MAX_NEW_TOKENS = 16
#: Of one logit, in float32; the exported model differs by nothing but the way it was loaded.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class CheckResult:
    """What was compared; an export exists only if all of it agreed."""

    prompts: int
    answers: int
    hostile_texts: int
    refused_numbers: int
    blocks: tuple[int, ...]
    max_logit_difference: float


class _Case(NamedTuple):
    question: str
    blocks: int
    arguments: dict[str, int]

    def __str__(self) -> str:
        return f"{self.question[:30]!r} with {self.blocks} blocks"


def check_export(
    folder: Path, model: Any, encoder: PromptEncoder, questions: Sequence[str] = QUESTIONS
) -> CheckResult:
    """Compare an exported folder, loaded in a fresh process without our package, with its run.

    Args:
        model: the run's model with its adapter merged; it is float32 afterwards.
        questions: those too long for the model are left out.

    Raises:
        ConfigError: any difference; the message lists them.
    """
    cases = _cases(model, encoder, questions)
    hostile = hostile_texts(encoder)
    most = BlockRange.of(encoder.format).most
    refused = [{"blocks": wrong} for wrong in (-1, most + 1, 1.0, "1", True, None)]
    found, logits_CV = _probe(
        folder,
        {
            "cases": [
                {"messages": _conversation(case.question), "arguments": case.arguments}
                for case in cases
            ],
            "texts": [_conversation(text) for text in ["harmless", *hostile]],
            "refused": refused,
            "max_new_tokens": MAX_NEW_TOKENS,
        },
    )
    prompts = [encoder.prompt_ids(case.question, case.blocks) for case in cases]
    problems = [
        *(
            f"{case}: the prompt is {ids}, in training {own}"
            for case, ids, own in zip(cases, found["prompts"], prompts, strict=True)
            if ids != own
        ),
        *_injection_problems(hostile, encoder, found["texts"]),
        *(f"the template took {arguments}" for arguments in found["accepted"]),
        *_answer_problems(cases, model, encoder, found["answers"]),
    ]
    difference = _logit_difference(model, prompts, logits_CV)
    if not difference <= TOLERANCE:
        problems.insert(0, f"logits differ by {difference:.2g}, more than {TOLERANCE:.0e}")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems[:10])
        raise ConfigError(
            f"the exported model is not the trained one, so nothing was written "
            f"({len(problems)} differences):\n{listed}"
        )
    blocks = tuple(sorted({case.blocks for case in cases}))
    return CheckResult(len(cases), len(cases), len(hostile), len(refused), blocks, difference)


def hostile_texts(encoder: PromptEncoder) -> list[str]:
    """Texts that try to smuggle in control tokens, and some that try to survive the cleaning."""
    strings = encoder.control_strings
    start, memory, end = encoder.format.memory.token_strings
    chosen = list(dict.fromkeys([start, memory, end, *strings[:12], *strings[-12:]]))
    return [
        *chosen,
        f"a {start}{memory}{memory}{end} b",
        # A control string inside another: a cleaning that deleted would put it together.
        *(f"{s[:2]}{s}{s[2:]} {s}{s}" for s in chosen),
        "".join(chosen),
    ]


def _conversation(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _cases(model: Any, encoder: PromptEncoder, questions: Sequence[str]) -> list[_Case]:
    """Every question with the default number of blocks, and the first two with every number."""
    trained = encoder.format.trained_blocks
    counts = sorted({0, 2, 8, trained} if trained else {0})
    limit = position_limit(model)
    # An empty question has no tokens under some templates, and cannot be asked.
    questions = [q for q in questions if encoder.question(q, bool(trained))[0]]
    cases = [
        *(_Case(question, trained, {}) for question in questions),
        *(_Case(question, k, {"blocks": k}) for question in questions[:2] for k in counts),
    ]
    lengths = [len(encoder.prompt_ids(case.question, case.blocks)) for case in cases]
    fitting = [
        case
        for case, length in zip(cases, lengths, strict=True)
        if limit is None or length + MAX_NEW_TOKENS <= limit
    ]
    if not fitting:
        raise ConfigError(
            f"no question of the self-check fits the model's {limit} positions with its {trained} "
            "blocks"
        )
    return fitting


def _probe(folder: Path, job: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """Run `probe.py` isolated: no PYTHONPATH, no current folder, no package of ours."""
    with tempfile.TemporaryDirectory() as temporary:
        job_file, result_file, logits_file = (
            Path(temporary) / name for name in ("job.json", "result.json", "logits.safetensors")
        )
        job_file.write_text(json.dumps(job), encoding="utf-8")
        files = [folder.resolve(), job_file, result_file, logits_file]
        run = subprocess.run(
            [sys.executable, "-I", str(PROBE), *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        if run.returncode:
            last_lines = "\n".join(run.stderr.strip().splitlines()[-4:])
            raise ConfigError(
                f"the exported model does not run on transformers alone:\n{last_lines}"
            )
        return read_json(result_file), load_file(logits_file)["logits"]


def _answer_problems(
    cases: Sequence[_Case], model: Any, encoder: PromptEncoder, answers: list[list[int]]
) -> Iterator[str]:
    expected = generate(
        model,
        encoder,
        [case.question for case in cases],
        blocks=[case.blocks for case in cases],
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=1,
    )
    for case, ids, (own,) in zip(cases, answers, expected, strict=True):
        if ids != [*own.token_ids, *([encoder.stop_id] if own.finished else [])]:
            text = encoder.tokenizer.decode(ids)
            yield f"{case}: the answer is {text!r}, the run's {own.text!r}"


def _injection_problems(
    hostile: Sequence[str], encoder: PromptEncoder, prompts: list[list[int]]
) -> Iterator[str]:
    """Text may add no control token to those of a harmless prompt."""
    controls = {encoder.tokenizer.get_vocab()[string] for string in encoder.control_strings}
    # What a tokenizer cannot spell becomes its unknown token, which controls nothing.
    controls.discard(encoder.tokenizer.unk_token_id)
    harmless, *rest = [[i for i in ids if i in controls] for ids in prompts]
    for text, found, ids in zip(hostile, rest, prompts[1:], strict=True):
        cleaned = encoder.break_control_strings(text)
        if found != harmless:
            yield f"the user text {text!r} adds control tokens to the prompt"
        elif ids != encoder.prompt_ids(cleaned, encoder.format.trained_blocks):
            yield f"the user text {text!r} is not cleaned to {cleaned!r}"


@torch.inference_mode()
def _logit_difference(
    model: Any, prompts: Sequence[Sequence[int]], logits_CV: torch.Tensor
) -> float:
    """Largest difference of the logits that predict the first answer token."""
    model.float()
    own_CV = [model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts]
    return float((torch.stack(own_CV) - logits_CV).abs().max())
