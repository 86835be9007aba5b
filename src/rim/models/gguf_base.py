"""A GGUF file becomes an ordinary model folder, once: weights, tokenizer, chat template.

Quantised weights become the float32 numbers that they stand for: what quantising lost stays lost.
Reading takes up to a minute, so the folder is kept in the user's cache, under the file's hash and
that of what read it; any such folder may be deleted.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rim.config import ConfigError
from rim.models.scratch import digits_alone
from rim.results import cache_folder, file_sha256

#: Splitting rules that transformers does not set from a file's name for them: it would leave
#: GPT-2's, under which digits can end up in one token.
_PRE_TOKENIZERS = {"smollm": digits_alone}
_HASH_DIGITS, _MAKER_DIGITS = 16, 6


def file_hash(file: Path) -> str:
    """The first digits of a file's SHA-256."""
    return file_sha256(file)[:_HASH_DIGITS]


@functools.cache
def _maker() -> str:
    """Hash the code that reads a file, ours and transformers': another may read it otherwise."""
    code = Path(__file__).read_text(encoding="utf-8") + inspect.getsource(digits_alone)
    return hashlib.sha256((code + transformers.__version__).encode()).hexdigest()[:_MAKER_DIGITS]


def folder_of(file: Path, revision: str | None = None) -> Path:
    """The model folder made of a GGUF file, made now where it is not in the cache yet.

    Args:
        revision: the hash that the file must have; None: any.

    Raises:
        ConfigError: the file is another one, is not understood, or there is no room.
    """
    digest = file_hash(file)
    if revision is not None and not (revision.startswith(digest) or digest.startswith(revision)):
        raise ConfigError(
            f"{file} is not the file that was meant: its hash begins with {digest}, not with "
            f"{revision}"
        )
    folder = cache_folder("gguf") / f"{file.stem}-{digest}-{_maker()}"
    if folder.exists():
        return folder
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    say.print(f"Reading {file.name} into {folder}: once, up to a minute.", markup=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            with say.status("Reading its weights"):
                _write_folder(file, draft)
            draft.chmod(0o755)
            if not folder.exists():  # another process may have been faster
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} could not be written ({error}); XDG_CACHE_HOME says where caches go"
        ) from None
    return folder


def _write_folder(file: Path, folder: Path) -> None:
    model, tokenizer = read_gguf(file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer.

    Raises:
        ConfigError: an architecture that transformers does not read, or tensors that do not fit.
    """
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "local_files_only": True,
    }
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(**source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, output_loading_info=True
        )
        read, found = loaded
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise ConfigError(f"{file.name} is not understood: {error}") from None
    for what in ("missing_keys", "mismatched_keys"):
        if found[what]:
            first = sorted(map(str, found[what]))[0]
            raise ConfigError(
                f"{file.name} is not understood: {what.replace('_', ' ')}, such as {first}"
            )
    # The loaded model counts as quantised, and such a one refuses to be saved.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    _set_pre_tokenizer(file, tokenizer)
    return model, tokenizer


def _set_pre_tokenizer(file: Path, tokenizer: Any) -> None:
    import gguf

    field = gguf.GGUFReader(file).get_field("tokenizer.ggml.pre")
    make = _PRE_TOKENIZERS.get(field.contents() if field else "")
    if make is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = make()
