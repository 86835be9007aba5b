"""Writes the README's tables from `results/`: `python docs/make_tables.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def read(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(ROOT.glob(pattern))]


def span(values: list[float], digits: int = 1) -> str:
    """`mean (least-most)` over seeds."""
    low, high = min(values), max(values)
    return f"{statistics.fmean(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def demo_table() -> str:
    runs = read("results/demo_seed*.json")
    names = {"direct": "direct answer", "cot": "chain of thought", "rim": "RiM, 5 blocks"}
    lines = [
        "| method | accuracy % | TTFT ms | whole answer ms | tokens generated |",
        "|---|---|---|---|---|",
    ]
    for method, label in names.items():
        rows = [run["methods"][method] for run in runs]
        lines.append(
            f"| {label} | {span([100 * r['accuracy'] for r in rows])} "
            f"| {span([r['ttft_ms'] for r in rows])} | {span([r['answer_ms'] for r in rows])} "
            f"| {span([r['tokens'] for r in rows])} |"
        )
    ttft = [r["methods"]["rim"]["ttft_ms"] / r["methods"]["direct"]["ttft_ms"] for r in runs]
    whole = [r["methods"]["cot"]["answer_ms"] / r["methods"]["rim"]["answer_ms"] for r in runs]
    right = [{name: row["accuracy"] for name, row in r["methods"].items()} for r in runs]
    gap = [100 * (accuracy["rim"] - accuracy["direct"]) for accuracy in right]
    seeds = ", ".join(str(run["seed"]) for run in runs)
    lines += [
        "",
        f"Mean (least-most) over seeds {seeds}. RiM answers {span(gap)} points better than direct, "
        f"its first token comes after {span(ttft, 2)} x direct's time, and its whole answer is "
        f"{span(whole)} x faster than chain of thought. Whole demos took "
        f"{', '.join(str(round(run['seconds'])) for run in runs)} s.",
    ]
    return "\n".join(lines)


def gsm8k_table() -> str:
    lines = [
        "| test set | questions | final block % (95 %) | any block % |",
        "|---|---|---|---|",
    ]
    for result in read("results/gsm8k_tiny-*.json"):
        summary = result["summary"]
        final = summary["final"]
        interval = f"{100 * final['low']:.1f}-{100 * final['high']:.1f}"
        lines.append(
            f"| {result['data']['name']} | {summary['questions']} "
            f"| {100 * final['accuracy']:.1f} ({interval}) "
            f"| {100 * summary['any_block']['accuracy']:.1f} |"
        )
    return "\n".join(lines)


def fill(text: str) -> str:
    for marker, table in {"demo-table": demo_table, "gsm8k-table": gsm8k_table}.items():
        pattern = re.compile(rf"(<!-- {marker}:[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        content = table()
        text, count = pattern.subn(lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text)
        assert count == 1, f"README has no place for {marker}"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the README is out of date")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    current = readme.read_text(encoding="utf-8")
    filled = fill(current)
    if arguments.check:
        sys.exit(
            "README.md differs from results/: run docs/make_tables.py" if filled != current else 0
        )
    readme.write_text(filled, encoding="utf-8")
