"""Blocks by difficulty, and a second model for what the first is unsure of."""

from __future__ import annotations

import json
import math

import pytest
from stub_server import Reply, event, stub

from rim.config import ConfigError
from rim.deploy.serve import Client, Router, calibrate_blocks, calibrate_confidence


def reply(text: str, *probabilities: float, reason: str = "stop") -> Reply:
    """An answer in one piece, with the probabilities of its characters and of its end."""
    told = [{"logprob": math.log(p)} for p in probabilities]
    choice = {
        "message": {"content": text},
        "logprobs": {"content": told},
        "finish_reason": reason,
    }
    usage = {"completion_tokens": len(text) + (reason == "stop")}
    return Reply([json.dumps({"choices": [choice], "usage": usage})], kind="application/json")


def slow(text: str) -> Reply:
    return Reply([event(text), event(None, "stop")])


def test_a_sure_answer_is_believed_and_the_second_model_not_asked():
    with stub(reply("42", 0.9, 0.8, 1.0)) as first, stub(slow("43")) as second:
        routed = Router(Client(first.url), Client(second.url), confidence=0.72).ask("q", blocks=3)
    assert (routed.answer.answer, routed.by) == ("42", "first")
    assert routed.answer is routed.first and routed.answer_ms == routed.first.answer_ms
    assert first.bodies[0]["logprobs"] is True and "stream" not in first.bodies[0]
    assert not second.bodies
    assert first.bodies[0]["chat_template_kwargs"] == {"blocks": 3}


def test_an_unsure_answer_goes_to_the_second_model_and_costs_both():
    with stub(reply("42", 0.9, 0.8, 1.0)) as first, stub(slow("43")) as second:
        routed = Router(Client(first.url), Client(second.url), confidence=0.73).ask("q")
    assert (routed.answer.answer, routed.by, routed.first.answer) == ("43", "second", "42")
    assert routed.answer_ms == routed.first.answer_ms + routed.answer.answer_ms
    assert "logprobs" not in second.bodies[0]


def test_an_answer_that_was_cut_off_is_never_believed():
    cut = reply("42", 1, 1, reason="length")
    with stub(cut) as first, stub(slow("43")) as second:
        routed = Router(Client(first.url), Client(second.url), confidence=0.01).ask("q")
    assert routed.by == "second"


def test_a_server_without_probabilities_cannot_come_first():
    # None at all, or none of the end.
    for told in (reply("42"), reply("42", 0.9, 0.8)):
        with stub(told) as first, stub(slow("43")) as second:
            router = Router(Client(first.url), Client(second.url), confidence=0.5)
            with pytest.raises(ConfigError, match=r"no log-probabilities .*llama\.cpp and vLLM do"):
                router.ask("q")


def test_the_confidence_is_the_least_that_keeps_the_accuracy():
    probabilities = [0.9, 0.2, 0.6, 0.4, 0.8]
    right = [True, False, True, False, True]
    always = [True] * 5
    # Below 0.6 the first model is wrong: the second answers these two and no others.
    assert calibrate_confidence(probabilities, right, always, loss=0) == 0.6
    # One mistake in five is allowed.
    assert calibrate_confidence(probabilities, right, always, loss=0.2) == 0.4
    assert calibrate_confidence(probabilities, right, always, loss=0.4) == 0
    never = [False] * 5
    assert calibrate_confidence(probabilities, right, never, loss=0) == 0


def test_where_the_first_model_is_no_good_the_second_is_always_asked():
    confidence = calibrate_confidence([0.5, 0.9], [False, False], [True, True], loss=0)
    assert confidence > 1


def test_the_least_difference_separates():
    low, high = 1 - 2**-52, 1 - 2**-53
    assert calibrate_confidence([low, high], [False, True], [True, False], loss=0) == high


def test_equal_probabilities_are_routed_alike():
    confidence = calibrate_confidence([0.5, 0.5, 0.9], [False, True, True], [True] * 3, loss=0)
    assert confidence == 0.9


def test_each_level_gets_the_fewest_blocks_that_do():
    levels = ["short", "long", "short", "long"]
    right = {
        0: [True, False, False, False],
        2: [True, True, True, False],
        5: [True, True, True, True],
    }
    assert calibrate_blocks(levels, right, loss=0, least=2) == {"short": 2, "long": 5}
    assert calibrate_blocks(levels, right, loss=0.5, least=2) == {"short": 0, "long": 2}


def test_too_few_questions_choose_nothing():
    with pytest.raises(ConfigError, match="level 'a' has 1 validation questions, at least 20"):
        calibrate_blocks(["a"], {2: [True]}, loss=0)


def test_marks_and_questions_must_be_as_many():
    with pytest.raises(ConfigError, match="2 questions, but 1 marks for 1 blocks"):
        calibrate_blocks(["a", "a"], {1: [True]}, loss=0)
    with pytest.raises(ConfigError, match="2 probabilities, and marks of 1 and 1"):
        calibrate_confidence([0.5, 0.6], [True], [True], loss=0)


def test_without_questions_nothing_is_chosen():
    with pytest.raises(ConfigError, match="there are none"):
        calibrate_blocks([], {1: []}, loss=0)
    with pytest.raises(ConfigError, match="0 probabilities"):
        calibrate_confidence([], [], [], loss=0)
