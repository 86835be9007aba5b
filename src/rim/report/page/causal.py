"""The sections of what happens when blocks are exchanged: causal protocols, faithfulness."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from rim.report.charts import bars_chart
from rim.report.heat_map import protocol_chart
from rim.report.page.gather import Run, made_on, main_protocols
from rim.report.page.section import Section, accuracy_points, command
from rim.report.page.words import TASKS, UNREAD
from rim.report.text import percent

#: Of each protocol: the title, what it asks, how its picture is read.
_PROTOCOLS = {
    "transplant": (
        "What do the blocks hold? Transplants",
        "A part of another question's cache is put into this one's. Does the answer become the one "
        "that follows from the mixture, or the other question's own?",
        "Per cent of pairs. Left: the answer that only the mixture has; right: the other "
        "question's own answer. Rows are parts of the prompt, columns what of them was exchanged.",
    ),
    "interchange": (
        "In which block, in which layers? Interchange",
        "One block, in one band of layers, is that of another question. Does the answer become the "
        "one that follows from the other's value?",
        "Per cent of pairs whose answer follows from the other question's value; columns are "
        "layers.",
    ),
    "content": (
        "Does it matter what stands in the blocks? Content",
        "The blocks are replaced by less and less.",
        "Bars: 95 % Wilson intervals.",
    ),
}


def protocols(run: Run) -> list[Section]:
    """The newest result of each protocol, each a section."""
    newest = main_protocols(run)
    sections = []
    for name, (title, asks, read) in _PROTOCOLS.items():
        section = Section(f"protocol-{name}", title)
        sections.append(section)
        result = newest.get(name)
        if result is None:
            if (task := _task_option(run)) is not None:
                words = f"rim controls RUN DATA --protocol {name}{task}"
                section.missing.append(command(run, words))
            continue
        section.lines = [f"{asks} Asked with {made_on(result)}.", *verdict_lines(result)]
        chart = protocol_chart(result, f"{name.capitalize()}: per cent of pairs")
        if chart is None and name == "content":
            chart = _content_figure(result)
        if chart is not None:
            section.figure(chart, read)
    return sections


def _task_option(run: Run) -> str | None:
    """What a protocol's command needs beside a run of this training data: nothing, or the name of
    the task that a file has. None if protocols cannot read the intermediate values.
    """
    data = run.config.get("data", {})
    source = data.get("train") if isinstance(data, dict) else None
    known = source.get("format") if isinstance(source, dict) else None
    if known in list(UNREAD):
        return None
    return "" if known in list(TASKS) or run.of("protocol") else " --task TASK"


def verdict_lines(result: dict[str, Any]) -> list[str]:
    """A protocol's verdicts, each one sentence; of a transplant the call first."""
    found = result.get("verdicts") or result["steps"]
    lines = [_sentence(result["decides"]["line"])] if "decides" in result else []
    for part in found:
        line = part["line"]
        if "holds" in part:
            call = verdict_call(part)
            line = f"{_sentence(call)} {line.rpartition(': ')[0]}"
        lines.append(line)
        lines += [_sentence(part["step_line"])] if "step_line" in part else []
    return lines or ["No step has enough pairs to say anything: ask for more pairs."]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def verdict_call(verdict: dict[str, Any]) -> str:
    """Say whether a transplant's verdict holds, and which thresholds it misses. That of results
    made before `not_only_source` was told is the plain one.
    """
    what = "the intermediate value" if verdict["aim"] == "intermediate" else "the answer"
    if verdict["holds"]:
        return f"the blocks carry {what}"
    failing = ", ".join(verdict["failing"])
    if verdict.get("not_only_source"):
        share = 100 * verdict["competitor"]["all"]["the question alone"]
        return (
            "the blocks hold an answer but are not its only source (the question alone gives it in "
            f"{share:.1f} %; thresholds not met: {failing})"
        )
    return f"it is not shown that the blocks carry {what} (thresholds not met: {failing})"


def _content_figure(result: dict[str, Any]) -> str:
    rows = result["accuracy"]
    series = {"name": "right", **accuracy_points(rows.values())}
    return bars_chart(
        ["\n".join(wrap(name, 14)) for name in rows],
        [series],
        "Content",
        "what stands in the blocks",
        size=(8.0, 3.8),
    )


def faithfulness(run: Run) -> list[Section]:
    """Show what `rim explain --data` measured, a section for each reader."""
    found = run.of("faithfulness")
    if not found:
        section = Section("faithfulness", "Can the blocks be read?")
        section.missing.append(command(run, "rim explain RUN --data DATA"))
        return [section]
    measured = found[-1]["faithfulness"]
    sections = []
    for number, reader in enumerate(measured["readers"]):
        kind = reader["kind"]
        section = Section(f"faithfulness-{number}", f"Can the blocks be read? By {kind}")
        section.lines = [f"Steps are {reader['means']}."]
        section.lines += [_sentence(line.removeprefix(f"{kind}: ")) for line in reader["lines"]]
        section.tables.append(_steps_table(reader))
        if "transplant" in reader:
            section.figures.append(_moved_figure(reader))
        sections.append(section)
    sections[0].lines += [_sentence(cost["line"]) for cost in measured["costs"]]
    return sections


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


def _moved_figure(reader: dict[str, Any]) -> tuple[str, str]:
    parts = {
        "one block" if part["part"] == "block" else "all blocks up to it": part
        for part in reader["transplant"]["parts"]
    }
    kinds = {"step": "the step becomes the other's", "answer": "the answer follows from it"}
    kinds |= {"both": "both", "sources_answer": "the answer is the other's own"}
    series = []
    for key, name in kinds.items():
        series.append({"name": name, **accuracy_points([p[key] for p in parts.values()])})
    title = f"Blocks of another question, read by {reader['kind']}"
    figure = bars_chart(
        list(parts), series, title, "what was exchanged", ylabel="of pairs, %", size=(7.0, 3.4)
    )
    return figure, (
        "Where decoded steps are what the answer is computed from, the first three bars are tall. "
        "Bars: 95 % Wilson intervals."
    )
