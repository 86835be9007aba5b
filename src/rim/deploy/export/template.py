"""The chat template of an exported model: question and memory blocks, as any engine renders them.

Jinja is the one language that every engine speaks, so the template repeats in it what
`PromptEncoder` does: clean user text, apply the question template, place the blocks. Only
constructs that many Jinja implementations share are used: `split` and `join` instead of `replace`,
a namespace, a `set` block, loops over `range`. The self-check of an export holds the two against
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rim.config import ConfigError
from rim.core.prompt import BLOCK_MARK, PromptEncoder
from rim.deploy.export.record import BlockRange

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


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
    start = len(prompt.trunk.question_ids)
    ends = len(prompt.suffix_ids)

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
    parts = _chat_parts(encoder) if encoder.is_chat else _plain_parts(encoder)
    return "".join([_head(encoder), *parts]) + "\n"


def _head(encoder: PromptEncoder) -> str:
    default, most = asdict(BlockRange.of(encoder.format)).values()
    wrong = (
        f"`blocks` must be a whole number from 0 to {most}"
        if most
        else "`blocks` must be 0 or left out: this model was trained without memory blocks"
    )
    return (
        "{#- The question, then memory blocks: `blocks` of them, a whole number from 0 to "
        f"{most}, {default} if left out. -#}}\n"
        # Not the filter `default`: llama.cpp's takes null for left out.
        f"{{%- set rim_count = blocks if blocks is defined else {default} -%}}\n"
        f"{{%- if rim_count is not integer -%}}{_raise(wrong)}{{%- endif -%}}\n"
        f"{{%- if rim_count < 0 or rim_count > {most} -%}}{_raise(wrong)}{{%- endif -%}}\n"
        "{%- set rim = namespace(messages=[], parts=[], text='', last=-1) -%}\n"
        + _broken("rim_control", encoder.control_strings)
    )


def _plain_parts(encoder: PromptEncoder) -> list[str]:
    """A model without a chat template answers one question at a time, as it was trained to."""
    bos = _text(encoder, encoder.bos_ids)
    only_one = "this model answers one question at a time: send exactly one message, of role user"
    return [
        "{%- for message in messages -%}\n",
        "{%- if loop.index0 > 0 or message['role'] != 'user' -%}",
        f"{_raise(only_one)}{{%- endif -%}}\n",
        _read_content(),
        "{%- set rim.last = loop.index0 -%}\n",
        "{%- endfor -%}\n",
        f"{{%- if rim.last < 0 -%}}{_raise(only_one)}{{%- endif -%}}\n",
        _question_text(encoder),
        _clean("rim_control"),
        f"{{{{- {_literal(bos)} -}}}}\n" if bos else "",
        _first_blank(encoder, bos),
        "{{- rim.text -}}\n",
        _blocks(encoder),
    ]


def _first_blank(encoder: PromptEncoder, bos: str) -> str:
    """SentencePiece puts a blank before a text that has none. Some tokenizers do so at the very
    beginning only, which here belongs to the begin-of-text token: then the template writes it.
    """
    whole = encoder.tokenizer.encode(f"{bos}a", add_special_tokens=False)
    if whole == [*encoder.bos_ids, *encoder.text_ids("a")]:
        return ""
    has_none = "rim.text and not rim.text.startswith(' ') and not rim.text.startswith('\u2581')"
    return f"{{%- if {has_none} -%}}{{{{ ' ' }}}}{{%- endif -%}}\n"


def _chat_parts(encoder: PromptEncoder) -> list[str]:
    """Cleaned messages go through the model's own template; the blocks are put in afterwards."""
    templates = encoder.format.templates
    at_user_end = templates.placement == "user_end"
    system = templates.system
    return [
        "{%- for message in messages -%}\n",
        "{%- if message['role'] == 'user' -%}{%- set rim.last = loop.index0 -%}{%- endif -%}\n",
        "{%- endfor -%}\n",
        f"{{%- if rim.last < 0 -%}}{_raise('there is no user message to answer')}{{%- endif -%}}\n",
        _default_system(system) if system is not None else "",
        "{%- for message in messages -%}\n",
        "{%- set rim_index = loop.index0 -%}\n",
        "{%- if message['role'] == 'user' -%}\n",
        _read_content(),
        _question_text(encoder),
        "{%- set rim.text = rim.text | trim -%}\n",
        _clean("rim_control"),
        _mark_last_user() if at_user_end else "",
        "{%- set rim.messages = rim.messages + [{'role': 'user', 'content': rim.text}] -%}\n",
        "{%- elif message['content'] is defined and message['content'] is not none -%}\n",
        _read_content(),
        _clean("rim_control"),
        _rebuild_other_message(),
        "{%- else -%}{%- set rim.messages = rim.messages + [message] -%}\n",
        "{%- endif -%}\n",
        "{%- endfor -%}\n",
        "{%- set messages = rim.messages -%}\n",
        _capture(_base_template(encoder)),
        # What came in by other ways than a message's content, such as tools.
        _broken("rim_memory", _memory_strings(encoder)),
        "{%- set rim.text = rim_body -%}\n",
        _clean("rim_memory"),
        _blocks_at_mark(encoder) if at_user_end else _blocks_at_end(encoder),
    ]


