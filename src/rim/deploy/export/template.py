"""What fills the text files of an export, `chat_template.jinja` and `model_card.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

from rim.config import ConfigError
from rim.core.tokens import BLOCK_MARK, PromptEncoder
from rim.deploy.export.record import BlockRange

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _literal(text: str) -> str:
    """A Jinja string literal."""
    for character, escaped in _ESCAPES.items():
        text = text.replace(character, escaped)
    return f"'{text}'"


#: Reads `chat_template.jinja` and `model_card.md`, whose own braces are no marks of ours.
_FILES = jinja2.Environment(
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
)
_FILES.filters["literal"] = _literal


def fill(file: str, /, **values: Any) -> str:
    """A text file of this folder, its << >> and <% %> filled in."""
    return _FILES.get_template(file).render(**values)


@dataclass(frozen=True)
class BlockText:
    """Blocks as text: `opening`, then `block` K times, then `closing`; nothing at all for K = 0."""

    opening: str
    block: str
    closing: str

    def last_token(self, encoder: PromptEncoder) -> str:
        """The last control string of the blocks."""
        text = self.opening + self.block + self.closing
        return max((s for s in encoder.control_strings if text.endswith(s)), key=len)


def block_text(encoder: PromptEncoder) -> BlockText:
    """The text that tokenizes to the blocks of `encoder`, read off two prompts.

    Raises:
        ConfigError: blocks that no repetition describes.
    """
    prompt = encoder.prompt("1", 1)
    start, ends = len(prompt.trunk.question_ids), len(prompt.suffix_ids)

    def blocks(count: int) -> list[int]:
        ids = encoder.prompt_ids("1", count)
        return ids[start : len(ids) - ends]

    one, two, unit = blocks(1), blocks(2), list(encoder.block_ids)
    for i in range(len(one) - len(unit) + 1):
        opening, closing = one[:i], one[i + len(unit) :]
        if one == [*opening, *unit, *closing] and two == [*opening, *unit, *unit, *closing]:
            return BlockText(*(_text(encoder, ids) for ids in (opening, unit, closing)))
    raise ConfigError("this model's memory blocks do not repeat, so no template can write them")


def _text(encoder: PromptEncoder, ids: Sequence[int]) -> str:
    return "".join(encoder.tokenizer.convert_ids_to_tokens(list(ids)))


def build_template(encoder: PromptEncoder) -> str:
    """The Jinja template whose rendering tokenizes to `encoder.prompt_ids`.

    Its argument `blocks` is a whole number; left out, it is the K of training.
    """
    templates, bos = encoder.format.templates, _text(encoder, encoder.bos_ids)
    whole = encoder.tokenizer.encode(f"{bos}a", add_special_tokens=False)
    # An engine drops one line break at the very end of a template, and no more.
    base = encoder.tokenizer.get_chat_template().removesuffix("\n") if encoder.is_chat else ""
    return fill(
        "chat_template.jinja",
        **asdict(BlockRange.of(encoder.format)),
        control_strings=encoder.control_strings,
        memory_strings=sorted(encoder.format.memory.token_strings, key=len, reverse=True),
        question=templates.question.split("{question}"),
        is_chat=encoder.is_chat,
        blocks=block_text(encoder),
        bos=bos,
        # SentencePiece puts a blank before a text that has none. Some tokenizers do so at the very
        # beginning only, which here belongs to the begin-of-text token: then the template does it.
        writes_first_blank=whole != [*encoder.bos_ids, *encoder.text_ids("a")],
        base=base,
        at_user_end=templates.placement == "user_end",
        system=templates.system,
        mark=BLOCK_MARK,
    )
