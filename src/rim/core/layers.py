"""The model below its wrappers, and what its config says of its layers: how far they see, whether
they keep a state.

A window is one more clause of the attention rule (`rim.core.masks`), so windowed layers run all
read-outs in one pass like any other. A state that passes from token to token (linear attention,
convolution) is divided by no mask and cut by no cache: such models run every read-out as a row of
its own (`rim.core.layout.separate_rows`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache

#: Kinds of `config.layer_types` that are attention over columns, and those without any attention.
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
_NO_ATTENTION = ("moe", "mlp")


@dataclass(frozen=True)
class Window:
    """What a layer sees at most: keys fewer than `size` positions back ("sliding"), or those of the
    query's own stretch of `size` positions ("chunked").
    """

    size: int
    kind: Literal["sliding", "chunked"] = "sliding"


def unwrap(model: Any) -> Any:
    """The transformers model below the wrappers of several processes and of peft."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextlib.contextmanager
def evaluating(model: Any) -> Generator[None]:
    """While this lasts nothing drops out; then the model trains again if it did."""
    was_training = model.training
    if was_training:  # walking through all modules costs a millisecond, so only where needed
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def text_config(config: Any) -> Any:
    """What a config says of the language model: those of Gemma 3 and others that see pictures, too,
    hold it in a part of its own.
    """
    part = getattr(config, "get_text_config", None)
    return part(decoder=True) if part else config


def num_layers(model: Any) -> int:
    return text_config(unwrap(model).config).num_hidden_layers


def layer_windows(config: Any) -> dict[str, Window | None]:
    """The window of every kind of attention layer; None: it sees all.

    The kinds are those of `config.layer_types`. A model without them has one kind: all its layers
    have the window of its config, if it states one (as transformers' own caches read it).
    """
    config = text_config(config)
    sliding, chunked = _window(config, "sliding"), _window(config, "chunked")
    windows = {"sliding_attention": sliding, "chunked_attention": chunked}
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [kind for kind, window in windows.items() if window][:1] or ["full_attention"]
    return {kind: windows.get(kind) for kind in dict.fromkeys(kinds) if kind in _ATTENTION}


def _window(config: Any, kind: Literal["sliding", "chunked"]) -> Window | None:
    field = "sliding_window" if kind == "sliding" else "attention_chunk_size"
    size = getattr(config, field, None)
    return Window(size, kind) if size else None


def has_windows(config: Any) -> bool:
    return any(layer_windows(config).values())


def state_kinds(config: Any) -> tuple[str, ...]:
    """Kinds of layers that no mask of ours divides: those that are no attention over columns keep a
    state, as far as we know; GPT-Neo's "local" ones count columns instead of positions.
    """
    config = text_config(config)
    kinds = getattr(config, "layer_types", None) or ()
    kinds = [kind for kind in dict.fromkeys(kinds) if kind not in (*_ATTENTION, *_NO_ATTENTION)]
    counting = "local" in (getattr(config, "attention_layers", None) or ())
    return (*kinds, "local") if counting else tuple(kinds)


def cache_argument(model: Any) -> str:
    """The name under which a model takes its cache: models without any attention have their own."""
    parameters = inspect.signature(type(model).forward).parameters
    return "cache_params" if "cache_params" in parameters else "past_key_values"


def new_cache(config: Any) -> DynamicCache:
    """A cache that keeps every column: answers side by side need more columns than positions, and
    a cache with a window would cut them off. Layers with a state get what transformers gives them.
    """
    if has_windows(config) and not state_kinds(config):
        return DynamicCache()
    return DynamicCache(config=config)
