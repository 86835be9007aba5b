"""Which model families RiM trains and asks rightly: tiny random models, trained, saved, asked.

Every family goes through what a user does: a base model on disk, `train` in two stages, the
finished model loaded from its folder and asked after every block. Its sliding or chunked window is
smaller than the sequences. What must agree is compared and what is refused says why. Prints one
JSON line a family.

    python benchmarks/families.py [FAMILY ...] [--out results/families.json]
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from rim.config import ConfigError, Recipe
from rim.core.layers import layer_windows, state_kinds
from rim.core.layout import Layout, lay_out
from rim.core.tokens import PromptEncoder
from rim.data.training import load_training_data
from rim.infer.decode import generate
from rim.methods import METHODS
from rim.models.folder import read_prompt_format
from rim.models.loading import load_base, load_trained, save_trained
from rim.models.scratch import train_tokenizer
from rim.results import environment, write_json
from rim.train.curriculum import train
from rim.train.parallel_or_separate import Way, readout_error

BLOCKS, ANSWER_TOKENS, WINDOW = 3, 4, 9
TEXTS = ["How many apples? 3 + 4 = 7, #### 12 pears are left."] * 3

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_HEAD = {"head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_WINDOW = {"sliding_window": WINDOW}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}

#: Settings of every family's tiny config, beside `_SIZES` (some name sizes their own way). What
#: follows a hyphen tells two configs of one family apart.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "llama": {},
    "qwen2": {},
    "qwen3": _HEAD,
    "qwen3_moe": _HEAD | _EXPERTS,
    "granite": {},
    "smollm3": {"no_rope_layer_interval": 2},
    "olmo2": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "falcon": {"alibi": False, "ffn_hidden_size": 64},
    "falcon-alibi": {"alibi": True, "ffn_hidden_size": 64},
    "mistral": _WINDOW,
    "phi3": _WINDOW,
    "starcoder2": _WINDOW,
    "gemma2": _HEAD | _WINDOW,
    "gemma3_text": _HEAD | _WINDOW | _TWO_KINDS,
    "gemma3": {
        "text_config": _HEAD | _WINDOW | _TWO_KINDS,
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
    "cohere2": _HEAD | _WINDOW | _TWO_KINDS,
    "exaone4": _WINDOW | _TWO_KINDS | {"sliding_window_pattern": 2},
    "gpt_oss": _HEAD | _WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": _HEAD
    | {
        "attention_chunk_size": WINDOW,
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 64,
    },
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW,
    },
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 256, "expansion_ratio": 2},
    "bloom": {"n_layer": 2, "n_head": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": _HEAD | _LINEAR | _EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3_5_text": _HEAD | _LINEAR,
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 2,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "jamba": {
        "num_experts": 2,
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_period": 2,
        "mamba_d_state": 8,
    },
    "mamba": {"state_size": 8},
}


def tiny_base(family: str, folder: Path) -> str:
    """Save a random model of a family and a tokenizer; returns the attention that it runs on.

    Its weights are large, so that different inputs give different answers.
    """
    tokenizer = train_tokenizer(TEXTS, 300)
    tokens = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    settings, common = FAMILIES[family], _SIZES | {"vocab_size": len(tokenizer)} | tokens
    if "text_config" in settings:  # a language model among others
        settings = settings | {"text_config": common | settings["text_config"]}
    else:
        settings = common | settings
    config = AutoConfig.for_model(family.partition("-")[0], **settings)
    torch.manual_seed(0)
    attention = "sdpa"
    try:
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    except ValueError:  # not every family has it
        attention = "eager"
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return attention


def recipe_of(family: str, folder: Path, **model: Any) -> Recipe:
    """Two stages of two steps each, over generated arithmetic."""
    stage = {"max_steps": 2, "batch_size": 4, "evaluate_every": 2, "learning_rate": 1e-3}
    return Recipe.model_validate(
        {
            "name": family,
            "method": "rim",
            "runs_dir": str(folder / "runs"),
            "data": {
                "train": {
                    "format": "arithmetic",
                    "arithmetic": {"num_examples": 8, "min_operations": 2, "max_operations": 4},
                },
                "holdout": 3,
            },
            "model": {"base": str(folder / "base"), "tuning": "full"} | model,
            "memory": {"blocks": BLOCKS},
            "stages": [
                {"name": "grounding", "objective": "steps", "alignment": "own_step"} | stage,
                {"name": "refinement", "objective": "answer", "weighting": "later_more"} | stage,
            ],
            "validation": {"num_examples": 3, "max_new_tokens": ANSWER_TOKENS},
        }
    )


def check(family: str, folder: Path) -> dict[str, Any]:
    """What the table of families says of one.

    Raises:
        ConfigError: refused, with the reason.
    """
    attention = tiny_base(family, folder / "base")
    recipe = recipe_of(family, folder, attention=attention)
    before = measure(recipe)
    run = train(recipe, console=Console(file=io.StringIO()))
    decisions = json.loads(run.readouts_file.read_text(encoding="utf-8"))
    losses = [
        record["loss"]
        for line in run.metrics_file.read_text(encoding="utf-8").splitlines()
        if "loss" in (record := json.loads(line))
    ]
    model, tokenizer = load_trained(run.model_dir)
    encoder = PromptEncoder(tokenizer, read_prompt_format(run.model_dir))
    _, held_out = load_training_data(recipe.data, recipe.seed)
    questions = [example.question for example in held_out]
    answers = ask(model, encoder, questions)
    save_trained(model, tokenizer, encoder.format, recipe.model, folder / "again")
    again, _ = load_trained(folder / "again")
    windows = layer_windows(model.config)
    return {
        "family": family,
        "layers": [
            f"{kind} ({window.size})" if (window := windows.get(kind)) else kind
            for kind in dict.fromkeys([*windows, *state_kinds(model.config)])
        ],
        "attention": attention,
        **before,
        "readouts": encoder.format.readouts,
        "reason": decisions["grounding"]["reason"],
        "separate_tokens": decisions["grounding"]["ratio"],
        "losses_finite": bool(losses) and all(map(math.isfinite, losses)),
        "answers": sum(map(len, answers)),
        "different_answers": len({ids for row in answers for _, ids in row}),
        "answers_equal": equal_to_truncated_prompts(model, encoder, questions, answers),
        "batch_mates_equal": ask(model, encoder, questions, batch_size=1) == answers,
        "reloaded_equal": ask(again, encoder, questions) == answers,
    }


def measure(recipe: Recipe) -> dict[str, Any]:
    """Errors before training: of parallel read-outs, in float32 and bfloat16, and of a padded batch
    of separate ones, all against each read-out alone; log-probability a target token.
    """
    model, tokenizer = load_base(recipe.model, recipe.prompt_format, (), recipe.seed)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    examples, _ = load_training_data(recipe.data, recipe.seed)
    layouts = [lay_out(METHODS["rim"], x, recipe.stages[1], encoder) for x in examples]
    longest = max(layouts, key=lambda layout: len(layout.fields_TF))
    in_bfloat16: Any = copy.deepcopy(model)
    in_bfloat16.to(torch.bfloat16)
    return {
        "tokens": len(longest.fields_TF),
        "parallel_error": _error(model, longest, "parallel"),
        "separate_error": _error(model, longest, "separate"),
        "parallel_error_bfloat16": _error(in_bfloat16, longest, "parallel"),
    }


def _error(model: Any, layout: Layout, way: Way) -> float | str:
    """The error, or what the model's code says of our mask."""
    try:
        return readout_error(model, layout, way)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as refusal:
        return str(refusal).splitlines()[0]


