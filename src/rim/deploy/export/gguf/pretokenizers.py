"""How a tokenizer splits text before its merges, as llama.cpp names it.

llama.cpp has its splitting rules built in, and a GGUF file names one of them. Which one it is
follows from the `pre_tokenizer` of `tokenizer.json` alone, never from a model's name.
"""

from __future__ import annotations

from typing import Any

from rim.deploy.export.gguf.refusal import refusal

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Pattern of a `Split`, and whether whole words skip the merges: llama.cpp's name.
SPLITS = {
    (_CONTRACTIONS + r"\p{N}" + _REST, False): "qwen2",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _REST, False): "smaug-bpe",
}


def pretokenizer_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for what a `tokenizer.json` does before its merges.

    Raises:
        ConfigError: llama.cpp has no such rule, or has it only together with other differences.
    """
    _check_normalizer(tokenizer["normalizer"])
    whole_words = bool(tokenizer["model"].get("ignore_merges", False))
    name = _name(tokenizer["pre_tokenizer"], whole_words)
    if name is None:
        raise refusal("llama.cpp has no name for this tokenizer's pre_tokenizer")
    return name


def _check_normalizer(normalizer: dict[str, Any] | None) -> None:
    # llama.cpp does not normalize. Composing (NFC, the Qwen family) leaves text as keyboards and
    # data sets write it unchanged; anything else changes plain text.
    if normalizer is not None and normalizer["type"] != "NFC":
        raise refusal(f"the tokenizer normalizes text ({normalizer['type']}), llama.cpp does not")


def _name(pre_tokenizer: dict[str, Any] | None, whole_words: bool) -> str | None:
    steps = _steps(pre_tokenizer)
    kinds = [step["type"] for step in steps]
    if kinds[-1:] != ["ByteLevel"] or steps[-1]["add_prefix_space"]:
        return None
    splits_itself = steps[-1]["use_regex"]
    if kinds == ["ByteLevel"] and splits_itself and not whole_words:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and splits_itself and not whole_words:
        # The trained-from-scratch tokenizers: each digit alone, then GPT-2's rule.
        return "smollm" if steps[0]["individual_digits"] else None
    if kinds == ["Split", "ByteLevel"] and not splits_itself:
        split = steps[0]
        if split["behavior"] == "Isolated" and not split["invert"]:
            return SPLITS.get((split["pattern"].get("Regex", ""), whole_words))
    return None


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return pre_tokenizer["pretokenizers"]
    return [pre_tokenizer]
