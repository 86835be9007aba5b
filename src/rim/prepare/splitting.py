"""A chain of thought in prose to steps and an answer.

The answer is found by the one parser, `rim.infer.answers.extract_answer`; what is decided here is
only which part of the text it gets. Nothing is rewritten: a step is a piece of the text without its
list mark, its calculator annotation and its bold type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rim.infer.answers import extract_answer, same_answer

By = Literal["auto", "lines", "sentences", "marks", "equations"]

MARKER = "####"
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
#: Bold type, and its marks alone; "5**2", "5**-2" and "x ** 2" are powers.
_BOLD = re.compile(r"(?<![0-9A-Za-z)])(\*\*|__)(?=\S)(.+?)(?<=\S)\1(?!\d)")
_MARKS = re.compile(r"(?<![0-9A-Za-z)])(?:\*\*|__)(?=\S)|(?<=\S)(?:\*\*|__)(?![-(0-9A-Za-z])")
_ANNOTATION = re.compile(r"<<([^<>]+)>>")
_THOUGHT = re.compile(r"<think>.*?</think>|^.*</think>", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
#: What announces an answer, up to the answer itself.
_LEAD_IN = re.compile(
    r"(?:^|(?<=[\s*_(]))(?:so|thus|hence|therefore|and)?,?\s*(?:the|my|our)?\s*(?:final|correct)?\s*"
    r"answer\b[*_\s]*(?:is\s*:?|:|=)[*_\s]*(?=\S)",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"^\s*(?:[#*_>\s]*step\s*\d+\s*[.:)\]*_-]*\s*|\(?\d{1,2}[.)]\s+|[-*\u2022\u2013]\s+)",
    re.IGNORECASE,
)
_STEP_INLINE = re.compile(r"(?<!^)(?=(?:^|(?<=\s))\**step\s*\d+\s*[.:)])", re.IGNORECASE)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|approx|No|Fig|Eq|e\.g|i\.e|a\.m|p\.m|[A-Z])\.|"
    r"^\d{1,2}\.)$"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[^\sa-z])|(?<=[\u3002\uff01\uff1f])\s*")
_EQUATION = re.compile(
    r"[-\u2212(]?\s?[$\u20ac\u00a3\u00a5]?\d[\d.,\s%$\u20ac\u00a3\u00a5()+\-\u2212*/\u00d7\u00f7x\u00b7^]{0,200}"
    r"=\s*[-\u2212]?\s?[$\u20ac\u00a3\u00a5]?\d+(?:,\d{3})*(?:\.\d+)?%?"
)
_EMPTY_TALK = re.compile(
    r"(?:ok(?:ay)?|sure|certainly|of course)?[,.!\s]*(?:"
    r"let'?s (?:think|solve|work|break|go).*(?:step by step|step-by-step|down|through it)"
    r"|(?:here is|here's) (?:the|a|my) (?:step-by-step )?(?:solution|reasoning).*"
    r"|(?:solution|steps|reasoning|explanation|final answer|answer|calculation)s?)?[\s.:!*_#]*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Solution:
    """`answer` is empty where the text gives none. `other` is a second reading where nothing
    announces the answer: "120/24 = 5 hours to read 120 pages" ends with 120, and says 5.
    """

    steps: tuple[str, ...]
    answer: str
    other: str = ""

    def answers(self, gold: str) -> bool:
        """Whether the text ends with the answer `gold`."""
        return same_answer(self.answer, gold) or same_answer(self.other, gold)


def split_solution(text: str, by: By = "auto") -> Solution:
    """Steps and answer of a chain of thought.

    The answer stands behind the last "####", in the last `\\boxed{}`, behind "the answer is", or is
    what `extract_answer` reads from the text's end, in this order. A sentence that only says the
    answer is no step.

    Args:
        by: what parts the steps. "marks": "Step 1:", "1." and list marks at the beginning of a
            line; "lines"; "sentences"; "equations": the calculator's `<<48/2=24>>` as in GSM8K, or
            where there are none every "48 / 2 = 24". "auto" takes marks if there are two, lines if
            there are two, sentences else.
    """
    text = _THOUGHT.sub("", text).replace("\r\n", "\n").strip()
    body, stated = _stated(text)
    other = ""
    if stated:
        answer = extract_answer(f"{MARKER} {stated}")
    else:
        answer = extract_answer(_without_notes(text))
        _, equals, result = _without_notes(text).rpartition("\n")[2].rpartition("=")
        other = extract_answer(f"{MARKER} {result}") if equals else ""
    if by == "equations":
        return Solution(_equations(body), answer, other)
    pieces = [_clean(piece) for piece in _pieces(_without_notes(body), by)]
    steps = [piece for piece in pieces if piece and not _EMPTY_TALK.fullmatch(piece)]
    # Only what says nothing but the answer: "72", "So the answer is 72.", not "72 = 8 * 9".
    while steps and answer and _says_only(steps[-1], answer):
        steps.pop()
    if steps and answer:
        said = _sentences(steps[-1])
        while len(said) > 1 and _LEAD_IN.match(said[-1]) and _says_only(said[-1], answer):
            said.pop()
        steps[-1] = " ".join(said)
    return Solution(tuple(steps), answer, other)


def _stated(text: str) -> tuple[str, str]:
    """The text without what announces its answer, and that answer; empty if nothing does."""
    body, marker, rest = text.rpartition(MARKER)
    if marker:
        return body.strip(), rest.strip().partition("\n")[0].strip()
    if boxed := list(_BOXED.finditer(text)):
        last = boxed[-1]
        return text[: last.start()] + last[1] + text[last.end() :], _after_equals(last[1])
    leads = list(_LEAD_IN.finditer(text))
    if leads:
        said = _sentences(text[leads[-1].end() :].partition("\n")[0])
        return text, _after_equals(said[0]) if said else ""
    return text, ""


def _after_equals(text: str) -> str:
    """`3 + 5 = 8` says 8."""
    text = text.strip().strip("*_ ")
    before, equals, after = text.rpartition("=")
    return after.strip() if equals and re.search(r"\d", before) else text


def _says_only(step: str, answer: str) -> bool:
    """Whether a step says the answer and computes nothing: no equation, no other number."""
    lead = _LEAD_IN.match(step)
    bare = (step[lead.end() :] if lead else step).strip("*_ $")
    if not same_answer(extract_answer(f"{MARKER} {bare}"), answer):
        return False
    others = len(_NUMBER.findall(bare)) - max(1, len(_NUMBER.findall(answer)))
    return others <= 0 and not re.search(r"\d.*=", bare)


def _without_notes(text: str) -> str:
    """Without the calculator's notes; a line that is nothing else keeps its equation."""
    lines = []
    for line in text.split("\n"):
        rest = _ANNOTATION.sub("", line).strip()
        notes = " ".join(_ANNOTATION.findall(line))
        lines.append(rest if rest.strip(" .,;") or not notes else notes)
    return "\n".join(lines)


