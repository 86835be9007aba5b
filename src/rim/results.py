"""What every results file states (versions, commit, machine); how JSON is written and read, files
are hashed; where files lie that can be made again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = "reasoning-in-memory torch transformers peft accelerate tokenizers datasets"


def environment() -> dict[str, Any]:
    """Versions, git commit of the library (`-dirty` where files were changed), and machine."""
    import torch  # slow, and commands that find a mistake never get here

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES.split()},
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where the system tells it (Linux), else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def wrong_answers_file(result: Path) -> Path:
    """Where the wrong answers of an evaluation lie, beside its result."""
    return result.with_name(f"{result.stem}-wrong.jsonl")


#: Of a checkout all but what results are written into, and written about.
_MATTERS = (":(top)", ":(top,exclude)results", ":(top,exclude)docs", ":(top,exclude)*.md")


def git_commit() -> str | None:
    """Commit of the checkout that holds this package; `-dirty` if files differ of which a result
    may depend, so not documents nor other results; None outside a checkout.
    """
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *_MATTERS)
        return commit + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def cache_folder(name: str) -> Path:
    """Where files lie that can be made again; not created."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "rim" / name


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, written as `write_text` does."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """A line of JSON for each, written as `write_text` does."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a file in one move, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
