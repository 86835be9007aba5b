"""The one answer parser: what a text says its answer is, and whether that is right.

Numbers are compared as exact decimals, so "1,234", "1234.0", "$1,234" and "1234 dollars." agree;
anything else is compared as text without case, outer punctuation and repeated blanks.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rim.core.prompt import PromptEncoder
    from rim.data.examples import Example

# A sign counts only where no digit, letter or bracket stands before it ("8-3" holds 8 and 3).
# Thousands separators are taken only in groups of three ("1, 2" are two numbers).
_NUMBER = re.compile(
    r"(?<![\w.)\]])(?P<sign>[-+\u2212]?)\s?[$€£¥]?\s?(?P<sign2>[-\u2212]?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<decimals>\.\d+)?(?P<exponent>[eE][-+]?\d{1,3}(?!\w))?"
    r"|(?<![\w.)\]])(?P<sign3>[-+\u2212]?)(?P<leading_dot>\.\d+)"
)


def find_numbers(text: str) -> list[Decimal]:
    """All numbers in a text, in order."""
    return [_to_decimal(match) for match in _NUMBER.finditer(text)]


def _to_decimal(match: re.Match[str]) -> Decimal:
    signs = (match["sign"] or "") + (match["sign2"] or "") + (match["sign3"] or "")
    negative = sum(sign in "-\u2212" for sign in signs) % 2 == 1
    body = (match["digits"] or "").replace(",", "") + (
        match["decimals"] or match["leading_dot"] or ""
    )
    value = Decimal(body + (match["exponent"] or ""))
    return -value if negative else value


def is_right(text: str, gold: str, marker: str = "####", separator: str = "\n") -> bool:
    """Whether a generated text gives the gold answer.

    A text answer must be the same but for case, blanks and outer punctuation. Where the gold answer
    is a number (a unit may follow), the number found by `extract_answer`'s rule must equal it, and
    units, if both name one, must agree.
    """
    piece, marked = _answer_piece(text, marker, separator)
    if not piece:
        return False
    if _normal_text(piece) == _normal_text(gold):
        return True
    quantity = _as_quantity(gold)
    matches = list(_NUMBER.finditer(piece))
    if quantity is None or not matches:
        return False
    found = matches[0] if marked else matches[-1]
    if _only_numbers(piece) and len(matches) > 1:
        return False  # digits one by one are a text, not their first number
    unit = _normal_text(piece[found.end() :])
    units_agree = not quantity[1] or not unit or unit.startswith(quantity[1])
    return _to_decimal(found) == quantity[0] and units_agree


def extract_answer(text: str, marker: str = "####", separator: str = "\n") -> str:
    """The answer that a generated text gives, for people to read.

    Behind the last marker it is the line's leading number (what follows is trailing text); without
    a marker it is the last number of the last piece. A piece of numbers alone, such as the digits
    "5 5 6 0", one without numbers, or one such as "1/2" is the answer as it stands.

    Args:
        marker: literal text that the answer template puts before the answer; empty if it has none.
        separator: what stands between the steps and the answer of a worked solution.
    """
    piece, marked = _answer_piece(text, marker, separator)
    matches = list(_NUMBER.finditer(piece))
    if not matches or (len(matches) > 1 and _only_numbers(piece)):
        return piece
    if not marked:
        return _plain(_to_decimal(matches[-1]))
    rest = piece[matches[0].end() :]
    leads = matches[0].start() == 0 and re.match(r"[\s%.,;!?]|$", rest)
    return _plain(_to_decimal(matches[0])) if leads else piece


def _answer_piece(text: str, marker: str, separator: str) -> tuple[str, bool]:
    """The part of a text that holds its answer, and whether a marker pointed to it."""
    marker = marker.strip()
    marked = bool(marker) and marker in text
    rest = text.rsplit(marker, 1)[1] if marked else text
    pieces = [part.strip() for line in rest.splitlines() for part in line.split(separator or "\n")]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return "", marked
    return (pieces[0] if marked else pieces[-1]), marked


def _only_numbers(piece: str) -> bool:
    return not re.sub(r"[\d\s.,+-]", "", piece)


def _as_quantity(text: str) -> tuple[Decimal, str] | None:
    """Number and unit of a text that is just that ("1,234", "$5", "12 apples", "20%")."""
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    rest = text.strip()[match.end() :]
    if not re.fullmatch(r"\s*[%°.]?|\s+[^\W\d][^\d]*", rest):
        return None
    return _to_decimal(match), _normal_text(rest).strip("%°")


def _plain(number: Decimal) -> str:
    try:
        whole = number.to_integral_value()
        return format(whole if whole == number else number.normalize(), "f")
    except InvalidOperation:
        return str(number)


def _normal_text(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip(".!,;:\"'").strip().casefold()


def parse_answer(text: str, encoder: PromptEncoder) -> str:
    """The answer in a generated text, under the templates that produced it."""
    return extract_answer(text, encoder.answer_marker, encoder.format.templates.step_separator)


def grade(text: str, example: Example, encoder: PromptEncoder) -> bool:
    """Whether a generated text answers an example rightly, under the templates that produced it."""
    separator = encoder.format.templates.step_separator
    return is_right(text, example.answer, encoder.answer_marker, separator)
