"""The web page that asks a server from a browser: one file, opened as it is."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


def page_url(
    server: str,
    *,
    question: str = "",
    blocks: Sequence[int] = (),
    most_blocks: int | None = None,
    forbidden_ids: Sequence[int] = (),
    run: bool = False,
) -> str:
    """The page's file address with its fields filled in.

    Args:
        blocks: numbers of memory blocks to ask with.
        most_blocks: end of the slider.
        forbidden_ids: tokens an answer may not contain, see `Client`.
        run: ask at once.
    """
    fields = {
        "server": server,
        "question": question,
        "blocks": ",".join(map(str, blocks)),
        "most": "" if most_blocks is None else str(most_blocks),
        "forbid": ",".join(map(str, forbidden_ids)),
        "run": "1" if run else "",
    }
    kept = {name: value for name, value in fields.items() if value}
    return f"{PAGE.as_uri()}#{urllib.parse.urlencode(kept, quote_via=urllib.parse.quote)}"
