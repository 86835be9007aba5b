"""An exported folder becomes one GGUF file, which llama.cpp serves.

from rim.deploy.export.gguf import write_gguf
report = write_gguf("exported", "model.gguf", weights="q8_0")

llama.cpp's own converter knows a tokenizer by the hash of what it does to a fixed text, so it
refuses every tokenizer that was trained here. This writer reads the tokenizer's own description
instead, for the three families that are trained here, and refuses what it cannot describe exactly.
"""

from rim.config import ConfigError

try:
    import gguf as _gguf
except ImportError as error:
    raise ConfigError(
        'writing GGUF needs the gguf package: pip install "reasoning-in-memory[gguf]"'
    ) from error

from rim.deploy.export.gguf.writing import WEIGHTS, GgufReport, Weights, write_gguf
