"""A model looked into."""

from __future__ import annotations

from tables.numbers import read

from rim.report.selectors import ONE_ANSWER


def inside_lines() -> str:
    """What `rim analyze` prints of the demo's model."""
    from rim.report.analysis import sentences

    (result,) = read("results/inside_analysis.json")
    return "\n".join(f"- {line}" for line in sentences(result["analysis"]))


#: In the place of a table whose results nobody has made.
NOT_YET = "Of the demo's model not measured yet: `python benchmarks/inside_times.py` does it."


def inside_times() -> str:
    """What each command takes, in processor time of one thread."""
    if not (found := read("results/inside_times.json")):
        return NOT_YET
    (result,) = found
    lines = ["| command | processor seconds | wall seconds |", "|---|---|---|"]
    for row in result["commands"].values():
        lines.append(
            f"| `{row['command']}` | {row['processor_seconds']:.0f} | {row['wall_seconds']:.0f} |"
        )
    machine = result["environment"]
    lines += [
        "",
        f"One thread of {machine['processor']}, one command after the other; "
        f"{result['total_processor_seconds']:.0f} s of processor time in all.",
    ]
    return "\n".join(lines)


def inside_protocols() -> str:
    """Verdicts of the three protocols on the demo's model."""
    from rim.report.page.causal import verdict_lines

    lines = []
    for name in ("transplant", "interchange", "content"):
        for result in read(f"results/inside_{name}.json"):
            lines += [f"- **{name}**: {line}" for line in verdict_lines(result)]
    if not lines:
        return NOT_YET
    picture = "![Share of answers that follow a transplanted part](figures/inside_transplant.svg)"
    return "\n".join([*lines, "", picture])


def inside_faithfulness() -> str:
    """What `rim explain --data` prints of the demo's model, and its table."""
    if not (results := read("results/inside_faithfulness.json")):
        return NOT_YET
    found = results[0]["faithfulness"]
    lines = [f"- {line}" for reader in found["readers"] for line in reader["lines"]]
    lines += [f"- {cost['line']}" for cost in found["costs"]]
    lines += [
        "",
        "| read by | block | step | right % (95 %) | commonest value % "
        "| answers right, step right | answers right, step wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for reader in found["readers"]:
        for row in reader["blocks"]:
            own, right, wrong = (
                row[k] for k in ("accuracy", "answers_if_right", "answers_if_wrong")
            )
            lines.append(
                f"| {reader['kind']} | {row['block']} | {row['step']} "
                f"| {100 * own['accuracy']:.1f} ({100 * own['low']:.1f}-{100 * own['high']:.1f}) "
                f"| {100 * row['commonest']:.1f} | {right['right']} of {right['total']} "
                f"| {wrong['right']} of {wrong['total']} |"
            )
    name = "Decoded steps and answers after blocks of another question"
    return "\n".join([*lines, "", f"![{name}](figures/inside_faithfulness.svg)"])


def inside_checkpoints() -> str:
    """The picture of the model over training."""
    (result,) = read("results/inside_analysis.json")
    if not result["analysis"].get("checkpoints", {}).get("panels"):
        return NOT_YET
    return "![The same questions' states over training](figures/inside_checkpoints.svg)"


def inside_walk() -> str:
    """One test question of the analysis, a line a block."""
    (result,) = read("results/inside_analysis.json")
    example = result["analysis"]["examples"][0]
    lines = [
        f"`{example['question']}`, steps {', '.join(f'`{s}`' for s in example['steps'])}",
        "",
        "| block | answer so far | probability | read off its states by probes |",
        "|---|---|---|---|",
    ]
    for row in example["blocks"]:
        probed = ", ".join(f"{name} = {value}" for name, value in row["probed"].items())
        lines.append(f"| {row['block']} | {row['answer']} | {row['probability']:.2f} | {probed} |")
    return "\n".join(lines)


def inside_selectors() -> str:
    """Selectors on the same model, thresholds from validation questions."""
    (result,) = read("results/inside_selection.json")
    selection = result["selection"]
    lines = [
        "| selector | accuracy % | blocks | ms | ECE | answered % | of these right % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in selection["selectors"].items():
        kept, ms = row["abstain"], selection["ms"][name if name in ONE_ANSWER else "all"]
        of_these = f"{100 * kept['accuracy']:.1f}" if kept["total"] else "-"
        lines.append(
            f"| {name} | {100 * row['accuracy']:.1f} ({100 * row['low']:.1f}-"
            f"{100 * row['high']:.1f}) | {row['blocks_used']:.1f} | {ms:.1f} | {row['ece']:.3f} | "
            f"{100 * kept['coverage']:.0f} | {of_these} |"
        )
    oracle = selection["oracle"]
    lines.append(f"| oracle (any block) | {100 * oracle['accuracy']:.1f} | - | - | - | - | - |")
    return "\n".join(lines)
