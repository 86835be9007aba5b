"""The picture of the web page: its question is one where blocks matter, it is small."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import page_picture
import pytest

ROOT = Path(__file__).parents[1]


class Pupil:
    """Right with blocks at some questions, never without."""

    trained_blocks = 5

    def __init__(self, encoder: Any, knows: Any):
        self.encoder, self._knows = encoder, knows

    def ask_many(self, questions: list[str], *, blocks: int) -> list[Any]:
        return [
            [SimpleNamespace(text=self._knows(question) if blocks else "no")]
            for question in questions
        ]


def test_the_readmes_question_is_taken_where_blocks_matter(encoder):
    found, source = page_picture.question_where_blocks_matter(Pupil(encoder, lambda _: "8"))  # type: ignore[arg-type]
    assert (found, source) == (page_picture.QUESTION, "the README's")


def test_else_a_validation_question_is(encoder):
    def knows(question: str) -> str:
        return "no" if question == page_picture.QUESTION.question else str(eval(question[:-1]) % 10)

    found, source = page_picture.question_where_blocks_matter(Pupil(encoder, knows))  # type: ignore[arg-type]
    assert source == "validation" and found != page_picture.QUESTION
    assert str(eval(found.question[:-1]) % 10) == found.answer


def test_a_model_whose_blocks_do_nothing_gets_no_picture(encoder):
    with pytest.raises(SystemExit, match="no question"):
        page_picture.question_where_blocks_matter(Pupil(encoder, lambda _: "no"))  # type: ignore[arg-type]


def test_the_committed_picture_is_small_and_shows_a_difference():
    result = json.loads((ROOT / "results" / "page_picture.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "figures" / "page.png").stat().st_size == result["bytes"] < 200_000
    said = {row["blocks"]: row["text"].strip() for row in result["rows"]}
    assert said[0] != result["answer"] == said[result["trained_blocks"]]
