"""Writes the documents' tables from `results/`: `python docs/make_tables.py [--check]`.

What fills a table is a function of one of the modules in `tables/`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tables import comparisons, data, demo, inside, real, serving, training
from tables.numbers import ROOT

# Marker: where it stands, what fills it.
TABLES = {
    "demo-table": ("README.md", demo.demo_table),
    "first-token-line": ("README.md", demo.first_token_line),
    "gsm8k-table": ("README.md", demo.gsm8k_table),
    "demo-table-site": ("docs/results.md", demo.demo_table),
    "gsm8k-table-site": ("docs/results.md", demo.gsm8k_table),
    "latency-table": ("docs/latency.md", demo.latency_table),
    "comparison-table": ("docs/compare.md", comparisons.comparison_table),
    "short-table": ("docs/compare.md", comparisons.short_table),
    "variants-table": ("docs/compare.md", comparisons.variants_table),
    "blind-table": ("docs/evidence.md", comparisons.blind_table),
    "blind-share-table": ("docs/evidence.md", comparisons.blind_share_table),
    "blind-seeds-table": ("docs/evidence.md", comparisons.blind_seeds_table),
    "blind-floor-table": ("docs/evidence.md", comparisons.blind_floor_table),
    "long-counts-table": ("docs/evidence.md", comparisons.long_counts_table),
    "after-grounding-table": ("docs/evidence.md", comparisons.after_grounding_table),
    "pairs-table": ("docs/evidence.md", comparisons.pairs_table),
    "blind-transplant-table": ("docs/evidence.md", comparisons.blind_transplant_table),
    "lookup-table": ("docs/tasks.md", data.lookup_table),
    "control-lines": ("docs/controls.md", comparisons.control_lines),
    "gguf-table": ("docs/serving.md", serving.gguf_table),
    "budget-table": ("docs/budget.md", data.budget_table),
    "budget-levels": ("docs/budget.md", data.budget_levels),
    "shortcut-table": ("docs/tasks.md", data.shortcut_table),
    "served-latency-table": ("docs/latency.md", serving.served_latency_table),
    "engine-table": ("docs/engines.md", serving.engine_table),
    "families-table": ("docs/families.md", training.families_table),
    "crash-table": ("docs/scaling.md", training.crash_table),
    "streaming-table": ("docs/scaling.md", training.streaming_table),
    "performance-table": ("docs/performance.md", training.performance_table),
    "relations-table": ("docs/tasks.md", data.relations_table),
    "inside-lines": ("docs/inside.md", inside.inside_lines),
    "inside-walk": ("docs/inside.md", inside.inside_walk),
    "inside-times": ("docs/inside.md", inside.inside_times),
    "inside-protocols": ("docs/inside.md", inside.inside_protocols),
    "inside-faithfulness": ("docs/inside.md", inside.inside_faithfulness),
    "inside-checkpoints": ("docs/inside.md", inside.inside_checkpoints),
    "inside-selectors": ("docs/inside.md", inside.inside_selectors),
    "real-accuracy": ("docs/real.md", real.accuracy_table),
    "real-learning": ("docs/real.md", real.learning_table),
    "real-after-grounding": ("docs/real.md", real.after_grounding_table),
    "real-sweep": ("docs/real.md", real.sweep_table),
    "real-cost": ("docs/real.md", real.cost_table),
    "real-engines": ("docs/real.md", real.engine_table),
    "real-quantised": ("docs/real.md", real.quantised_table),
    "real-transplant": ("docs/real.md", real.transplant_table),
    "real-controls": ("docs/real.md", real.control_lines),
    "parser-table": ("docs/lm-eval.md", data.parser_table),
}


def filled_documents() -> dict[Path, str]:
    """Every document that has tables, with its tables as `results/` has them now."""
    texts: dict[Path, str] = {}
    for marker, (name, table) in TABLES.items():
        path = ROOT / name
        text = texts.get(path) or path.read_text(encoding="utf-8")
        pattern = re.compile(rf"(<!-- {marker}:[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        content = table()
        texts[path], count = pattern.subn(lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text)
        assert count == 1, f"{name} must have one place for {marker}, it has {count}"
    return texts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a table is out of date")
    arguments = parser.parse_args()
    for path, text in filled_documents().items():
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} differs from results/: run docs/make_tables.py")