def _base_template(encoder: PromptEncoder) -> str:
    source = encoder.tokenizer.get_chat_template()
    # An engine drops one line break at the very end of a template, and no more.
    return source.removesuffix("\n")


def _capture(base: str) -> str:
    # The first line break after a tag is dropped, and the base stands at the start of a line as it
    # did in its own file; the empty expression keeps its last characters from `endset`.
    return f"{{%- set rim_body %}}\n{base}{{{{ '' }}}}{{% endset -%}}\n"


def _read_content() -> str:
    """Sets `rim.text` from a message whose content is a string or a list of text parts."""
    only_text = _raise("only text content is supported")
    return (
        "{%- if message['content'] is string -%}{%- set rim.text = message['content'] -%}\n"
        "{%- elif message['content'] is defined and message['content'] is not none -%}\n"
        "{%- set rim.parts = [] -%}\n"
        "{%- for part in message['content'] -%}\n"
        f"{{%- if part['type'] != 'text' -%}}{only_text}{{%- endif -%}}\n"
        "{%- set rim.parts = rim.parts + [part['text']] -%}\n"
        "{%- endfor -%}\n"
        "{%- set rim.text = rim.parts | join('\\n') -%}\n"
        f"{{%- else -%}}{_raise('a message has no content')}{{%- endif -%}}\n"
    )


def _question_text(encoder: PromptEncoder) -> str:
    pieces = encoder.format.templates.question.split("{question}")
    around = ", ".join(map(_literal, pieces))
    return f"{{%- set rim.text = [{around}] | join(rim.text) -%}}\n"


def _clean(strings: str) -> str:
    """Break control strings in `rim.text` apart as `PromptEncoder.break_control_strings` does.

    Args:
        strings: the template's variable that lists them, see `_broken`.
    """
    return (
        f"{{%- for rim_pair in {strings} -%}}"
        "{%- set rim.text = rim.text.split(rim_pair[0]) | join(rim_pair[1]) -%}"
        "{%- endfor -%}\n"
    )


def _broken(name: str, strings: Sequence[str]) -> str:
    """Sets `name` to a list of control strings, each beside its broken form."""
    pairs = ", ".join(f"[{_literal(s)}, {_literal(f'{s[0]} {s[1:]}')}]" for s in strings)
    return f"{{%- set {name} = [{pairs}] -%}}\n"


def _mark_last_user() -> str:
    return (
        "{%- if rim_index == rim.last -%}"
        f"{{%- set rim.text = rim.text ~ {_literal(BLOCK_MARK)} -%}}"
        "{%- endif -%}\n"
    )


def _default_system(system: str) -> str:
    return (
        "{%- if messages[0]['role'] != 'system' -%}"
        f"{{%- set rim.messages = [{{'role': 'system', 'content': {_literal(system)}}}] -%}}"
        "{%- endif -%}\n"
    )


def _rebuild_other_message() -> str:
    """A system message has nothing but text; other ones keep their tool calls and names."""
    return (
        "{%- if rim.text == message['content'] -%}"
        "{%- set rim.messages = rim.messages + [message] -%}\n"
        "{%- elif message['role'] == 'system' -%}"
        "{%- set rim.messages = rim.messages + [{'role': 'system', 'content': rim.text}] -%}\n"
        "{%- else -%}"
        "{%- set rim.messages = rim.messages + [dict(message, content=rim.text)] -%}"
        "{%- endif -%}\n"
    )


def _memory_strings(encoder: PromptEncoder) -> list[str]:
    memory = encoder.format.memory
    return sorted(
        (memory.start_token, memory.memory_token, memory.end_token), key=len, reverse=True
    )


def _blocks(encoder: PromptEncoder) -> str:
    text = block_text(encoder)
    return (
        "{%- if rim_count > 0 -%}"
        f"{{{{- {_literal(text.opening)} -}}}}"
        f"{{%- for _ in range(rim_count) -%}}{{{{- {_literal(text.block)} -}}}}{{%- endfor -%}}"
        f"{{{{- {_literal(text.closing)} -}}}}"
        "{%- endif -%}\n"
    )


def _blocks_at_mark(encoder: PromptEncoder) -> str:
    """The last mark is ours: the user's text comes before it."""
    mark = _literal(BLOCK_MARK)
    dropped = _raise("the chat template dropped the user message")
    return (
        f"{{%- set rim_parts = rim.text.split({mark}) -%}}\n"
        f"{{%- if rim_parts | length < 2 -%}}{dropped}{{%- endif -%}}\n"
        f"{{{{- rim_parts[:-1] | join({mark}) -}}}}\n"
        f"{_blocks(encoder)}"
        "{{- rim_parts[-1] -}}"
    )


def _blocks_at_end(encoder: PromptEncoder) -> str:
    return (
        "{{- rim.text -}}\n"
        f"{{%- if add_generation_prompt -%}}\n{_blocks(encoder)}{{%- endif -%}}"
    )


def _raise(message: str) -> str:
    return f"{{{{- raise_exception({_literal(message)}) -}}}}"


def _literal(text: str) -> str:
    """A Jinja string literal."""
    for character, escaped in _ESCAPES.items():
        text = text.replace(character, escaped)
    return f"'{text}'"
