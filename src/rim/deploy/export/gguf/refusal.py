"""One way to say no: what stands in the way, and what to try instead."""

from __future__ import annotations

from rim.config import ConfigError


def refusal(obstacle: str) -> ConfigError:
    """The error for a model that this writer cannot describe exactly."""
    return ConfigError(
        f"cannot write GGUF: {obstacle}. llama.cpp's own converter may know this model; in a clone "
        "of github.com/ggml-org/llama.cpp: python convert_hf_to_gguf.py FOLDER --outfile model.gguf"
    )
