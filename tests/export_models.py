"""Tiny runs that look like those people export: three families, their vocabularies and chat
templates.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rim.config import (
    LoraSettings,
    MemoryConfig,
    ModelConfig,
    PromptFormat,
    ScratchConfig,
    TemplatesConfig,
)
from rim.core.tokens import add_memory_tokens
from rim.deploy.export import check, probe
from rim.models.loading import load_base, save_trained
from rim.models.lora import prepare_for_training

# The constructs of well-known templates, in our own words.
CHATML_THINKING = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' and message.content is string and not (
        message.content.startswith('<tool_response>')) %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
HEADERS = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Knowledge: December\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
#: Line breaks and blanks at every place where a careless wrapper would lose one.
RAGGED = (
    "\n  {% for m in messages %}\n[{{ m.role }}]  {{ m.content }} \n {% endfor %}\n"
    "{% if add_generation_prompt %}[assistant] {% endif %}\n \n\n"
)


def gpt2_like(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def llama3_like(tokenizer: PreTrainedTokenizerFast, chat: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    names = ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(200)]
    tokenizer.add_special_tokens(
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "additional_special_tokens": names,
        }
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)],
    )
    tokenizer.chat_template = HEADERS if chat else None
    return tokenizer


def qwen_like(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens(
        {
            "eos_token": "<|im_end|>",
            "additional_special_tokens": ["<|im_start|>", "<|endoftext|>", "<|vision_start|>"],
        }
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = CHATML_THINKING
    return tokenizer


INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
    "' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
TIGHT_INSTRUCTIONS = INSTRUCTIONS.replace(" [/INST]", "[/INST]")


def sentencepiece_like(blank: str, chat: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer as SentencePiece models become: blanks are letters, one is put before a text,
    unknown letters fall back to bytes.

    Args:
        blank: "always" puts it after every control token too, "first" at the very beginning only.
    """
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [chr(code) for code in range(33, 127)]
    words = [*names, "\u2581", *letters, "\u2581\u2581", "\u2581[", "hi"]
    core = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=[("\u2581", "\u2581"), ("\u2581", "["), ("h", "i")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if blank == "always":
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.add_special_tokens([AddedToken(x, normalized=False) for x in ("<unk>", "<s>", "</s>")])
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=chat,
    )


#: family, tokenizer, settings of the templates: what people train.
KINDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "gpt2": ("gpt2", gpt2_like, {}),
    "llama base": ("llama", lambda t: llama3_like(t, chat=False), {}),
    "llama chat": (
        "llama",
        llama3_like,
        {"placement": "assistant_start", "system": "Be brief.", "question": "Q: {question}\nA:"},
    ),
    "qwen chat": ("qwen3", qwen_like, {}),
    "qwen base": ("qwen3", qwen_like, {"chat": "never"}),
    "llama 2 base": ("llama", lambda _: sentencepiece_like("always"), {}),
    "llama 2 chat": ("llama", lambda _: sentencepiece_like("always", INSTRUCTIONS), {}),
    "mistral base": ("llama", lambda _: sentencepiece_like("first"), {}),
    "mistral chat": ("llama", lambda _: sentencepiece_like("first", TIGHT_INSTRUCTIONS), {}),
}


def prompt_format(kind: str, blocks: int = 3, **changes: Any) -> PromptFormat:
    return PromptFormat(
        memory=MemoryConfig(blocks=blocks),
        templates=TemplatesConfig(**KINDS[kind][2]),
    ).model_copy(update=changes)


def _writer(family: str, tokenizer: PreTrainedTokenizerFast, **sizes: int) -> PreTrainedModel:
    """A random model that writes ordinary characters only, as trained ones do.

    A token without weights has a logit of zero, and some other one is always above.
    """
    model = tiny_model(family, tokenizer, max_positions=512, **sizes)
    memory = [i for i in range(len(tokenizer)) if "mem" in tokenizer.convert_ids_to_tokens(i)]
    silent = [
        i
        for i in range(len(tokenizer))
        if i not in memory and not tokenizer.decode([i]).isalnum() and i != tokenizer.eos_token_id
    ]
    with torch.no_grad():
        model.get_input_embeddings().weight[silent] = 0.0
    return model


def make_run(
    kind: str,
    plain_tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    adapter: bool = False,
    wanted: PromptFormat | None = None,
    **sizes: int,
) -> Path:
    """A run folder with a random model; with `adapter`, a base and a LoRA adapter on it. `sizes`
    are the model's, where they matter.
    """
    family, make_tokenizer, _ = KINDS[kind]
    tokenizer, wanted = make_tokenizer(plain_tokenizer), wanted or prompt_format(kind)
    if not adapter:
        add_memory_tokens(tokenizer, wanted.memory)
        model = _writer(family, tokenizer, **sizes)
        scratch = ModelConfig(scratch=ScratchConfig(family=family), tuning="full")
        save_trained(model, tokenizer, wanted, scratch, folder / "model")
        return folder
    _writer(family, tokenizer, **sizes).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    config = ModelConfig(base=str(folder / "base"), lora=LoraSettings(rank=4, alpha=8))
    model, tokenizer = load_base(config, wanted, (), seed=0)
    memory_ids = add_memory_tokens(tokenizer, wanted.memory)
    model = prepare_for_training(model, config, memory_ids, dropout=0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_trained(model, tokenizer, wanted, config, folder / "run" / "model")
    return folder / "run"


@contextlib.contextmanager
def checked_in_process() -> Generator[None]:
    """Exports made inside are checked by the same `probe.py`, without a process of its own: a tenth
    of the time. Our package is hidden from it all the same.

    That the process is a stranger's is tested where exports are made outside.
    """

    def run_probe(folder: Path, job: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
        with tempfile.TemporaryDirectory() as temporary:
            job_file, result_file, logits_file = (
                Path(temporary) / name for name in ("job", "result", "logits")
            )
            job_file.write_text(json.dumps(job), encoding="utf-8")
            with pytest.MonkeyPatch.context() as hidden:
                for name in [n for n in sys.modules if n == "rim" or n.startswith("rim.")]:
                    hidden.delitem(sys.modules, name)
                probe.main(str(folder), str(job_file), str(result_file), str(logits_file))
            result = json.loads(result_file.read_text(encoding="utf-8"))
            return result, check.load_file(logits_file)["logits"]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(check, "_probe", run_probe)
        yield
