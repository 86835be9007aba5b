"""Builds the site: `python docs/site.py`.

The pages of docs/ link to files beside docs/ (examples, results, the lab book), as a reader of the
repository expects. A site has only what lies in its own folder, so these files are put into
`build/docs/project/` and the links turned to them; the notebook becomes a page. Then `zensical
build --strict` checks every link and anchor.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
#: Pages of the navigation that nothing needs to link to.
ALWAYS = (ROOT / "LOG.md", ROOT / "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


class Staging:
    """Copies pages, and whatever they link to, into one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.done: set[Path] = set()

    def place(self, source: Path) -> Path:
        """Where a file of the repository lies in the site.

        Raises:
            FileNotFoundError: a page links to what is not there, or to a folder.
        """
        if source == ROOT / "README.md":
            source = DOCS / "index.md"
        if source == NOTEBOOK:
            target = self.folder / "tour.md"
        elif source.is_relative_to(DOCS):
            target = self.folder / source.relative_to(DOCS)
        elif source.is_relative_to(ROOT):
            target = self.folder / "project" / source.relative_to(ROOT)
        else:
            raise FileNotFoundError(f"a page links to {source}, outside the repository")
        if source not in self.done:
            self.done.add(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".md":
                text = self.turned(source.read_text(encoding="utf-8"), source, target)
                target.write_text(text, encoding="utf-8")
            elif source == NOTEBOOK:
                shutil.copy(source, self.folder / source.name)
                title, *rest = map(
                    partial(self.turned, source=source, target=target), parts_of(source)
                )
                itself = f"[This page as a notebook]({source.name})"
                target.write_text("\n\n".join([title, itself, *rest]) + "\n", encoding="utf-8")
            elif source.is_file():
                shutil.copy(source, target)
            else:
                raise FileNotFoundError(f"a page links to {source}, which is no file")
        return target

    def turned(self, text: str, source: Path, target: Path) -> str:
        """A page's text whose links lead to the places of the site."""

        def link(match: re.Match[str]) -> str:
            linked = (source.parent / match[1]).resolve()
            return os.path.relpath(self.place(linked), target.parent)

        return LINK.sub(link, text)


def parts_of(notebook: Path) -> list[str]:
    """A notebook's cells as parts of a page."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    return [text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts]


def stage(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    staging = Staging(folder)
    for page in (*sorted(DOCS.glob("*.md")), *ALWAYS, NOTEBOOK):
        staging.place(page)


def build() -> int:
    """
    Returns:
        the exit code of zensical.
    """
    stage(ROOT / "build" / "docs")
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(build())
