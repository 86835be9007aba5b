"""The one answer parser: what a text says its answer is, and whether that is right.

`extract_answer` finds the answer of a text, `same_answer` compares it with the gold one: what a
person is shown is what is graded, and nothing else of the text.

Numbers are compared as exact decimals, so "1,234", "1234.0", "$1,234" and "1234 dollars." agree;
anything else is compared as text without case, outer punctuation and repeated blanks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example

# A sign counts only where no digit, letter or bracket stands before it ("8-3" holds 8 and 3).
# Thousands separators are taken only in groups of three ("1, 2" are two numbers).
_NUMBER = re.compile(
    r"(?<![\w.)\]])(?P<sign>[-+\u2212]?)\s?[$€£¥]?\s?(?P<sign2>[-\u2212]?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<decimals>\.\d+)?(?P<exponent>[eE][-+]?\d{1,3}(?!\w))?"
    r"|(?<![\w.)\]])(?P<sign3>[-+\u2212]?)(?P<leading_dot>\.\d+)"
)
# What may stand before a number that leads, and between it and words that follow ("**72**, since").
_BEFORE = re.compile(r"[\s*_`\"'(\[]*")
_WORDS_FOLLOW = re.compile(r"[\s%°*_`\"')\]]*(?:\s\(|[.,;:!?(]*\s*[^\W\d_])")
_UNIT = re.compile(r"\s*[%°]|(?:\s*[^\W\d_]+)*")
# What makes a number that leads one of several ("7 or 8"), or the beginning of a calculation.
_SEVERAL = re.compile(
    r"[\s%°*_`\"')\]]*(?:"
    r"(?:or(?:\s+(?:about|even|maybe|perhaps|possibly|rather))?|to)\s+[$€£¥]?\d"
    r"|over\s+[$€£¥]?\d[\d.,]*\s*[.,;!?*]*$"
    r"|[ap]\.?m\b\.?\s+(?:or|to|until)\s+\d"
    r"|(?P<unit>[^\W\d_]+)\s+(?:or|to)\s+[$€£¥]?\d[\d.,]*\s*(?:(?P=unit)\b|[.,;!?*]*$))",
    re.IGNORECASE,
)
_CALCULATES = re.compile(
    r"[\s%°*_`\"')\]]*(?:(?:times|plus|minus|(?:divided|multiplied)\s+by)\s+[$€£¥]?\d"
    r"|x(?=[\s\d])|(?:squared|cubed)\b)",
    re.IGNORECASE,
)
_CALCULATION = re.compile(r"[\s($€£¥]*\d[\d.,]*[\s%)]*(?:[-+\u2212*/\u00d7\u00f7^]|x)[\s($€£¥]*\d")
_REASON = re.compile(r"\b(?:because|since)\b", re.IGNORECASE)


def extract_answer(text: str, marker: str = "####", separator: str = "\n", tail: str = "") -> str:
    """The answer that a generated text gives; empty if it gives none.

    It is what stands behind the last marker, to the end of its line or step; where answers have no
    marker, the last line or step. A text that lacks its marker is prose: its last number counts,
    with its unit, or all of its last line if that holds no number, or, as "1/2" and "5 5 6 0" do,
    numbers alone. A number without a unit is written plainly ("$1,234.0" as "1234").

    Args:
        marker: literal text that the answer template puts before the answer; empty if it has none.
        separator: what stands between the steps and the answer of a worked solution.
        tail: literal text that the answer template puts behind the answer.
    """
    marker = marker.strip()
    marked = marker in text  # also without a marker: then the answer is a piece of its own
    rest = text.rsplit(marker, 1)[1] if marker and marked else text
    pieces = [part.strip() for line in rest.splitlines() for part in line.split(separator or "\n")]
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return ""
    answer = pieces[0 if marker and marked else -1].removesuffix(tail.strip()).rstrip()
    if not marked:
        answer = _last_number(answer)
    quantity = _as_quantity(answer)
    return _plain(quantity[0]) if quantity and not quantity[1] else answer


def same_answer(answer: str, gold: str) -> bool:
    """Whether an answer, as `extract_answer` gives it, is the gold one.

    A text must be the same but for case, blanks and outer punctuation. Where the gold answer is a
    number (a unit may follow), the number that the answer states must equal it, and units, if both
    name one, must agree but for a plural's ending.
    """
    if not answer:
        return False
    if _normal_text(answer) == _normal_text(gold):
        return True
    wanted, stated = _as_quantity(gold), _stated_quantity(answer)
    if wanted is None or stated is None or stated[0] != wanted[0]:
        return False
    return not wanted[1] or not stated[1] or _begins_with_unit(stated[1], wanted[1])


def commonest_share(answers: Sequence[str]) -> float:
    """Share of gold answers that are the most frequent one, as `same_answer` compares them but for
    units that only some name: what always saying that one would get right.
    """
    counted = Counter(_as_quantity(answer) or _normal_text(answer) for answer in answers)
    return max(counted.values()) / len(answers)


def is_right(
    text: str, gold: str, marker: str = "####", separator: str = "\n", tail: str = ""
) -> bool:
    """Whether a generated text gives the gold answer."""
    return same_answer(extract_answer(text, marker, separator, tail), gold)


def _last_number(prose: str) -> str:
    """The last number and its unit; the whole where there is none, or nothing but numbers."""
    matches = list(_NUMBER.finditer(prose))
    if not matches or (len(matches) > 1 and not re.search(r"[^\W\d_]|=", prose)):
        return prose
    unit = _UNIT.match(prose, matches[-1].end())
    return prose[matches[-1].start() : unit.end() if unit else None].strip()


def _stated_quantity(answer: str) -> tuple[Decimal, str] | None:
    """Number and unit (with what follows) that an answer states: its only number, or the one that
    leads, if words follow. Digits one by one, "1/2", "x = 5, y = 3", "7 or 8" and "5 x 3 = 15"
    state none.
    """
    matches = list(_NUMBER.finditer(answer))
    if not matches:
        return None
    first = matches[0]
    leads = _BEFORE.fullmatch(answer, 0, first.start()) and _WORDS_FOLLOW.match(answer, first.end())
    value = _to_decimal(first)
    # Outside a reason, what an equation ends with is stated too; "= 8*9 =" is on the way there.
    said = _REASON.split(answer[first.end() :], maxsplit=1)[0].split("=")[1:]
    found = [_NUMBER.search(piece) for piece in said if not _CALCULATION.match(piece)]
    results = [_to_decimal(number) for number in found if number is not None]
    if any(result != value for result in results):
        return None
    alone = leads and not _SEVERAL.match(answer, first.end())
    if len(matches) > 1 and not (alone and (results or not _CALCULATES.match(answer, first.end()))):
        return None
    return value, _normal_text(answer[first.end() :])


def _begins_with_unit(text: str, unit: str) -> bool:
    """Whether a text begins with a unit as a whole word, in singular or plural: "12 minutes" are no
    "12 m".
    """
    stem = unit if unit.endswith("ss") else unit.removesuffix("s")
    if len(stem) < 2:  # "ms" is no plural of "m"
        return re.match(rf"{re.escape(unit)}(?![^\W_])", text) is not None
    return re.match(rf"{re.escape(stem)}(?:e?s)?(?![^\W_])", text) is not None


def _as_quantity(text: str) -> tuple[Decimal, str] | None:
    """Number and unit of a text that is just that ("1,234", "$5", "12 apples", "20%")."""
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    rest = text.strip()[match.end() :]
    if not re.fullmatch(r"\s*[%°.]?|\s+[^\W\d][^\d]*", rest):
        return None
    return _to_decimal(match), _normal_text(rest).strip("%°")


def _to_decimal(match: re.Match[str]) -> Decimal:
    signs = (match["sign"] or "") + (match["sign2"] or "") + (match["sign3"] or "")
    negative = sum(sign in "-\u2212" for sign in signs) % 2 == 1
    body = (match["digits"] or "").replace(",", "") + (
        match["decimals"] or match["leading_dot"] or ""
    )
    value = Decimal(body + (match["exponent"] or ""))
    return value.copy_negate() if negative else value  # a bare minus would round to 28 digits


def _plain(number: Decimal) -> str:
    """All digits, no exponent, no needless zeros."""
    text = format(number, "f") if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _normal_text(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip().rstrip(".!,;:\"'")
    # The dot of ".5" belongs to the number.
    return re.sub(r"^(?:[!,;:\"']|\.(?!\d))+", "", text).strip().casefold()


def parse_answer(text: str, encoder: PromptEncoder) -> str:
    """The answer in a generated text, under the templates that produced it."""
    templates = encoder.format.templates
    return extract_answer(
        text, templates.answer_marker, templates.step_separator, templates.answer_tail
    )


def grade(text: str, example: Example, encoder: PromptEncoder, *, finished: bool = True) -> bool:
    """Whether a generated text answers an example rightly, under the templates that produced it.

    Args:
        finished: whether the text ended by itself. One that was cut off is wrong, whatever it says
            so far: the "12" of an unfinished "123" would be right by accident.
    """
    return finished and same_answer(parse_answer(text, encoder), example.answer)
