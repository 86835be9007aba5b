"""Engines and what they serve, for tests that start none."""

from __future__ import annotations

from pathlib import Path

from rim.deploy.export.record import ExportRecord
from rim.deploy.serve import Engine, Subject

RECORD = ExportRecord(default_blocks=3, most_blocks=64, sha256={}, source_sha256={})
DIRECT = ExportRecord(default_blocks=0, most_blocks=0, sha256={}, source_sha256={})
FOLDER = Subject(Path("out"), None, RECORD, (7, 8, 9))
GGUF = Subject(None, Path("m.gguf"), None)
BOTH = Subject(Path("out"), Path("out/m.gguf"), RECORD, (7, 8))
TRANSFORMERS = Engine("transformers", ("transformers", "serve"))
VLLM = Engine("vllm", ("vllm", "serve"))
LLAMA = Engine("llama.cpp", ("llama-server",))
OLD_LLAMA = Engine("llama.cpp", ("llama-server",), web_pages="always")
NEW_LLAMA = Engine("llama.cpp", ("llama-server",), names_headers=True)
