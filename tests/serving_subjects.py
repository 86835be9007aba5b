"""Engines and what they serve, for tests that start none."""

from __future__ import annotations

from pathlib import Path

from rim.deploy.export.record import BlockRange
from rim.deploy.serve import Engine, Subject

BLOCKS = BlockRange(default=3, most=64)
DIRECT = BlockRange(default=0, most=0)
FOLDER = Subject(Path("out"), None, BLOCKS, (7, 8, 9))
GGUF = Subject(None, Path("m.gguf"), None)
BOTH = Subject(Path("out"), Path("out/m.gguf"), BLOCKS, (7, 8))
TRANSFORMERS = Engine("transformers", ("transformers", "serve"))
VLLM = Engine("vllm", ("vllm", "serve"))
LLAMA = Engine("llama.cpp", ("llama-server",))
OLD_LLAMA = Engine("llama.cpp", ("llama-server",), web_pages="always")
NEW_LLAMA = Engine("llama.cpp", ("llama-server",), names_headers=True)
