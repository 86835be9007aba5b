"""What every engine must do; imported by an engine's test module, which has a fixture `served`."""

from __future__ import annotations

import pytest
from servers import QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_answers_are_those_of_the_run(name, served):
    assert served.answer(QUESTIONS[name]) == served.expected(QUESTIONS[name])


@pytest.mark.parametrize("name", QUESTIONS)
def test_streamed_answers_are_the_same(name, served):
    assert served.streamed(QUESTIONS[name]) == served.expected(QUESTIONS[name])


@pytest.mark.parametrize("blocks", [0, 2, 8])
def test_each_request_chooses_its_number_of_blocks(blocks, served):
    for name in ("plain", "memory strings"):
        kwargs = {"blocks": blocks}
        expected = served.expected(QUESTIONS[name], blocks)
        assert served.answer(QUESTIONS[name], chat_template_kwargs=kwargs) == expected
        assert served.streamed(QUESTIONS[name], chat_template_kwargs=kwargs) == expected
