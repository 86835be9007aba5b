"""From scratch: a small model of a known family and a tokenizer trained on the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rim.config import ScratchConfig


def build_model(
    scratch: ScratchConfig, tokenizer: PreTrainedTokenizerBase, attention: str
) -> PreTrainedModel:
    """A randomly initialised model of the family, embeddings tied, sized to the tokenizer.

    `initializer_range` is the standard deviation of its weights. The families' own, 0.02, is made
    for widths of about a thousand, where it is close to 1 / sqrt(width); a width of 96 learns
    markedly faster from 0.1 (LOG.md).
    """
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    if scratch.initializer_range is not None:
        common["initializer_range"] = scratch.initializer_range
    feed_forward = scratch.feed_forward or 4 * scratch.width
    if scratch.family == "gpt2":
        sizes: dict[str, Any] = {
            "n_embd": scratch.width,
            "n_layer": scratch.layers,
            "n_head": scratch.heads,
            "n_inner": feed_forward,
            "n_positions": scratch.max_positions,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }
    else:
        sizes = {
            "hidden_size": scratch.width,
            "intermediate_size": feed_forward,
            "num_hidden_layers": scratch.layers,
            "num_attention_heads": scratch.heads,
            "num_key_value_heads": scratch.key_value_heads or scratch.heads,
            "max_position_embeddings": scratch.max_positions,
        }
        if scratch.family == "qwen3":
            sizes["head_dim"] = scratch.width // scratch.heads
    config = AutoConfig.for_model(scratch.family, **common, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    # Not in the model's config: there it would freeze the embedding of the token used for padding.
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def digits_alone() -> pre_tokenizers.PreTokenizer:
    """Byte-level splitting under which every digit is a token of its own."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, alphabet: str = "bytes"
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with every digit a token of its own.

    Args:
        vocab_size: merges are learned up to this size (alphabet and control tokens count).
        alphabet: "bytes" starts from all 256, so any text can be encoded; "data" from the bytes of
            `texts` alone, other ones becoming an unknown token. A model of a few hundred thousand
            weights learns markedly faster without the hundreds of output rows it never needs.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<|unknown|>" if alphabet == "data" else None))
    tokenizer.pre_tokenizer = digits_alone()
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", *(["<|unknown|>"] if alphabet == "data" else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet == "bytes" else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|unknown|>" if alphabet == "data" else None,
        padding_side="left",
    )
