"""Events of a streamed chat completion: what of them must have which shape."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Part(BaseModel):
    """Fields that are not named are nobody's concern; "7" is no number, and 7 no text."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Token(_Part):
    logprob: float


class _Logprobs(_Part):
    content: list[_Token] | None = None


class _Delta(_Part):
    content: str | None = None


class _Choice(_Part):
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    completion_tokens: int | None = None


class _Event(_Part):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


def is_event(content: Any) -> bool:
    """Whether this is an event that can be read without further checks."""
    try:
        _Event.model_validate(content)
    except ValidationError:
        return False
    return True
