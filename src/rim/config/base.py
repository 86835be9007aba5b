"""What all settings share: frozen, unknown keys refused, numbers checked."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
#: A folder; `~` is the home folder here as it is to transformers, which writes checkpoints.
Folder = Annotated[str, AfterValidator(os.path.expanduser)]


class ConfigError(ValueError):
    """A setting is wrong; the message says which and what to do."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
