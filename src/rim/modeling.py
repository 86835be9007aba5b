"""Models: load or build, adapt with LoRA, save and load. Family facts stand in ONE table."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rim.config import ConfigError, ModelConfig, PromptFormat
from rim.scratch import build_model, train_tokenizer
from rim.tokens import add_memory_tokens

FORMAT_FILE = "rim.json"


@dataclass(frozen=True)
class Family:
    """What differs between architectures; looked up by `config.model_type` only."""

    dropout_fields: tuple[str, ...] = ("attention_dropout",)
    fan_in_fan_out: bool = False  # GPT-2's Conv1D stores its weight transposed
    flex_attention: bool = True


FAMILIES = {
    "gpt2": Family(
        ("attn_pdrop", "embd_pdrop", "resid_pdrop"), fan_in_fan_out=True, flex_attention=False
    ),
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
}


def family_of(model_type: str) -> Family:
    """Facts of a family; an unknown one gets those that most decoders share."""
    return FAMILIES.get(model_type, Family())


# --- building and loading ------------------------------------------------------------------------


def load_base(
    config: ModelConfig, prompt_format: PromptFormat, texts: Iterable[str], seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that a run starts from, memory tokens added, in float32 unless said otherwise.

    Args:
        texts: what a from-scratch tokenizer is trained on.

    Raises:
        ConfigError: a base that cannot be loaded, with the reason.
    """
    if config.scratch is not None:
        tokenizer = train_tokenizer(texts, config.scratch.vocab_size, config.scratch.alphabet)
        add_memory_tokens(tokenizer, prompt_format.blocks)
        with _seeded(seed):
            model = build_model(config.scratch, tokenizer, config.attention)
        check_attention(model, config.attention)
        return model, tokenizer
    assert config.base is not None
    folder = _model_folder(Path(config.base))
    source = str(folder) if folder else config.base
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        if folder and (folder / "adapter_config.json").exists():
            model, tokenizer = load_trained(folder, merge=True, attention=config.attention)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=config.dtype,
                attn_implementation=config.attention,
                use_safetensors=True,
                **options,
            )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"the base model {config.base!r} could not be loaded: {error}") from None
    check_attention(model, config.attention)
    old_size = len(tokenizer)
    ids = add_memory_tokens(tokenizer, prompt_format.blocks)
    with _seeded(seed):
        resize_embeddings(model, tokenizer, [i for i in ids if i >= old_size])
    return model, tokenizer


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, the caller's own stream undisturbed (models start on the CPU)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _model_folder(path: Path) -> Path | None:
    """A local model folder: the path itself, or a run folder's `model`."""
    for folder in (path, path / "model"):
        if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
            return folder
    if path.exists():
        raise ConfigError(
            f"{path} exists but holds no model (no config.json); did that run finish?"
        )
    return None


def check_attention(model: PreTrainedModel, attention: str) -> None:
    if attention == "flex_attention" and not family_of(model.config.model_type).flex_attention:
        raise ConfigError(
            f"{model.config.model_type} models do not run on flex_attention; use sdpa"
        )


def resize_embeddings(model: Any, tokenizer: PreTrainedTokenizerBase, new_ids: list[int]) -> None:
    """Make room for new tokens and start each at the mean of the old rows plus a little noise.

    The noise (a tenth of the rows' standard deviation) tells the tokens apart; the paper does not
    say how it initialises them, so this is our choice. Old rows are left bit for bit.
    """
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not new_ids:
        return
    with torch.no_grad():
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if module is None:
                continue
            weight = module.weight
            old = weight[: min(new_ids)].float()
            noise = (
                torch.randn(len(new_ids), weight.shape[1], device=weight.device) * old.std(0) * 0.1
            )
            weight[new_ids] = (old.mean(0) + noise).to(weight.dtype)
            if model.config.tie_word_embeddings:
                break


# --- adapting ------------------------------------------------------------------------------------


