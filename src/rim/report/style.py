"""The one look of every picture: colours, fonts, and SVG that is the same bytes every time.

matplotlib is imported when something is drawn and not before, and without its global figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2933", "#52606d", "#e4e7eb", "#ffffff"

# Okabe and Ito's colours and two of Tol's, told apart with any colour vision.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PINK, SKY, WINE, SLATE = "#cc79a7", "#56b4e9", "#882255", "#4a5560"

#: A method has the same colour in every picture.
METHOD_COLOURS = {
    "rim": BLUE,
    "cot": VERMILION,
    "icot": GREEN,
    "pause": ORANGE,
    "coconut": PINK,
    "codi": SKY,
    "lotus": WINE,
    "direct": SLATE,
}
#: For names that say no known method, in the order in which they come.
OTHER_COLOURS = ("#44aa99", "#999933", "#aa4499", "#332288", "#661100", "#117733")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10.0,
    "text.color": INK,
    "text.parse_math": False,  # a name may have a dollar sign
    "axes.facecolor": "none",
    "axes.titlesize": 12.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "rim",
}


@dataclass(frozen=True)
class Mark:
    """How a method's points are drawn."""

    colour: str
    marker: str


def method_marks(names: Iterable[str]) -> dict[str, Mark]:
    """Colour and marker of each name of one picture.

    A variant (`rim_looped`) has the colour of its method (`rim`) and a marker of its own.
    """
    marks: dict[str, Mark] = {}
    variants: dict[str, int] = {}
    others = 0
    for name in names:
        base = _method_of(name)
        if base is None:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            marks[name] = Mark(colour, MARKERS[others // len(OTHER_COLOURS) % len(MARKERS)])
            others += 1
            continue
        if name != base:
            variants[base] = variants.get(base, 0) + 1
        number = 0 if name == base else variants[base]
        marks[name] = Mark(METHOD_COLOURS[base], MARKERS[number % len(MARKERS)])
    return marks


def _method_of(name: str) -> str | None:
    """`rim` of `rim_looped`; None where the first word is no method."""
    for separator in "_-.":
        if name.partition(separator)[0] in METHOD_COLOURS:
            return name.partition(separator)[0]
    return None


def render(
    draw: Callable[[Figure], None],
    size: tuple[float, float],
    title: str,
) -> bytes:
    """The picture that `draw` makes on an empty figure of this size (inches).

    Args:
        title: for those who cannot see the picture.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Neither time nor version: the same numbers give the same file.
    about: dict[str, Any] = {"Date": None, "Creator": None, "Title": title}
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size, facecolor=PAPER)
        FigureCanvasAgg(figure)
        draw(figure)
        target = io.BytesIO()
        figure.savefig(target, format="svg", metadata=about)
    return _compact(target.getvalue())


def _compact(svg: bytes) -> bytes:
    """Without what says nothing: a list of fonts on every text, turns by no degrees, comments that
    repeat the text, empty groups, the fifth digit behind the point.
    """
    text = re.sub(r"<!--.*?-->\s*", "", svg.decode(), flags=re.DOTALL)
    text = re.sub(r" font-family: 'DejaVu Sans',[^;\"]*;", "", text)
    text = text.replace("<svg ", """<svg font-family="'DejaVu Sans', sans-serif" """, 1)
    text = re.sub(r"<g/>\s*", "", text)
    text = re.sub(r' transform="rotate\(-0 [-\d. ]+\)"', "", text)
    text = re.sub(r'="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    return re.sub(r"\n +", "\n", text).encode()
