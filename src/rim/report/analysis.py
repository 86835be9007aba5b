"""What `rim analyze` and `rim explain` found, as sentences and a terminal table. Reads numbers
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

#: What "control labels" in `value_sentence` are.
CONTROL_LABELS = (
    "control labels: a probe trained on made-up labels, which shows what a probe learns by itself; "
    "only what is above that was read off the blocks"
)


def best_place(rows: list[list[float | None]] | None) -> tuple[float, int, int]:
    """The largest value of a map from block 1 on, its block and its layer; zeros where no place has
    a value.
    """
    places = [
        (value, block, layer)
        for block, own in enumerate(rows or [])
        for layer, value in enumerate(own)
        if value is not None and block >= 1
    ]
    return max(places, default=(0.0, 0, 0))


def question_best(rows: list[list[float | None]] | None) -> float:
    """The largest value that the question's own last token has (block 0)."""
    return max((value for value in (rows or [[]])[0] if value is not None), default=0.0)


def sentences(found: dict[str, Any]) -> Iterator[str]:
    """The main findings, each beside its controls."""
    for name, row in found["values"].items():
        yield value_sentence(name, row)
    if found["values"]:
        yield CONTROL_LABELS
    yield trust_sentence(found["trust"])
    yield from checkpoint_sentences(found.get("checkpoints", {}).get("panels", []))


def value_sentence(name: str, row: dict[str, Any]) -> str:
    """How well probes read one value off the blocks, beside everything that this must beat."""
    value, block, layer = best_place(row.get("trained"))
    if not block:
        return (
            f"{name}: too few questions for a probe ({row['train']} to train on, {row['test']} to "
            "test on)"
        )
    said = (
        f"{name}: a linear probe reads its {row['kind']} from block {block}, layer {layer} in "
        f"{100 * value:.0f} % of {row['test']} test questions; from the question's last token "
        f"in {100 * question_best(row.get('trained')):.0f} %"
    )
    if "base" in row:
        said += f", from the untrained blocks in {100 * best_place(row['base'])[0]:.0f} %"
    control = 100 * best_place(row.get("control"))[0]
    said += f"; control labels {control:.0f} %"
    return said + f", always the commonest {100 * row['majority']:.0f} %"


def checkpoint_sentences(panels: list[dict[str, Any]]) -> list[str]:
    """Say of each checkpoint what the variance of the last layer's states goes with."""
    last = max((panel["layer"] for panel in panels), default=0)
    shown = [panel for panel in panels if panel["layer"] == last]
    if len(shown) < 2:
        return []
    said = [
        f"{p['checkpoint']} {100 * p['by_block']:.0f} and {100 * p['by_answer']:.0f} %"
        for p in shown
    ]
    return [
        f"over training: of the variance of the last layer's states, that between blocks and that "
        f"between answers is: {'; '.join(said)}"
    ]


def trust_sentence(trust: dict[str, Any]) -> str:
    """How well a probe and the answer's own probability tell right from wrong."""
    probe, own = trust.get("probe"), trust.get("own_probability")
    if not probe or "auroc" not in probe or not own:
        return "trust: too few wrong answers (or too few right ones) to train a probe on"
    return (
        f"trust: a probe (layer {probe['layer']}, {trust['train']} training problems) tells right "
        f"from wrong answers with an AUROC of {_with_interval(probe)}; the answer's own "
        f"probability with {_with_interval(own)}; {100 * own['share_wrong']:.1f} % of "
        f"{trust['test']} are wrong"
    )


def _with_interval(ranks: dict[str, Any]) -> str:
    low, high = ranks["auroc_interval"]
    return f"{ranks['auroc']:.2f} ({low:.2f}-{high:.2f})"


def explain_table(result: dict[str, Any]) -> Table:
    """A row a block. Cells are plain texts: what a model says is no markup."""
    rows = result["blocks"]
    has_step = any(row["step"] is not None for row in rows)
    has_probed = any(row["probed"] for row in rows)
    table = Table(title=Text(result["question"]), title_justify="left")
    table.add_column("block", justify="right")
    if has_step:
        table.add_column("step")
    table.add_column("answer so far")
    table.add_column("probability", justify="right")
    if has_probed:
        table.add_column("probed")
    for row in rows:
        cells = [str(row["block"])]
        cells += [row["step"] or ""] if has_step else []
        cells += [row["answer"], f"{row['probability']:.2f}"]
        if has_probed:
            cells.append(
                ", ".join(
                    f"{name}{'' if p['kind'] == 'value' else ', ' + p['kind']} = {p['value']} "
                    f"({100 * p['accuracy']:.0f} %)"
                    for name, p in row["probed"].items()
                )
            )
        table.add_row(*(Text(cell) for cell in cells))
    return table
