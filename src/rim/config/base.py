"""What all settings share: frozen, unknown keys refused, numbers checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class ConfigError(ValueError):
    """A setting is wrong; the message says which and what to do."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
