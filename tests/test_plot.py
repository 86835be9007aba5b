"""Pictures: a method's colour is its own everywhere, names are readable, files do not change."""

from __future__ import annotations

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from rim.methods import METHODS
from rim.report.plot import accuracy_latency_svg, draw, latency_axis
from rim.report.style import METHOD_COLOURS, PAPER, method_marks


def rows(*methods):
    """Rows of name, accuracy, ms and what it is a control of."""
    spread = {"kind": "range", "seeds": 3}
    return {
        name: {
            "final": spread | {"mean": share, "low": share - 0.02, "high": min(1.0, share + 0.01)},
            "latency": {"answer_ms": spread | {"mean": ms, "low": 0.95 * ms, "high": 1.05 * ms}},
            "control_of": control_of,
        }
        for name, share, ms, control_of in methods
    }


CROWD = rows(
    *((name, 0.97 - i / 200, 6 + i / 20, None) for i, name in enumerate(METHODS)),
    ("rim <b>", 0.95, 6.1, "rim"),
    ("of $mine$", 0.9, 6.0, None),
    ("far", 0.03, 40.0, None),
)


def test_every_method_has_a_colour_of_its_own():
    assert set(METHOD_COLOURS) == set(METHODS)
    assert len(set(METHOD_COLOURS.values())) == len(METHODS)


def test_a_variant_has_the_colour_of_its_method_and_another_marker():
    marks = method_marks(
        ["rim_looped", "rim", "rim-small", "pause_with_curriculum", "rimless", "x"]
    )
    assert {marks[n].colour for n in ("rim", "rim_looped", "rim-small")} == {METHOD_COLOURS["rim"]}
    assert len({marks[n].marker for n in ("rim", "rim_looped", "rim-small")}) == 3
    assert marks["pause_with_curriculum"].colour == METHOD_COLOURS["pause"]
    unknown = {marks["rimless"].colour, marks["x"].colour}
    assert len(unknown) == 2 and not unknown & set(METHOD_COLOURS.values())
    # What else is in the picture changes no method's colour.
    assert method_marks(["x", "cot"])["cot"] == method_marks(["cot"])["cot"]


def test_many_unknown_names_are_told_apart():
    marks = method_marks([f"x{i}" for i in range(20)])
    assert len(set(marks.values())) == 20


def test_names_overlap_neither_each_other_nor_points_nor_bars():
    figure = Figure(figsize=(7.6, 4.8))
    canvas = FigureCanvasAgg(figure)
    draw(figure, "chains", CROWD)
    canvas.draw()
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(boxes) == set(CROWD)
    for one, other in itertools.combinations(boxes.values(), 2):
        assert not one.overlaps(other)
    for name, row in CROWD.items():
        time, right = row["latency"]["answer_ms"], row["final"]
        middle = (time["mean"], right["mean"])
        places = [middle, (time["low"], right["mean"]), (time["high"], right["mean"])]
        places += [(time["mean"], right["low"]), (time["mean"], right["high"])]
        for ms, share in places:
            point = axes.transData.transform((ms, 100 * share))
            assert not any(box.contains(*point) for box in boxes.values()), name
    for box in boxes.values():
        assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1)


def test_controls_are_hollow_and_the_caption_says_so():
    figure = Figure()
    FigureCanvasAgg(figure)
    methods = rows(("rim", 0.9, 5.0, None), ("pause_with_curriculum", 0.4, 5.0, "rim"))
    draw(figure, "chains", methods)
    full, hollow = (line for line in figure.axes[0].lines if line.get_marker() in ("o", "s"))
    assert to_hex(full.get_markerfacecolor()) == METHOD_COLOURS["rim"]
    assert to_hex(hollow.get_markerfacecolor()) == PAPER
    assert "Hollow: trained as a control." in figure.texts[0].get_text()


@pytest.mark.slow
def test_the_svg_is_the_same_bytes_every_time_and_its_text_is_text():
    svg = accuracy_latency_svg("chains", CROWD)
    assert svg == accuracy_latency_svg("chains", CROWD)
    texts = {e.text for e in ET.fromstring(svg).iter() if e.tag.endswith("text")}
    assert set(CROWD) <= texts
    assert {"accuracy, %", "time to the whole answer, ms (log scale)"} <= texts


@pytest.mark.parametrize("times", [(5.0, 8.0), (1.0, 1.0), (90.0, 99.9), (3.0, 11.0), (0.02, 0.07)])
def test_the_latency_axis_begins_at_zero_where_methods_are_close(times):
    axes = Figure().add_subplot()
    assert latency_axis(axes, *times) == ""
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > times[1]


@pytest.mark.parametrize("times", [(3.0, 400.0), (1.0, 4.0), (0.9, 11.0), (0.02, 5.0)])
def test_the_latency_axis_is_logarithmic_where_methods_differ_by_much(times):
    axes = Figure().add_subplot()
    assert latency_axis(axes, *times) and axes.get_xscale() == "log"
    assert axes.get_xlim()[0] < times[0] and times[1] < axes.get_xlim()[1]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert len(ticks) >= 2 and all(float(t) in axes.get_xticks() for t in ticks)


def test_nothing_loads_matplotlib_before_it_draws():
    code = "import sys, rim.cli, rim.report.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
