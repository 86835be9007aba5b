"""Sizes and constants of a model under llama.cpp's names."""

from __future__ import annotations

from typing import Any

import gguf

from rim.deploy.export.gguf.vocabulary import Vocabulary, refusal

#: What llama.cpp has built in for a family; another value would be computed wrongly, not refused.
_BUILT_IN: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    },
    "llama": {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)},
    "qwen3": {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "use_sliding_window": (False,),
    },
}
_ROPE_TYPES = {"llama": ("default", "llama3"), "qwen3": ("default",)}


def check_family(config: dict[str, Any]) -> None:
    """Refuse a model that llama.cpp would compute differently.

    Raises:
        ConfigError: names the family or the setting.
    """
    family = config["model_type"]
    if family not in _BUILT_IN:
        raise refusal(f"only {', '.join(_BUILT_IN)} models are written here, this is {family}")
    for name, allowed in _BUILT_IN[family].items():
        if config[name] not in allowed:
            raise refusal(f"llama.cpp's {family} has {name}={allowed[0]!r}, not {config[name]!r}")
    if family in _ROPE_TYPES:
        kind = config["rope_parameters"].get("rope_type", "default")
        if kind not in _ROPE_TYPES[family]:
            raise refusal(f"rotary positions of type {kind!r} are not written here")


def add_model(writer: gguf.GGUFWriter, config: dict[str, Any], name: str) -> None:
    """Write the sizes of the model."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # The default of a request that names no temperature: greedy, as in training and in the export.
    writer.add_sampling_temp(0.0)
    if config["model_type"] == "gpt2":
        _add_gpt2(writer, config)
    else:
        _add_rotary(writer, config)


def _add_gpt2(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def _add_rotary(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write tokenizer and chat template."""
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pretokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for name, token_id in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token_id)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    # Older versions of llama.cpp do not read this; their requests need a logit_bias.
    writer.add_array("tokenizer.ggml.suppress_tokens", vocabulary.suppressed)
    writer.add_chat_template(vocabulary.chat_template)
