"""The sections that look inside a run: selectors, controls, probes, geometry, attention, walks."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from rim.report.analysis import (
    CONTROL_LABELS,
    checkpoint_sentences,
    trust_sentence,
    value_sentence,
)
from rim.report.charts import bars_chart, heat_maps, lines_chart, scatter_panels
from rim.report.page.gather import Run, made_on, main_controls
from rim.report.page.section import Section, command
from rim.report.selectors import ONE_ANSWER, thresholds_sentence
from rim.report.text import percent


def selectors(run: Run) -> Section:
    section = Section("selectors", "Which answer to trust")
    found = [e["selection"] for e in run.of("evaluation") if "selection" in e]
    if not found:
        for data in ("VALIDATION --calibrate", "TEST"):
            section.missing.append(command(run, f"rim eval RUN {data} --select all --overwrite"))
        return section
    selection = found[-1]
    rows = []
    for name, row in selection["selectors"].items():
        ms = selection["ms"]["all" if name not in ONE_ANSWER else name]
        kept = row.get("abstain")
        rows.append(
            [
                name.replace("_", " "),
                percent(row),
                f"{row['blocks_used']:.1f}",
                f"{ms:.1f}",
                f"{row['ece']:.3f}",
                f"{100 * kept['coverage']:.0f} %" if kept else "-",
                f"{100 * kept['accuracy']:.1f} %" if kept and kept["total"] else "-",
                percent(row["fallback"]) if "fallback" in row else "-",
            ]
        )
    rows.append(["oracle (any block)", percent(selection["oracle"]), *["-"] * 6])
    heading = [
        "selector",
        "accuracy (95 %)",
        "blocks",
        "ms",
        "calibration error",
        "answered",
        "of these right",
        "with fall-back",
    ]
    section.tables.append(("Selectors", heading, rows))
    evaluated = next(e for e in run.of("evaluation")[::-1] if e.get("selection") is selection)
    section.lines.append(thresholds_sentence(selection, evaluated["data"]))
    best = max(selection["selectors"].items(), key=lambda item: item[1]["accuracy"])
    section.lines.append(
        f"Best that can be deployed: {best[0].replace('_', ' ')}, {percent(best[1])}; an oracle "
        f"would reach {percent(selection['oracle'])}. Differences within the intervals are unsure."
    )
    curves = [
        {
            "name": name.replace("_", " "),
            "x": [100 * p["coverage"] for p in row["risk_coverage"]],
            "y": [100 * p["risk"] for p in row["risk_coverage"]],
        }
        for name, row in selection["selectors"].items()
    ]
    options: dict[str, Any] = {"percent": False}
    section.figure(
        lines_chart(
            curves, "Risk and coverage", "surest questions answered, %", "wrong, %", **options
        ),
        "Lower is better: answering the surest questions alone should leave few wrong answers.",
    )
    sure = [
        {
            "name": name.replace("_", " "),
            "x": [100 * b["confidence"] for b in row["bins"]],
            "y": [100 * b["accuracy"] for b in row["bins"]],
        }
        for name, row in selection["selectors"].items()
    ]
    section.figure(
        lines_chart(sure, "Calibration", "confidence, %", "right, %", diagonal=True),
        "On the thin diagonal an answer is right as often as its confidence says.",
    )
    return section


def controls(run: Run) -> Section:
    section = Section("controls", "Do the blocks compute? Controls")
    found = main_controls(run)
    if found is None:
        section.missing.append(command(run, "rim controls RUN DATA"))
        return section
    section.lines.append(f"Asked with {made_on(found)}.")
    section.lines += [verdict["line"] for verdict in found["verdicts"]]
    if "note" in found:
        section.lines.append(found["note"])
    tested = [v for v in found["verdicts"] if "from" in v]
    if tested:
        names = [v["name"].partition(", ")[2] or v["name"] for v in tested]
        groups = ["\n".join(wrap(name, 16)) for name in names]
        series = [
            {"name": "as it is", "y": [100 * v["from"] for v in tested]},
            {"name": "under the control", "y": [100 * v["to"] for v in tested]},
        ]
        figure = bars_chart(
            groups, series, "Controls", "what was done to the blocks", size=(8.0, 3.8)
        )
        section.figure(figure, "A fall says that the model needs what was taken away.")
    return section


def _analysis(run: Run) -> dict[str, Any] | None:
    found = run.of("analysis")
    return found[-1]["analysis"] if found else None


def _axes(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": ["question", *(f"block {k}" for k in range(1, found["blocks"] + 1))],
        "columns": [str(layer) for layer in range(found["layers"] + 1)],
        "xlabel": "layer (0: embeddings)",
        "ylabel": "",
    }


def probes(run: Run) -> Section:
    section = Section("probes", "What can be read off the blocks' states")
    found = _analysis(run)
    if found is None:
        section.missing.append(command(run, "rim analyze RUN DATA"))
        return section
    for name, row in found["values"].items():
        section.lines.append(f"{value_sentence(name, row)}.")
    if found["values"]:
        section.lines.append(f"{CONTROL_LABELS[0].upper()}{CONTROL_LABELS[1:]}.")
        maps = [(name, row["trained"]) for name, row in found["values"].items() if "trained" in row]
        section.figure(
            heat_maps(maps, "Linear probes, % of values right", **_axes(found)),
            "Trained on half of the questions, tested on the others. The best place is chosen "
            "among many: look at the whole map.",
        )
        name, row = list(found["values"].items())[-1]
        beside = [
            (f"{name}: {label}", row[key])
            for key, label in (("control", "control labels"), ("base", "before training"))
            if key in row
        ]
        if beside:
            section.figure(
                heat_maps(beside, "The same places, controls", **_axes(found)),
                "What a probe reads off anything: labels that the question's ending alone "
                "decides, and the states of the model that training began with.",
            )
    trust = found["trust"]
    section.lines.append(trust_sentence(trust))
    maps = [
        (label, trust["maps"][key])
        for key, label in (
            ("trained", "this model"),
            ("base", "before training"),
            ("control", "control labels"),
        )
        if key in trust["maps"] and any(v is not None for row in trust["maps"][key] for v in row)
    ]
    if maps:
        section.figure(
            heat_maps(maps, "Is this answer right? AUROC x 100", low=0.4, **_axes(found)),
            "50 is guessing. The question's row foretells the answer after the last block.",
        )
    return section


def geometry_and_attention(run: Run) -> Section:
    section = Section("inside", "Where states lie, where blocks look")
    found = _analysis(run)
    if found is None:
        section.missing.append(command(run, "rim analyze RUN DATA"))
        return section
    section.figure(
        scatter_panels(found["geometry"]["pca"], "Principal components of the blocks' states"),
        "A point is one test question after one block.",
    )
    _checkpoints(section, run, found)
    needed = found["geometry"]["components_for_90_percent"]
    top = max(v for row in needed for v in row)
    axes = _axes(found)
    section.figure(
        heat_maps(
            [("number of components", needed)],
            "Components for 90 % of the variance",
            low=0,
            high=max(1, top),
            per_cent=False,
            **axes,
        ),
        "Few: the states of all questions lie near a small plane.",
    )
    shares = found["attention"]["shares"]
    layers = sorted({0, len(shares) // 2, len(shares) - 1})
    maps = [(f"layer {layer + 1}", shares[layer]) for layer in layers] + [
        (
            "mean of all layers",
            [
                [sum(s[k][c] for s in shares) / len(shares) for c in range(len(shares[0][0]))]
                for k in range(len(shares[0]))
            ],
        )
    ]
    columns = [c.replace("question", "q") for c in found["attention"]["columns"]]
    section.figure(
        heat_maps(
            maps,
            "Attention of each block, %",
            rows=axes["rows"][1:],
            columns=columns,
            xlabel="",
            ylabel="",
        ),
        "Averaged over heads, a block's tokens and questions. q 1/5: the first fifth of the "
        "question's tokens.",
    )
    return section


def _checkpoints(section: Section, run: Run, found: dict[str, Any]) -> None:
    panels = found.get("checkpoints", {}).get("panels", [])
    names = list(dict.fromkeys(panel["checkpoint"] for panel in panels))
    if len(names) < 2:
        section.missing.append(command(run, "rim analyze RUN DATA --beside RUN2 --overwrite"))
        return
    last = max(panel["layer"] for panel in panels)
    section.lines += checkpoint_sentences(panels)
    titled = [panel | {"title": panel["checkpoint"]} for panel in panels if panel["layer"] == last]
    shown = len(titled[0]["points"][0])
    section.figure(
        scatter_panels(
            titled, f"The same questions over training, layer {last}", across=min(3, len(names))
        ),
        f"One basis for all checkpoints, {shown} test questions: places can be compared.",
    )


def walk(run: Run) -> Section:
    section = Section("walk", "Examples, block by block")
    found = _analysis(run)
    if found is None:
        section.missing.append(command(run, "rim analyze RUN DATA"))
        return section
    section.extra["examples"] = found["examples"]
    return section
