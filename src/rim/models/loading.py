"""Models: load or build, save and load."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rim.config import ConfigError, ModelConfig, PromptFormat
from rim.core.tokens import add_memory_tokens, fix_date, memory_token_ids
from rim.models.families import family_of
from rim.models.folder import (
    FORMAT_FILE,
    has_adapter,
    local_model_folder,
    read_model_config,
    read_prompt_format,
)
from rim.models.gguf_base import file_hash, folder_of
from rim.models.gguf_file import find_gguf
from rim.models.lora import set_adapter_dropout, set_dropout, slim_saving
from rim.models.modules import add_modules
from rim.models.quantised import dequantised, loading_options, refuse_transposed
from rim.models.scratch import build_model, train_tokenizer

#: The memory tokens' rows of an output head that is not tied to the embeddings, beside an adapter:
#: they do not train, so the adapter leaves them out, and no base has them.
HEAD_ROWS_FILE = "memory_head.safetensors"
#: What reading a base may raise. SafetensorError is a plain Exception.
_UNREADABLE = (OSError, ValueError, ImportError, SafetensorError)


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
        add_memory_tokens(tokenizer, prompt_format.memory)
        return _random_model(config, tokenizer, prompt_format, seed), tokenizer
    source, folder, options = _origin(config)
    quantisation = loading_options(config, folder)
    try:
        if folder and has_adapter(folder):
            model, tokenizer = load_trained(folder, merge=True, attention=config.attention)
            if config.dtype != "auto":
                cast_weights(model, config.dtype)
        else:
            tokenizer = _read_tokenizer(source, options, repr(config.base))
            model = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=config.dtype,
                attn_implementation=config.attention,
                use_safetensors=True,
                **options,
                **quantisation,
            )
    except _UNREADABLE as error:
        advice = (
            "; set model.attention: eager" if "does not support an attention" in str(error) else ""
        )
        raise ConfigError(
            f"the base model {config.base!r} could not be loaded: {error}{advice}"
        ) from None
    check_attention(model, config.attention)
    refuse_transposed(model, config)
    old_size = len(tokenizer)
    ids = add_memory_tokens(tokenizer, prompt_format.memory)
    with _seeded(seed):
        resize_embeddings(model, tokenizer, [i for i in ids if i >= old_size])
        add_modules(model, prompt_format, folder)
    return model, tokenizer


def _random_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, seed: int
) -> PreTrainedModel:
    """A model of the sizes of `config.scratch`, for a tokenizer with memory tokens."""
    assert config.scratch is not None
    with _seeded(seed):
        try:
            model = build_model(config.scratch, tokenizer, config.attention)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"model.attention {config.attention!r}: {error}; model.attention: sdpa runs "
                "everywhere"
            ) from None
        add_modules(model, prompt_format)
    check_attention(model, config.attention)
    return model


def _origin(config: ModelConfig) -> tuple[str, Path | None, dict[str, Any]]:
    """Return a base's name for transformers, its folder if it is here, and the options."""
    assert config.base is not None
    file = find_gguf(config.base)
    folder = folder_of(file, config.revision) if file else local_model_folder(Path(config.base))
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    return str(folder) if folder else config.base, folder, options


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a base alone.

    Raises:
        ConfigError: it cannot be loaded.
    """
    source, _, options = _origin(config)
    return _read_tokenizer(source, options, repr(config.base))


def _read_tokenizer(source: str, options: dict[str, Any], of: str) -> PreTrainedTokenizerBase:
    """A tokenizer as it stands, with a fixed date; `of` names its model in messages.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
    except _UNREADABLE as error:
        raise ConfigError(f"the tokenizer of {of} could not be loaded: {error}") from None
    except Exception as error:  # of tokenizers, which raises nothing narrower
        raise ConfigError(f"the tokenizer of {of} is damaged: {error}") from None
    fix_date(tokenizer)
    return tokenizer


@contextlib.contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Random numbers from a seed, the caller's own stream undisturbed (models start on the CPU)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def check_attention(model: PreTrainedModel, attention: str) -> None:
    if attention == "flex_attention" and not family_of(model.config.model_type).flex_attention:
        raise ConfigError(
            f"{model.config.model_type} models do not run on flex_attention; use sdpa"
        )


