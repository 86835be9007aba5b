"""The sections of what happens when blocks are exchanged: causal protocols, faithfulness."""

from __future__ import annotations

from typing import Any

from rim.report.charts import bars_chart
from rim.report.gather import Run
from rim.report.heat_map import protocol_chart
from rim.report.section import Section, command, percent

#: What each protocol asks, and how its picture is read.
_ASKS = {
    "transplant": "Transplants: a part of another question's cache is put into this one's. Does "
    "the answer become the one that follows from the mixture, or the other question's own?",
    "interchange": "Interchange: one block, in one band of layers, is that of another question. "
    "Does the answer become the one that follows from the other's value?",
    "content": "Content: the blocks are replaced by less and less. Does it matter what stands in "
    "them?",
}
_READ = {
    "transplant": "Per cent of pairs. Left: the answer that only the mixture has; right: the other "
    "question's own answer. Rows are parts of the prompt, columns what of them was exchanged.",
    "interchange": "Per cent of pairs whose answer follows from the other question's value.",
}


def protocols(run: Run) -> Section:
    """The newest result of each protocol."""
    section = Section("protocols", "What the blocks hold: parts exchanged between questions")
    newest = {result["protocol"]: result for result in run.of("protocol")}
    for name in _ASKS:
        result = newest.get(name)
        if result is None:
            section.missing.append(command(run, f"rim controls RUN DATA --protocol {name}"))
            continue
        section.lines.append(_ASKS[name])
        section.lines += verdict_lines(result)
        chart = protocol_chart(result, f"{name.capitalize()}: per cent of pairs")
        if chart is not None:
            section.figures.append((chart, _READ[name]))
        elif name == "content":
            section.figures.append(_content_figure(result))
    return section


def verdict_lines(result: dict[str, Any]) -> list[str]:
    """A protocol's verdicts, each one sentence; of a transplant the call first."""
    found = result.get("verdicts") or result["steps"]
    lines = []
    for part in found:
        line = part["line"]
        if "holds" in part:
            call = verdict_call(part)
            line = f"{call[0].upper()}{call[1:]}. {line.rpartition(': ')[0]}"
        lines.append(line)
    return lines or ["No step has enough pairs to say anything: ask for more pairs."]


def verdict_call(verdict: dict[str, Any]) -> str:
    """Of a transplant's verdict, what it calls."""
    what = "the intermediate value" if verdict["aim"] == "intermediate" else "the answer"
    if verdict["holds"]:
        return f"the blocks carry {what}"
    failing = ", ".join(verdict["failing"])
    return f"it is not shown that the blocks carry {what} (thresholds not met: {failing})"


def _content_figure(result: dict[str, Any]) -> tuple[str, str]:
    from textwrap import wrap

    rows = result["accuracy"]
    series = {
        "name": "right",
        **{
            ours: [100 * row[theirs] for row in rows.values()]
            for ours, theirs in (("y", "accuracy"), ("low", "low"), ("high", "high"))
        },
    }
    figure = bars_chart(
        ["\n".join(wrap(name, 14)) for name in rows],
        [series],
        "Content",
        "what stands in the blocks",
        size=(8.0, 3.8),
    )
    return figure, "Bars: 95 % Wilson intervals."


def faithfulness(run: Run) -> Section:
    """What `rim explain --data` measured."""
    section = Section("faithfulness", "Can the blocks be read? Faithfulness of decoded steps")
    found = run.of("faithfulness")
    if not found:
        section.missing.append(command(run, "rim explain RUN --data DATA"))
        return section
    measured = found[-1]["faithfulness"]
    for reader in measured["readers"]:
        section.lines.append(f"{reader['kind']}: {reader['means']}.")
        section.lines += [line + "." for line in reader["lines"]]
        section.tables.append(_steps_table(reader))
    section.lines += [cost["line"] + "." for cost in measured["costs"]]
    moved = [r for r in measured["readers"] if "transplant" in r]
    if moved:
        section.figures.append(_moved_figure(moved))
    return section


def _steps_table(reader: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    heading = ["block", "step", "step accuracy", "commonest value"]
    heading += ["answer right, step right", "answer right, step wrong"]
    rows = [
        [
            str(row["block"]),
            str(row["step"]),
            percent(row["accuracy"]),
            f"{100 * row['commonest']:.1f} %",
            _of(row["answers_if_right"]),
            _of(row["answers_if_wrong"]),
        ]
        for row in reader["blocks"]
    ]
    return f"Steps read off the blocks by {reader['kind']}", heading, rows


def _of(row: dict[str, Any]) -> str:
    return f"{row['right']} of {row['total']}" if row["total"] else "-"


def _moved_figure(readers: list[dict[str, Any]]) -> tuple[str, str]:
    groups, series = [], []
    kinds = {"step": "the step becomes the other's", "answer": "the answer follows from it"}
    kinds |= {"both": "both", "sources_answer": "the answer is the other's own"}
    parts = [(r["kind"], p) for r in readers for p in r["transplant"]["parts"]]
    for kind, part in parts:
        name = "one block" if part["part"] == "block" else "blocks up to it"
        groups.append(f"{kind}\n{name}")
    for key, name in kinds.items():
        shares = [part[key] for _, part in parts]
        line = {
            ours: [100 * s[theirs] for s in shares]
            for ours, theirs in (("y", "accuracy"), ("low", "low"), ("high", "high"))
        }
        series.append({"name": name, **line})
    figure = bars_chart(groups, series, "Blocks of another question", "what was exchanged")
    return figure, (
        "A faithful read-out has a tall first, second and third bar. Bars: 95 % Wilson intervals."
    )
