"""Is a base model within reach? A hub that does not answer is found out at once, not after minutes
of retries.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

from rim.config import ConfigError
from rim.models.gguf_file import find_gguf

#: Seconds that the hub has for its first sign of life.
PATIENCE = 5.0

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def check_base(base: str, revision: str | None = None) -> None:
    """Whether `model.base` is a GGUF file or a folder, is in the hub's local cache, or can be asked
    for.

    Where the hub is out of reach, the cached files are used without asking it.

    Raises:
        ConfigError: none of them.
    """
    if find_gguf(base) or Path(base).exists():
        return
    failed = f"the base model {base!r} could not be loaded: there is no such folder"
    if not _HUB_ID.fullmatch(base) or len(base) > 96:
        raise ConfigError(f"{failed}, and a model of the hub is written OWNER/NAME")
    from huggingface_hub import constants, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(base, "config.json", revision=revision), str)
    if cached and constants.HF_HUB_OFFLINE:
        return
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{failed}, and it is not in the hub's local cache (HF_HUB_OFFLINE is set)"
        )
    if reachable(f"{constants.ENDPOINT}/{base}/resolve/{revision or 'main'}/config.json"):
        return
    if not cached:
        raise ConfigError(
            f"{failed}, and the hub ({constants.ENDPOINT}) does not answer; go online, or give the "
            "folder of a downloaded model"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that this one starts
    constants.HF_HUB_OFFLINE = True


def reachable(url: str) -> bool:
    """Whether a server answers, whatever it says, in `PATIENCE` seconds."""
    answers: list[bool] = []
    # Looking up a name has no time limit of its own: the thread is left behind then.
    thread = threading.Thread(target=lambda: answers.append(_answers(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers == [True]


def _answers(url: str) -> bool:
    import ssl

    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # The hub's own client may trust certificates that this one does not.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