def _pieces(text: str, by: By) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    if by in ("auto", "marks"):
        marked = _at_marks(lines)
        if len(marked) > 1 or by == "marks":
            return marked
    if by == "lines" or (by == "auto" and len(lines) > 1):
        return lines
    return [sentence for line in lines for sentence in _sentences(line)]


def _at_marks(lines: list[str]) -> list[str]:
    """Pieces that begin with a mark, each with the lines below it; what stands before the first
    mark is talk. Empty if there are no marks.
    """
    lines = [part for line in lines for part in _STEP_INLINE.split(line) if part.strip()]
    pieces: list[str] = []
    for line in lines:
        if _MARK.match(line):
            pieces.append(line)
        elif _LEAD_IN.search(line) or (pieces and re.fullmatch(r"[\W_]*\d[\d.,%\s]*", line)):
            pieces.append(line)  # says the answer, or is a bare number
        elif pieces:
            pieces[-1] = f"{pieces[-1]} {line.strip()}"
    marked = [piece for piece in pieces if _MARK.match(piece)]
    return pieces if marked else []


def _sentences(text: str) -> list[str]:
    """Sentences of a line. A full stop behind an abbreviation, an initial or a list's number ends
    none.
    """
    found, begin = [], 0
    for end in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[begin : end.start()]) or end.start() == len(text):
            continue
        found.append(text[begin : end.end()].strip())
        begin = end.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if sentence]


def _equations(text: str) -> tuple[str, ...]:
    notes = _ANNOTATION.findall(text)
    if notes:
        return tuple(f"<<{note}>>" for note in notes)
    found = (match[0].strip() for match in _EQUATION.finditer(text))
    return tuple(re.sub(r"\s+", " ", equation) for equation in found)


def _clean(piece: str) -> str:
    """Without a list's mark, bold type and outer blanks."""
    piece = _MARK.sub("", piece, count=1)
    piece = _MARKS.sub("", _BOLD.sub(r"\2", piece))
    return re.sub(r"\s+", " ", piece).strip()
