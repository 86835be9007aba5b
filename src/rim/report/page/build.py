"""One self-contained HTML file from gathered results: no network, no library, one small script.

Whatever comes from a model, a data file or a recipe is escaped by the template (autoescape), and
the page's own policy allows no script but the one whose hash it states.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from rim.report.page.compared import comparison_sections, demo_section
from rim.report.page.gather import Material, Run, gather
from rim.report.page.headline import headline
from rim.report.page.section import Section
from rim.report.page.sections import run_sections
from rim.report.text import printable

TEMPLATES = Path(__file__).parent / "templates"


def build_page(material: Material, title: str, version: str) -> str:
    """The HTML of a report.

    Args:
        version: of the library, for the foot.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    environment.filters["breakable"] = _breakable
    parts: list[tuple[str, str, list[Section]]] = []
    for number, comparison in enumerate(material.comparisons):
        sections = comparison_sections(comparison)
        parts.append((f"c{number}", f"Comparison {comparison['name']}", sections))
    for number, demo in enumerate(material.demos):
        parts.append((f"d{number}", f"Demo, seed {demo['seed']}", [demo_section(demo)]))
    for number, run in enumerate(material.runs):
        parts.append((f"r{number}", f"Run {run.label}", _present(run, run_sections(run))))
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        title=title,
        headline=headline(material),
        parts=parts,
        problems=material.problems,
        style=Markup((TEMPLATES / "report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=digest,
        safe=Markup,
        version=version,
    )


def _present(run: Run, sections: Sequence[Section]) -> list[Section]:
    """A run without blocks has nothing of them to show, and lacks nothing."""
    has_blocks = any("per_block" in e["summary"] for e in run.of("evaluation"))
    has_blocks = has_blocks or run.config.get("method") in (None, "rim") or bool(run.of("analysis"))
    about_blocks = ("blocks", "selectors", "controls", "protocol", "faithfulness")
    about_blocks += ("probes", "inside", "walk")
    shown = [s for s in sections if has_blocks or not s.id.startswith(about_blocks)]
    filled = [s for s in shown if s.lines or s.figures or s.tables or any(s.extra.values())]
    empty = [s for s in shown if s not in filled and s.missing]
    if empty:
        rows = [[s.title, "\n".join(s.missing)] for s in empty]
        table = ("What would make it", ["", ""], rows)
        filled.append(Section("missing", "Not here yet", tables=[table]))
    return filled


def _shown(text: Any) -> str:
    """Text of others, without characters that turn or hide what stands beside them."""
    return printable(str(text), keep="\n")


def _breakable(text: Any) -> Markup:
    """A name, escaped, that a narrow column may break behind its underscores."""
    return Markup(str(escape(_shown(text))).replace("_", "_<wbr>"))


def write_report(
    paths: Sequence[Path], out: Path, version: str, title: str | None = None
) -> list[str]:
    """Write the page of runs and results; returns what could not be read."""
    material = gather(paths)
    name = title or ", ".join(p.resolve().name if p.is_dir() else p.stem for p in paths[:3])
    page = build_page(material, name, version)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return material.problems
