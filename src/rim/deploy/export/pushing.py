"""Sending an exported folder to the hub, or saying what would be sent."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError
from rim.deploy.export.record import EXPORT_FILE, check_unchanged, read_record


@dataclass(frozen=True)
class PushPlan:
    """What a push sends: `files` are names and sizes in bytes.

    `left_out` names what came into the folder after its self-check, which nobody has checked.
    """

    folder: Path
    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]
    left_out: tuple[str, ...] = ()

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
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise ConfigError(f"the hub takes no repository {repo!r}: {error}") from None
    check_unchanged(folder, record)
    names = sorted([EXPORT_FILE, *record.sha256])
    files = tuple((name, (folder / name).stat().st_size) for name in names)
    later = [path for path in sorted(folder.iterdir()) if path.name not in names]
    left_out = tuple(f"{path.name}/" if path.is_dir() else path.name for path in later)
    return PushPlan(folder, repo, private, files, left_out)


def push(plan: PushPlan, api: Any = None) -> str:
    """Create the repository if need be and upload the plan's files; returns its address.

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
            repo_id=plan.repo,
            folder_path=plan.folder,
            commit_message="Export of a trained run",
            allow_patterns=[glob.escape(name) for name, _ in plan.files],
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        raise ConfigError(f"the hub refused the upload: {error}") from None
    except HfHubHTTPError.__bases__[0] as error:  # of its HTTP library, httpx or httpx2
        raise ConfigError(f"the hub could not be reached: {error}") from None
    return str(address)
