"""Draws the pictures of the documents: `python docs/figures/make.py [--check]`.

demo.svg                    accuracy against latency, from results/demo_seed*.json
layout.svg                  one example's flat sequence and its attention mask, from rim.core
schedules.svg               lambda and alpha, from rim.core.readout_weights
real_learning.svg           learning curves, from results/compare_real.json
inside_*.svg                pictures of the report, of the demo's model, from results/inside_*.json
results/compare_*.svg       accuracy against latency, from the JSON beside it

With --check nothing is written: it ends with code 1 where a committed picture is another one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from rim.core.collate import collate
from rim.core.layout import Trunk, build_layout
from rim.core.masks import build_attention_mask, get_readout_mask_mod
from rim.core.readout_weights import readout_weights
from rim.evaluate.statistics import value_spread
from rim.methods import Readout
from rim.report.charts import standalone
from rim.report.curves import learning_chart
from rim.report.page.causal import faithfulness, protocols
from rim.report.page.gather import gather
from rim.report.page.inside import geometry_and_attention, probes, selectors
from rim.report.plot import accuracy_latency_svg
from rim.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, SLATE, VERMILION, render

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"
COMPARISONS = ("compare_arithmetic", "compare_rim_variants")

HIDDEN = "#f0f2f4"
FILLS = {"question": "#cbd2d9", "block": "#f7d774", 0: "#9fd0f2", 1: "#f0b8a0"}


# --- layout and mask -----------------------------------------------------------------------------


def draw_layout(figure: Figure) -> None:
    """Question 3+4-5=, two blocks, stage 1: block 1 says 3+4=7, block 2 says 7-5=2 (shortened)."""
    names = ["3", "+", "4", "-5", "=", *["b", "m", "m", "/b"] * 2, "3+4", "=7", "7-5", "=2"]
    ids = {name: i for i, name in enumerate(dict.fromkeys([*names, "end"]))}
    readouts = [
        Readout(1, (ids["3+4"], ids["=7"], ids["end"])),
        Readout(2, (ids["7-5"], ids["=2"], ids["end"])),
    ]
    trunk = Trunk.build([ids[n] for n in names[:5]], [ids[n] for n in names[5:9]], 2)
    batch = collate([build_layout(trunk, readouts)])
    segments, blocks = batch["segment_ids"][0].tolist(), batch["block_ids"][0].tolist()
    rule = get_readout_mask_mod(batch["segment_ids"], batch["block_ids"])
    mask = build_attention_mask("sdpa", rule, batch["segment_ids"], torch.bool)[0, 0].tolist()
    said = {i: name for name, i in ids.items()}
    targets = [said.get(t) for t in batch["targets"][0].tolist()]
    fills = [
        FILLS[s - 1] if s else FILLS["block" if b else "question"]
        for s, b in zip(segments, blocks, strict=True)
    ]
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-2.2, 20.4), ylim=(18.6, -4.4), aspect="equal")
    axes.axis("off")
    axes.text(0, -3.7, "One forward pass, many read-outs", fontsize=13)
    axes.text(0, -3.05, "row: what a token sees; column: a token in memory", color=MUTED)
    count = len(names)
    axes.add_patch(Rectangle((0, 0), count, count, facecolor=HIDDEN))
    for i in range(1, count):
        axes.plot([0, count], [i, i], color=PAPER, linewidth=1)
        axes.plot([i, i], [0, count], color=PAPER, linewidth=1)
    groups = [("question", 0, 5), ("block 1", 5, 9), ("block 2", 9, 13)]
    groups += [("read-out 1", 13, 15), ("read-out 2", 15, 17)]
    for name, start, stop in groups:
        axes.text((start + stop) / 2, -2.15, name, ha="center", fontsize=8.5)
        axes.plot([start + 0.08, stop - 0.08], [-1.95, -1.95], color=INK, linewidth=1.2)
    axes.text(-0.3, -0.28, "position", ha="right", color=MUTED, fontsize=8)
    for i, (name, fill) in enumerate(zip(names, fills, strict=True)):
        _token(axes, i, -1.75, 1, name, fill)
        position = batch["position_ids"][0, i].item()
        axes.text(i + 0.5, -0.28, str(position), ha="center", color=MUTED, fontsize=8)
        _token(axes, -1.6, i, 1.4, name, fill, height=1)
        seen = (j for j, visible in enumerate(mask[i]) if visible)
        for j in seen:
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=fills[j]))
        if targets[i] is not None:
            axes.text(count + 0.3, i + 0.5, f"predicts {targets[i]}", va="center", fontsize=9)
    axes.text(
        0,
        17.85,
        "Each read-out repeats the positions that follow its block, as at inference, "
        "and never sees the other.\nb, m, /b: a block's start, memory and end tokens.",
        color=MUTED,
        fontsize=9,
        va="center",
        linespacing=1.5,
    )


def _token(
    axes: Axes, x: float, y: float, width: float, name: str, fill: str, height: float = 0.9
) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=PAPER, linewidth=1))
    place = (x + width / 2, y + height / 2)
    axes.text(*place, name, ha="center", va="center", fontsize=8.5)


# --- schedules -----------------------------------------------------------------------------------

KINDS = ("anneal_uniform", "anneal_linear", "anneal_relative")
#: The first read-out is the widest line, so that lines on top of each other all show.
READOUTS = (
    ("says step 1", BLUE, 4.6),
    ("says step 2", ORANGE, 2.8),
    ("says step 3", VERMILION, 1.4),
    ("says the answer", SLATE, 1.4),
)


def draw_schedules(figure: Figure) -> None:
    """lambda of four read-outs over stage 1 for the three schedules, and alpha for K = 8."""
    panels = figure.subplots(1, 4)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.87, bottom=0.34, wspace=0.42)
    progress = [i / 200 for i in range(201)]  # so many that matplotlib leaves out straight ones
    for axes, kind in zip(panels, KINDS, strict=False):
        weights = [_lambda(kind, share) for share in progress]
        for t, (name, colour, width) in enumerate(READOUTS):
            line = [row[t] for row in weights]
            axes.plot(progress, line, color=colour, linewidth=width, label=name)
        axes.set_title(kind, fontsize=10.5)
        axes.set(xlabel="progress of stage 1", xlim=(0, 1), ylim=(-0.04, 1.08))
        axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    panels[0].set_ylabel("weight (lambda)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.05, 0.06), ncols=4)
    note = "An example of 4 read-outs; the longest in the data has 6."
    figure.text(0.06, 0.035, note, color=MUTED, fontsize=9)
    alpha = readout_weights(
        "later_more", torch.tensor([8]), torch.tensor([0]), width=8, max_readouts=8, progress=0
    )[0].tolist()
    panels[3].bar(range(1, 9), alpha, color=GREEN, width=0.75)
    panels[3].set_title("later_more, K = 8", fontsize=10.5)
    panels[3].set(xlabel="block", ylabel="weight (alpha)", xticks=range(1, 9))
    panels[3].grid(axis="x", visible=False)


def _lambda(kind: Any, progress: float) -> list[float]:
    """Weights of four read-outs, three of them steps."""
    sizes = {"width": 4, "max_readouts": 6, "progress": progress}
    return readout_weights(kind, torch.tensor([4]), torch.tensor([3]), **sizes)[0].tolist()


# --- the demo ------------------------------------------------------------------------------------


def demo_methods() -> dict[str, dict[str, Any]]:
    """Accuracy and time of a whole answer over the demo's seeds, as a comparison has them."""
    files = sorted(RESULTS.glob("demo_seed*.json"))
    runs = [json.loads(file.read_text(encoding="utf-8"))["methods"] for file in files]
    return {
        method: {
            "final": value_spread([run[method]["accuracy"] for run in runs]),
            "latency": {"answer_ms": value_spread([run[method]["answer_ms"] for run in runs])},
        }
        for method in runs[0]
    }


