"""Text of a model, a server or a file as a screen may have it."""

from __future__ import annotations

import json
import unicodedata


def printable(text: str, keep: str = "\n\t") -> str:
    """No character can command a terminal (Cc) or stand there unseen (Cf), and none is beyond
    UTF-8 (Cs). They are shown as in JSON, so that JSON still says the same.

    Args:
        keep: characters that stay nevertheless.
    """
    return "".join(
        json.dumps(character)[1:-1]
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in keep
        else character
        for character in text
    )


def duration(seconds: float) -> str:
    """`80 s`, `25 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
