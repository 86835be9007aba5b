"""Tiny random models of three families, a byte tokenizer, and the real data where it is present."""

from __future__ import annotations

import copy
import gc
import os
from pathlib import Path

# Before transformers is imported: a test that reached for the hub would wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rim.config import MemoryConfig, PromptFormat, ScratchConfig, StageConfig, TemplatesConfig
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import Example
from rim.models.scratch import build_model, train_tokenizer


def pytest_collection_finish() -> None:
    """The Trainer empties memory after every training; without looking through what was imported,
    that halves the time of a small one.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def undrawn():
    """A finished run's curves take a third of a small training: drawn where they are looked at."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rim.train.curriculum.draw_curves", lambda run: None)
        yield


FAMILIES = ("gpt2", "llama", "qwen3")
DATA_DIR = Path(os.environ.get("RIM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["How many apples? 3 + 4 = 7, #### 12 pears are left."] * 3, 300)


@pytest.fixture
def tokenizer(plain_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return copy.deepcopy(plain_tokenizer)


@pytest.fixture
def prompt_format() -> PromptFormat:
    return PromptFormat(method="rim", memory=MemoryConfig(blocks=4), templates=TemplatesConfig())


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast, prompt_format: PromptFormat) -> PromptEncoder:
    add_memory_tokens(tokenizer, prompt_format.memory)
    return PromptEncoder(tokenizer, prompt_format)


def tiny_model(
    family: str, tokenizer: PreTrainedTokenizerFast, attention: str = "sdpa", **sizes: int
):
    """A random model with weights so large that different inputs give different answers."""
    scratch = ScratchConfig(
        family=family,  # type: ignore[arg-type]
        **({"layers": 2, "width": 32, "heads": 2, "max_positions": 256} | sizes),
    )
    torch.manual_seed(0)
    model = build_model(scratch, tokenizer, attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def decoder_layers(model):
    """The stack of layers of a transformers decoder, whatever it is called there."""
    return next(c for c in model.base_model.children() if isinstance(c, torch.nn.ModuleList))


def stage(**changes: object) -> StageConfig:
    settings: dict[str, object] = {
        "name": "s",
        "objective": "answer",
        "max_steps": 1,
        "batch_size": 2,
    }
    return StageConfig.model_validate(settings | changes)


EXAMPLES = [
    Example("How many apples are 3 and 4?", ("3+4=7",), "7"),
    Example("2+2?", ("2+2=4", "4+0=4", "4*1=4"), "4"),
    Example(
        "A longer question, with words and 12 numbers: what is 5 - 3, then plus 1?",
        ("5-3=2", "2+1=3"),
        "3",
    ),
]


@pytest.fixture
def examples() -> list[Example]:
    return list(EXAMPLES)


def real_data(name: str) -> Path:
    """A file of the published data sets; the test is skipped where it is absent."""
    path = DATA_DIR / name
    if not path.exists():
        pytest.skip(f"{name} is not in {DATA_DIR} (set RIM_DATA to the folder that has it)")
    return path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """A comparison that is done and that nothing interrupted: its settings and its result.

    Trained once for all tests; none may leave its runs or results changed.
    """
    from comparisons import QUIET, settings_of

    from rim.study.compare.runner import run_comparison

    settings = settings_of(tmp_path_factory.mktemp("whole"))
    result, failures = run_comparison(settings, QUIET)
    assert not failures
    return settings, result