# --- all of them ---------------------------------------------------------------------------------


def pictures() -> dict[Path, str]:
    layout, schedules = "Layout and attention mask", "Weights of the read-outs"
    drawn = {
        HERE / "layout.svg": render(draw_layout, (7.9, 8.05), layout).decode(),
        HERE / "schedules.svg": render(draw_schedules, (10.4, 3.1), schedules).decode(),
    }
    drawn[HERE / "demo.svg"] = accuracy_latency_svg("the demo", demo_methods())
    for name in COMPARISONS:
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        ((task, content),) = result["tasks"].items()
        drawn[RESULTS / f"{name}.svg"] = accuracy_latency_svg(task, content["methods"])
    result = json.loads((RESULTS / "compare_real.json").read_text(encoding="utf-8"))
    ((task, content),) = result["tasks"].items()
    drawn[HERE / "real_learning.svg"] = standalone(learning_chart(task, content["methods"]))
    for name, figure in inside_figures().items():
        drawn[HERE / f"inside_{name}.svg"] = standalone(figure)
    return drawn


def inside_figures() -> dict[str, str]:
    """The report's own pictures of the analysed demo model."""
    run = gather(sorted(RESULTS.glob("inside_*.json"))).runs[0]
    drawn = {"probes": probes(run).figures[0][0], "selectors": selectors(run).figures[0][0]}
    for section in [*protocols(run), *faithfulness(run)]:
        name = section.id.removeprefix("protocol-").removesuffix("-0")
        if section.figures and name in ("transplant", "faithfulness"):
            drawn[name] = section.figures[0][0]
    for svg, caption in geometry_and_attention(run).figures:
        if "checkpoint" in caption:
            drawn["checkpoints"] = svg
    return drawn


if __name__ == "__main__":
    drawn = pictures()
    if "--check" in sys.argv[1:]:
        other = [p for p, svg in drawn.items() if p.read_text(encoding="utf-8") != svg]
        if other:
            names = ", ".join(p.name for p in other)
            sys.exit(f"drawn anew, these differ: {names}; run python docs/figures/make.py")
    else:
        for path, svg in drawn.items():
            path.write_text(svg, encoding="utf-8")
