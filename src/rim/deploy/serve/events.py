"""Chat completions, streamed or in one piece: what of them must have which shape."""

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


class _Text(_Part):
    content: str | None = None


class _Choice(_Part):
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Part):
    completion_tokens: int | None = None


class _Completion(_Part):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


def is_completion(content: Any) -> bool:
    """Whether what is there of an event, or of a whole completion, has the types to be read."""
    try:
        _Completion.model_validate(content)
    except ValidationError:
        return False
    return True
