"""Reasoning in Memory: language models that think in memory blocks, not in written words.

    from rim import load
    model = load("runs/demo-seed0/rim")
    print(model.ask("3+4-5=").answer)

Names are loaded when first used, so that `import rim` and `rim --help` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Answer": "rim.infer.reasoner",
    "ConfigError": "rim.config",
    "DataError": "rim.data.examples",
    "DataSource": "rim.config",
    "Evaluation": "rim.evaluate.accuracy",
    "Example": "rim.data.examples",
    "PromptEncoder": "rim.core.tokens",
    "Reasoner": "rim.infer.reasoner",
    "Recipe": "rim.config",
    "Sampling": "rim.infer.sampling",
    "answer_file": "rim.deploy.answer.job",
    "dry_run": "rim.train.dry_run",
    "export_run": "rim.deploy.export",
    "load": "rim.infer.reasoner",
    "load_examples": "rim.data.sources",
    "load_recipe": "rim.config.recipe_yaml",
    "score": "rim.evaluate.accuracy",
    # Not `train`: that is the package's name, and whatever imports it would hide the function.
    "train_recipe": "rim.train.curriculum:train",
}

__all__ = [
    "Answer",
    "ConfigError",
    "DataError",
    "DataSource",
    "Evaluation",
    "Example",
    "PromptEncoder",
    "Reasoner",
    "Recipe",
    "Sampling",
    "__version__",
    "answer_file",
    "dry_run",
    "export_run",
    "load",
    "load_examples",
    "load_recipe",
    "score",
    "train_recipe",
]

if TYPE_CHECKING:
    from rim.config import ConfigError, DataSource, Recipe
    from rim.config.recipe_yaml import load_recipe
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import DataError, Example
    from rim.data.sources import load_examples
    from rim.deploy.answer.job import answer_file
    from rim.deploy.export import export_run
    from rim.evaluate.accuracy import Evaluation, score
    from rim.infer.reasoner import Answer, Reasoner, load
    from rim.infer.sampling import Sampling
    from rim.train.curriculum import train as train_recipe
    from rim.train.dry_run import dry_run


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        module, _, inside = _EXPORTS[name].partition(":")
        return getattr(importlib.import_module(module), inside or name)
    raise AttributeError(f"module 'rim' has no attribute {name!r}")