def ask(
    model: Any, encoder: PromptEncoder, questions: list[str], batch_size: int = 64
) -> list[list[tuple[int, tuple[int, ...]]]]:
    """(block, token ids) of every answer, after every block."""
    rows = generate(
        model,
        encoder,
        questions,
        blocks=BLOCKS,
        after="all",
        max_new_tokens=ANSWER_TOKENS,
        batch_size=batch_size,
    )
    return [[(g.after_block, g.token_ids) for g in row] for row in rows]


@torch.no_grad()
def equal_to_truncated_prompts(
    model: Any,
    encoder: PromptEncoder,
    questions: list[str],
    answers: list[list[tuple[int, tuple[int, ...]]]],
) -> int:
    """How many answers are those of the prompt cut off after their block, decoded by plain forward
    passes: no cache, no batch, no mask.
    """
    equal = 0
    for question, row in zip(questions, answers, strict=True):
        for block, token_ids in row:
            ids = encoder.prompt_ids(question, block)
            start = len(ids)
            while len(ids) < start + ANSWER_TOKENS:
                logits_V = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                logits_V[list(encoder.memory_ids)] = float("-inf")
                if (token := int(logits_V.argmax())) == encoder.stop_id:
                    break
                ids.append(token)
            equal += tuple(ids[start:]) == token_ids
    return equal


def result_of(family: str) -> dict[str, Any]:
    """A row of the table: what was measured, or why the family is refused."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return check(family, Path(folder))
        except ConfigError as refusal:
            return {"family": family, "refused": str(refusal)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = []
    for family in arguments.families:
        rows.append(result_of(family))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "families": rows})


if __name__ == "__main__":
    main()
