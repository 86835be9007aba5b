"""Settings: frozen, validated when read, explicit when written. Nothing is guessed later.

A recipe is written as YAML; `rim.config.recipe_yaml` reads it.
"""

from rim.config.base import ConfigError, Settings
from rim.config.data import Columns, DataConfig, DataFormat, DataSource, RecordFormat
from rim.config.model import Attention, LoraSettings, ModelConfig, ScratchConfig
from rim.config.prompt_format import MemoryConfig, MethodName, PromptFormat, TemplatesConfig
from rim.config.recipe import Recipe, ValidationConfig
from rim.config.stages import StageConfig
from rim.config.tasks import (
    ArithmeticConfig,
    BracketsConfig,
    GeneratorConfig,
    GraphSearchConfig,
    MultiplicationConfig,
    PairMatchingConfig,
    PointersConfig,
    PrefixCountsConfig,
    RelationsConfig,
    WordProblemsConfig,
)
