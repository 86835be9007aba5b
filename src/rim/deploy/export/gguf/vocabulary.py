"""The tokenizer of an exported folder, as llama.cpp wants it told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from rim.config import ConfigError
from rim.results import read_json


def refusal(obstacle: str) -> ConfigError:
    """The error for a model that this writer cannot describe exactly."""
    return ConfigError(
        f"cannot write GGUF: {obstacle}. llama.cpp's own converter may know this model; in a clone "
        "of github.com/ggml-org/llama.cpp: python convert_hf_to_gguf.py FOLDER --outfile model.gguf"
    )


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, and what llama.cpp must know about them.

    Attributes:
        kinds: a `gguf.TokenType` each.
        copied_rows: for each of the last tokens, which the model has no row for, the row that it
            repeats: bytes that the tokenizer cannot spell repeat the unknown token's.
        special: ids under llama.cpp's names: bos, eos, unk, pad.
        suppressed: ids that an answer never contains.
    """

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pretokenizer: str
    special: dict[str, int]
    add_bos: bool
    copied_rows: list[int]
    suppressed: list[int]
    chat_template: str


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read tokenizer, template and generation settings.

    Args:
        rows: rows of the model's embedding.

    Raises:
        ConfigError: a tokenizer that llama.cpp would read differently.
    """
    description = read_json(folder / "tokenizer.json")
    generation = read_json(folder / "generation_config.json")
    _check(description["model"], description["added_tokens"])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokens, kinds = _tokens(description, rows)
    special = {
        "bos": tokenizer.bos_token_id,
        "eos": generation["eos_token_id"],
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    missing, unknown_row = _missing_bytes(description["model"])
    return Vocabulary(
        tokens=tokens + missing,
        kinds=kinds + [gguf.TokenType.NORMAL] * len(missing),
        merges=_merges(description["model"], tokens[special["eos"]]),
        pretokenizer=pretokenizer_name(description),
        special={name: i for name, i in special.items() if i is not None},
        add_bos=_adds_bos(tokenizer),
        copied_rows=[unknown_row] * len(missing),
        suppressed=[
            *generation.get("suppress_tokens", []),
            *range(len(tokens), len(tokens) + len(missing)),
        ],
        chat_template=_chat_template(tokenizer),
    )


def _check(model: dict[str, Any], added: list[dict[str, Any]]) -> None:
    if model["type"] != "BPE":
        raise refusal(f"the tokenizer is {model['type']}, not byte-level BPE")
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    for option in (*affixes, "fuse_unk", "byte_fallback", "dropout"):
        if model.get(option):
            raise refusal(f"the tokenizer has {option}={model[option]!r}, which llama.cpp has not")
    for token in added:
        for option in ("lstrip", "rstrip", "single_word"):
            if token[option]:
                raise refusal(
                    f"the token {token['content']!r} has {option}, which a GGUF file cannot say"
                )


def _tokens(description: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Tokens and their kinds; rows of the embedding that no token uses get a name as well."""
    by_id = {i: (text, gguf.TokenType.NORMAL) for text, i in description["model"]["vocab"].items()}
    for token in description["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        by_id[token["id"]] = (token["content"], kind)
    if max(by_id) >= rows:
        raise refusal(f"the tokenizer has token {max(by_id)}, the model only {rows} rows")
    filled = [by_id.get(i, (f"[PAD{i}]", gguf.TokenType.UNUSED)) for i in range(rows)]
    return [text for text, _ in filled], [int(kind) for _, kind in filled]


def _missing_bytes(model: dict[str, Any]) -> tuple[list[str], int]:
    """Byte characters that the vocabulary lacks, and the row that stands for each.

    The tokenizers library gives the BPE model's own unknown token for each, whatever
    `tokenizer_config.json` calls one; llama.cpp drops them without a word. As tokens of their own,
    with the unknown token's row, they mean the same again.
    """
    unknown = model.get("unk_token")
    missing = sorted(set(ByteLevel.alphabet()) - set(model["vocab"]))
    if unknown is None or not missing:
        return [], 0  # without an unknown token the tokenizers library drops them, too
    if unknown not in model["vocab"]:
        raise refusal(f"the tokenizer's unknown token {unknown!r} is not in its vocabulary")
    return missing, model["vocab"][unknown]


def _merges(model: dict[str, Any], control: str) -> list[str]:
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    # llama.cpp refuses a file without merges. Control tokens are cut out of a text before merging,
    # so a merge of two never happens.
    return merges or [f"{control} {control}"]


def _adds_bos(tokenizer: Any) -> bool:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    if full == [tokenizer.bos_token_id, *plain]:
        return True
    if full != plain:
        raise refusal("the tokenizer adds more than a begin-of-text token to a text")
    return False


def _chat_template(tokenizer: Any) -> str:
    template = tokenizer.get_chat_template()
    if tokenizer.bos_token is None and "bos_token" in template:
        # llama.cpp takes token 11 for a missing begin-of-text token; elsewhere it renders nothing.
        return "{%- set bos_token = '' -%}\n" + template
    return template


# --- splitting before the merges -----------------------------------------------------------------
# llama.cpp has its splitting rules built in, and a GGUF file names one of them. Which one it is
# follows from the `pre_tokenizer` of `tokenizer.json` alone, never from a model's name.

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
    # llama.cpp does not normalize. Composing (NFC, the Qwen family) leaves text as keyboards and
    # data sets write it unchanged; anything else changes plain text.
    normalizer, steps = tokenizer["normalizer"], tokenizer["pre_tokenizer"]
    if normalizer is not None and normalizer["type"] != "NFC":
        raise refusal(f"the tokenizer normalizes text ({normalizer['type']}), llama.cpp does not")
    if steps is not None:
        steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    name = _split_name(steps or [], bool(tokenizer["model"].get("ignore_merges", False)))
    if name is None:
        raise refusal("llama.cpp has no name for this tokenizer's pre_tokenizer")
    return name


def _split_name(steps: list[dict[str, Any]], whole_words: bool) -> str | None:
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
