"""Settings: frozen, validated when read, explicit when written. Nothing is guessed later.

A recipe is written as YAML; `rim.recipes` reads it.
"""

from rim.config.base import ConfigError, Settings
from rim.config.data import ArithmeticConfig, DataConfig, DataFormat, DataSource, HubColumns
from rim.config.model import Attention, LoraSettings, ModelConfig, ScratchConfig
from rim.config.prompt import BLOCK_METHODS, BlocksConfig, Method, PromptFormat, TemplatesConfig
from rim.config.recipe import Recipe, ValidationConfig
from rim.config.stages import StageConfig

__all__ = [
    "BLOCK_METHODS",
    "ArithmeticConfig",
    "Attention",
    "BlocksConfig",
    "ConfigError",
    "DataConfig",
    "DataFormat",
    "DataSource",
    "HubColumns",
    "LoraSettings",
    "Method",
    "ModelConfig",
    "PromptFormat",
    "Recipe",
    "ScratchConfig",
    "Settings",
    "StageConfig",
    "TemplatesConfig",
    "ValidationConfig",
]
