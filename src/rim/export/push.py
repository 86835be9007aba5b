"""Sending an exported folder to the hub, or saying what would be sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError
from rim.export.exporting import file_hashes, read_record


@dataclass(frozen=True)
class PushPlan:
    """What a push sends: `files` are names and sizes in bytes."""

    folder: Path
    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.files)


def plan_push(folder: str | Path, repo: str, *, private: bool = True) -> PushPlan:
    """Check that a folder is an export as it was checked, and list what would be sent.

    Raises:
        ConfigError: not an export, changed since its self-check, or a repository without owner.
    """
    folder = Path(folder)
    record = read_record(folder)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"a repository is OWNER/NAME, got {repo!r}")
    expected = record["sha256"]
    found = file_hashes(folder)
    changed = sorted(n for n in expected | found if expected.get(n) != found.get(n))
    if changed:
        raise ConfigError(
            f"{folder} was changed after its self-check ({', '.join(changed[:5])}); export again"
        )
    files = tuple((f.name, f.stat().st_size) for f in sorted(folder.iterdir()))
    return PushPlan(folder, repo, private, files)


def push(plan: PushPlan, api: Any = None) -> str:
    """Create the repository if need be and upload the folder; returns its address.

    Args:
        api: a `huggingface_hub.HfApi`; by default one with the token of `hf auth login`.

    Raises:
        ConfigError: the hub's answer, if it is not a success.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = api or HfApi()
    try:
        address = api.create_repo(plan.repo, private=plan.private, exist_ok=True)
        api.upload_folder(
            repo_id=plan.repo, folder_path=plan.folder, commit_message="Export of a trained run"
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ConfigError(f"the hub refused the upload: {error}") from None
    return str(address)
