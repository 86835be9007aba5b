"""The one answer parser: what a text says its answer is, and whether two answers are the same.

Numbers are compared as exact decimals, so "1,234", "1234.0", "$1,234" and "1234 dollars." agree;
anything else is compared as text without case, outer punctuation and repeated blanks.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

# A sign counts only where no digit, letter or bracket stands before it ("8-3" holds 8 and 3).
# Thousands separators are taken only in groups of three ("1, 2" are two numbers).
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+\u2212]?)\s?[$€£¥]?\s?(?P<sign2>[-\u2212]?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<decimals>\.\d+)?(?P<exponent>[eE][-+]?\d{1,3}(?!\w))?"
    r"|(?<![\w.])(?P<sign3>[-+\u2212]?)(?P<leading_dot>\.\d+)"
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


def extract_answer(text: str, marker: str = "####", separator: str = "\n") -> str:
    """The answer that a generated text gives.

    Behind the last marker the answer is the first number of the line (what follows is trailing
    text); without a marker it is the last number of the last piece. A piece of numbers alone, such
    as the digits "5 5 6 0", or one without numbers, is the answer as it stands.

    Args:
        marker: literal text that the answer template puts before the answer; empty if it has none.
        separator: what stands between the steps and the answer of a worked solution.
    """
    marker = marker.strip()
    marked = bool(marker) and marker in text
    rest = text.rsplit(marker, 1)[1] if marked else text
    pieces = [
        piece.strip() for line in rest.splitlines() for piece in line.split(separator or "\n")
    ]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return ""
    piece = pieces[0] if marked else pieces[-1]
    numbers = find_numbers(piece)
    if not numbers or (len(numbers) > 1 and not re.sub(r"[\d\s.,+-]", "", piece)):
        return piece
    return _plain(numbers[0] if marked else numbers[-1])


def answers_match(predicted: str, gold: str) -> bool:
    """Whether two answers are the same number, or the same text but for case and punctuation."""
    left, right = as_number(predicted), as_number(gold)
    if left is not None and right is not None:
        return left == right
    return _normal_text(predicted) == _normal_text(gold)


def as_number(text: str) -> Decimal | None:
    """The number that a text is (units allowed), or None where it holds none or several."""
    numbers = find_numbers(text)
    return numbers[0] if len(numbers) == 1 else None


def _plain(number: Decimal) -> str:
    try:
        whole = number.to_integral_value()
        return format(whole if whole == number else number.normalize(), "f")
    except InvalidOperation:
        return str(number)


def _normal_text(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip(".!,;:\"'").strip().casefold()
