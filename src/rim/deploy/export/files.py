"""The files of an exported model, written so that engines read them the same way.

Each patch below answers a difference between readers that shows as wrong output, not as an error.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from rim.core.tokens import PromptEncoder
from rim.deploy.export.template import block_text, build_template
from rim.results import read_json, write_json


def write_model(model: Any, encoder: PromptEncoder, folder: Path) -> None:
    """Write weights, tokenizer, template and configs of a plain transformers model."""
    model.generation_config = generation_config(encoder)
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.chat_template = build_template(encoder)
    tokenizer.save_pretrained(folder)
    config, tokenizer_config = folder / "config.json", folder / "tokenizer_config.json"
    write_json(config, patched_config(read_json(config), encoder))
    is_qwen = model.config.model_type.startswith("qwen")
    patched = patched_tokenizer_config(read_json(tokenizer_config), encoder, is_qwen)
    write_json(tokenizer_config, patched)


def generation_config(encoder: PromptEncoder) -> GenerationConfig:
    """Greedy, with the stop token of training, memory tokens suppressed.

    No `max_new_tokens`: it would silently win over what an evaluation or a server asks for.
    """
    return GenerationConfig(
        do_sample=False,
        eos_token_id=encoder.stop_id,
        pad_token_id=encoder.pad_id,
        bos_token_id=encoder.tokenizer.bos_token_id,
        suppress_tokens=sorted(encoder.memory_ids),
    )


def patched_config(config: dict[str, Any], encoder: PromptEncoder) -> dict[str, Any]:
    """`config.json` with the names that older readers know beside the new ones."""
    config = config | {"eos_token_id": encoder.stop_id}
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        # transformers 4 reads these two, and falls back to a theta of 10000 without a word.
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        is_default = scaling.get("rope_type", "default") == "default"
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None if is_default else scaling
        if (part := rope.get("partial_rotary_factor")) is not None:
            # GPT-NeoX has names of its own for both.
            config["partial_rotary_factor"] = config["rotary_pct"] = part
            config["rotary_emb_base"] = rope["rope_theta"]
    if config["model_type"] == "gpt2":
        config["n_ctx"] = config["n_positions"]
    return config


def patched_tokenizer_config(
    config: dict[str, Any], encoder: PromptEncoder, is_qwen: bool
) -> dict[str, Any]:
    """`tokenizer_config.json` that transformers 4 and 5 and GGUF converters read alike."""
    extra = config.pop("extra_special_tokens", None) or []
    names = list(extra.values()) if isinstance(extra, dict) else list(extra)
    memory = encoder.tokenizer.convert_ids_to_tokens(list(encoder.memory_ids))
    for name in ("is_local", "local_files_only"):  # how it was loaded here concerns nobody else
        config.pop(name, None)
    config = config | {
        # The class name that transformers 5 writes is unknown to 4.57, which converters pin.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": list(dict.fromkeys([*names, *memory])),
        # Left out, a converter guesses, and may put a wrong token before every prompt.
        "add_bos_token": bool(encoder.bos_ids),
        # 4.57 adds token_type_ids for this class by default, which `generate` refuses.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if is_qwen:
        config["response_template"] = response_template(encoder)
    return config


def response_template(encoder: PromptEncoder) -> dict[str, Any]:
    """Where an answer begins and ends, for `transformers serve`.

    It parses the answers of Qwen families by rules of its own, which would take the memory blocks
    for a part of the answer.
    """
    fields: dict[str, Any] = {
        "content": {"close": encoder.tokenizer.eos_token, "content": "text"},
    }
    spec: dict[str, Any] = {"defaults": {"role": "assistant", "content": ""}}
    if not encoder.is_chat:
        # A plain prompt ends exactly where the answer begins.
        fields["content"]["content_args"] = {"strip": False}
        return spec | {"start_anchor_pattern": ".+", "fields": fields}
    fields["reasoning_content"] = {"open": "<think>", "close": "</think>", "content": "text"}
    anchors = [block_text(encoder).last_token(encoder), "<|im_start|>assistant\n"]
    return spec | {"start_anchor": anchors, "fields": fields}
