"""Settings: frozen, validated when read, explicit when written. Nothing is guessed later.

A recipe is written as YAML; `rim.config.recipe_yaml` reads it.
"""

from rim.config.base import ConfigError, Settings
from rim.config.data import (
    ArithmeticConfig,
    BracketsConfig,
    Columns,
    DataConfig,
    DataFormat,
    DataSource,
    GeneratorConfig,
    GraphSearchConfig,
    MultiplicationConfig,
    PairMatchingConfig,
    PointersConfig,
    PrefixCountsConfig,
    RecordFormat,
    RelationsConfig,
    WordProblemsConfig,
)
from rim.config.model import Attention, LoraSettings, ModelConfig, ScratchConfig
from rim.config.prompt_format import MemoryConfig, MethodName, PromptFormat, TemplatesConfig
from rim.config.recipe import Recipe, ValidationConfig
from rim.config.stages import StageConfig