def prepare_for_training(
    model: PreTrainedModel, config: ModelConfig, memory_ids: list[int], dropout: float
) -> PreTrainedModel | PeftModel:
    """Full fine-tuning returns the model; LoRA wraps it, training the adapters and the three new
    rows only.
    """
    if config.tuning == "full":
        set_dropout(model, dropout)
        return model
    # peft gives two targets "all-linear": every linear layer but the head, Conv1D included.
    targets = (
        config.lora.targets if isinstance(config.lora.targets, str) else list(config.lora.targets)
    )
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=dropout,
        target_modules=targets,
        fan_in_fan_out=family_of(model.config.model_type).fan_in_fan_out,
        trainable_token_indices=list(memory_ids),
    )
    try:
        return slim_saving(get_peft_model(model, lora))
    except ValueError as error:
        raise ConfigError(f"model.lora does not fit this model: {error}") from None


def slim_saving(model: Any) -> PeftModel:
    """Leave the embedding matrices out of every save: the adapter has the new rows."""
    model.save_pretrained = functools.partial(model.save_pretrained, save_embedding_layers=False)
    return model


def set_dropout(model: Any, dropout: float) -> None:
    """Set the family's dropouts on a live model: config fields, modules and attributes alike."""
    for field in family_of(model.config.model_type).dropout_fields:
        if hasattr(model.config, field):
            setattr(model.config, field, dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout


def set_adapter_dropout(model: Any, dropout: float) -> None:
    """Set the dropout of every LoRA layer (peft puts an Identity where it was created with 0)."""
    for module in model.modules():
        adapters = getattr(module, "lora_dropout", None)
        if isinstance(adapters, torch.nn.ModuleDict):
            for name in adapters:
                adapters[name] = torch.nn.Dropout(dropout) if dropout else torch.nn.Identity()
    for config in model.peft_config.values():
        config.lora_dropout = dropout


def unwrap(model: Any) -> Any:
    """The transformers model below a peft wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """All parameters and those that train."""
    total = sum(p.numel() for p in model.parameters())
    return {
        "total": total,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


# --- saving and loading --------------------------------------------------------------------------


def save_trained(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: PromptFormat,
    base: ModelConfig,
    folder: Path,
) -> None:
    """Write weights (safetensors; the adapter alone under LoRA), tokenizer and `rim.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if base.base and Path(base.base).exists():
        # An adapter needs its base again, from wherever it is loaded.
        base = base.model_copy(update={"base": str(Path(base.base).resolve())})
    description = {
        "prompt_format": prompt_format.model_dump(mode="json"),
        "model": base.model_dump(mode="json"),
    }
    (folder / FORMAT_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_prompt_format(folder: Path) -> PromptFormat:
    """The prompt format saved with a model.

    Raises:
        ConfigError: the folder was not written by RiM.
    """
    return PromptFormat.model_validate(_read_description(folder)["prompt_format"])


def read_model_config(folder: Path) -> ModelConfig:
    """The model settings saved with a model: where it came from, how it is loaded."""
    return ModelConfig.model_validate(_read_description(folder)["model"])


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FORMAT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {FORMAT_FILE}: not a model trained with RiM") from None


def load_trained(
    folder: Path,
    *,
    merge: bool = False,
    trainable: bool = False,
    attention: str | None = None,
    device: str | None = None,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load what `save_trained` wrote.

    Args:
        merge: fold a LoRA adapter into the weights (faster; the result is a plain transformers
            model).
        trainable: keep the adapter's weights open for further training.
        attention: an attention implementation other than the trained one.
    """
    config = read_model_config(folder)
    if attention:
        config = config.model_copy(update={"attention": attention})
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    model: Any
    if (folder / "adapter_config.json").exists():
        base, _ = load_base(config, read_prompt_format(folder), (), seed=0)
        model = slim_saving(PeftModel.from_pretrained(base, folder, is_trainable=trainable))
        model = model.merge_and_unload() if merge else model
    else:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=config.dtype,
            attn_implementation=config.attention,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
        )
    model.eval()
    if device:
        model.to(device)
    return model, tokenizer


def load_for_training(folder: Path, dropout: float) -> tuple[Any, PreTrainedTokenizerBase]:
    """A finished stage's model, ready for the next: adapters train again, dropout is the new
    stage's.
    """
    model, tokenizer = load_trained(folder, trainable=True)
    if isinstance(model, PeftModel):
        set_adapter_dropout(model, dropout)
    else:
        set_dropout(model, dropout)
    return model, tokenizer