def resize_embeddings(model: Any, tokenizer: PreTrainedTokenizerBase, new_ids: list[int]) -> None:
    """Make room for new tokens and start each at the mean of the old rows plus a little noise.

    The noise (a tenth of the rows' standard deviation) tells the tokens apart; the paper does not
    say how it initialises them, so this is our choice. Old rows are left bit for bit. Rows that the
    tokenizer has beyond the model's are their mean: what is drawn would differ when loaded again.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    others = sorted(set(range(rows, len(tokenizer))) - set(new_ids))
    if not new_ids and not others:
        return
    outputs = None if model.config.tie_word_embeddings else model.get_output_embeddings()
    with torch.no_grad():
        for module in filter(None, (model.get_input_embeddings(), outputs)):
            weight = module.weight
            old = weight[: min([rows, *new_ids])].float()
            noise = (
                torch.randn(len(new_ids), weight.shape[1], device=weight.device) * old.std(0) * 0.1
            )
            weight[new_ids] = (old.mean(0) + noise).to(weight.dtype)
            weight[others] = old.mean(0).to(weight.dtype)


# --- saving and loading --------------------------------------------------------------------------


def save_trained(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt_format: PromptFormat,
    base: ModelConfig,
    folder: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write weights (safetensors; the adapter alone under LoRA), tokenizer and `rim.json`.

    Args:
        weights: the model's, by name, where it holds a shard of them only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
    tokenizer.save_pretrained(folder)
    if isinstance(model, PeftModel) and not model.config.tie_word_embeddings:
        ids = memory_token_ids(tokenizer, prompt_format.memory)
        head = model.get_output_embeddings().weight
        if weights is not None:
            names = {parameter: name for name, parameter in model.named_parameters()}
            head = weights[names[head]]
        save_file({"rows": head.detach()[ids].cpu().contiguous()}, folder / HEAD_ROWS_FILE)
    # An adapter needs its base again, from wherever it is loaded.
    if base.base and (file := find_gguf(base.base)):
        base = base.model_copy(update={"revision": file_hash(file)})
    if base.base and Path(base.base).exists():
        base = base.model_copy(update={"base": str(Path(base.base).resolve())})
    description = {
        "prompt_format": prompt_format.model_dump(mode="json"),
        "model": base.model_dump(mode="json"),
    }
    (folder / FORMAT_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_trained(
    folder: Path,
    *,
    merge: bool = False,
    trainable: bool = False,
    attention: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load what `save_trained` wrote.

    Args:
        merge: fold a LoRA adapter into the weights (faster; the result is a plain transformers
            model).
        trainable: keep the adapter's weights open for further training.
        attention: an attention implementation other than the trained one.
        dtype: a number format other than the trained one; adapters are merged before.
    """
    config = read_model_config(folder)
    if not (attention or trainable or config.takes_our_mask or torch.cuda.is_available()):
        attention = "sdpa"  # the same but for rounding, and asked where there is no such kernel
    if attention:
        config = config.model_copy(update={"attention": attention})
    options = {"trust_remote_code": config.trust_remote_code}
    tokenizer = _read_tokenizer(str(folder), options, str(folder))
    model: Any
    if has_adapter(folder):
        prompt_format = read_prompt_format(folder)
        # The seed does not matter: all that it draws is replaced by what was saved.
        base, _ = load_base(config, prompt_format, (), seed=0)
        base = dequantised(base) if merge else base
        if trainable:
            set_dropout(base, 0.0)  # as `prepare_for_training` does
        if (folder / HEAD_ROWS_FILE).exists():
            ids = memory_token_ids(tokenizer, prompt_format.memory)
            rows = load_file(folder / HEAD_ROWS_FILE)["rows"]
            with torch.no_grad():
                head: Any = base.get_output_embeddings()
                head.weight[ids] = rows.to(head.weight.device, head.weight.dtype)
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
        add_modules(model, read_prompt_format(folder), folder)
    model.eval()
    if device:
        model.to(device)
    if dtype:
        cast_weights(model, dtype)
    return model, tokenizer


def cast_weights(model: torch.nn.Module, dtype: str) -> None:
    """Weights alone: `model.to` would round the frequencies of rotary positions too."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))


def load_untrained(folder: Path, *, device: str | None = None) -> Any:
    """What a trained model started from: its base, or fresh weights; memory tokens as new.

    Raises:
        ConfigError: the base cannot be loaded.
    """
    config, prompt_format = read_model_config(folder), read_prompt_format(folder)
    model: Any
    if config.scratch is None:
        model, _ = load_base(config, prompt_format, (), seed=0)
    else:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model = _random_model(config, tokenizer, prompt_format, seed=0)
    if device:
        model.to(device)  # pyrefly: ignore[bad-argument-type]  (its declared self is odd)
    return model.eval()


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
