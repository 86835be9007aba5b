"""Families, speed, crashes, data larger than memory."""

from __future__ import annotations

from typing import Any

from tables.numbers import read, short_commit


def families_table() -> str:
    """Which way the read-outs of every family run, and whether its answers are right."""
    results = read("results/families*.json")
    rows = [row for result in results for row in result["families"]]
    lines = [
        "| family | layers (window) | attention | error of parallel | read-outs "
        "| answers right | alone as in a batch | loaded as saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['family']} | - | - | - | refused: {row['refused']} | - | - | - |")
            continue
        error = row["parallel_error"]
        cells = [
            row["family"],
            ", ".join(row["layers"]),
            row["attention"],
            "does not take the mask" if isinstance(error, str) else f"{error:.0e}",
            row["readouts"],
            f"{row['answers_equal']} of {row['answers']}",
            *("yes" if row[key] else "NO" for key in ("batch_mates_equal", "reloaded_equal")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machine = results[0]["environment"]
    commits = dict.fromkeys(short_commit(r["environment"]["git_commit"]) for r in results)
    ratios = {f"{row['separate_tokens']:.1f}" for row in rows if "layers" in row}
    lines += [
        "",
        f"Separate rows took {' or '.join(sorted(ratios))} times the tokens here (3 blocks, short "
        f"questions). transformers {machine['packages']['transformers']}, torch "
        f"{machine['packages']['torch']}, commits {', '.join(commits)}.",
    ]
    return "\n".join(lines)


def performance_table() -> str:
    """Figures of `benchmarks/`, against the goals that were set; what has no file says so."""
    steps = read("results/performance_step_*.json")
    filled = read("results/performance_filled.json")
    memory = read("results/performance_logits_memory.json")
    answers = read("results/performance_all_answers.json")
    layouts = read("results/performance_laying_out.json")
    lines = ["| figure | measured | goal |", "|---|---|---|"]

    def row(figure: str, measured: list[str], goal: str) -> None:
        lines.append(f"| {figure} | {'; '.join(measured) or 'not measured'} | {goal} |")

    def of_stages(run: dict[str, Any], name: str, digits: int = 2) -> str:
        return " / ".join(
            f"{run['rows'][stage][name]:.{digits}f}" for stage in ("grounding", "refinement")
        )

    def sized(run: dict[str, Any], text: str) -> str:
        return f"{text} ({run['parameters'] / 1e6:.1f} M parameters)"

    row(
        "share of positions that are not padding, one row per example, GSM8K, batch 128, "
        "stage 1 / 2",
        [of_stages(run, "filled_one_row_each") for run in filled],
        "",
    )
    row("the same, packed", [of_stages(run, "filled_packed", 3) for run in filled], ">= 0.95")
    row(
        "time of a packed step / of one with a row an example, stage 1 / 2",
        [sized(run, of_stages(run, "packed_to_one_row_each")) for run in steps],
        "<= 0.55",
    )
    row(
        "tokens per second of a packed step / of plain language modelling, stage 1 / 2",
        [sized(run, of_stages(run, "tokens_per_second_to_language_modelling")) for run in steps],
        ">= 0.95",
    )
    row(
        "stage-2 step, K = 8, question of 64 tokens: times faster than K sequences",
        [sized(run, f"{run['rows']['separate_sequences']['times_faster']:.1f}") for run in steps],
        ">= 3",
    )
    row(
        "time of a packed step in bfloat16 autocast / float32, on a CPU, stage 1 / 2",
        [sized(run, of_stages(run, "bf16_to_float32")) for run in steps],
        "",
    )
    row(
        "peak memory over 128,256 words against logits of all positions: of targets / in chunks",
        [
            f"{run['to_all_positions']['target_positions']:.2f} / "
            f"{run['to_all_positions']['chunks']:.2f}"
            for run in memory
        ],
        "<= 0.2",
    )
    row(
        "all 8 answers of a prefill, time against the final one alone",
        [sized(run, f"{run['all_to_final']:.2f}") for run in answers],
        "<= 1.6",
    )
    row(
        "the same, times faster than 8 generations",
        [sized(run, f"{run['times_faster_than_one_by_one']:.1f}") for run in answers],
        ">= 4",
    )
    for stage in ("grounding", "refinement"):
        row(
            f"laying out 386,000 examples, processor seconds, {stage}: first / again",
            [
                " / ".join(
                    f"{run['processor_seconds'][stage][kind] * 386_000 / run['examples']:.0f}"
                    for kind in ("first", "again")
                )
                + f" (scaled from {run['examples']:,})"
                for run in layouts
            ],
            "180",
        )
    row(
        "largest memory of laying out, examples included",
        [f"{r['peak_memory_bytes'] / 1e9:.2f} GB for {r['examples']:,}" for r in layouts],
        "< 2 GB for 386,000",
    )
    row("waits for the device in a training step", ["0 (`tests/test_speed.py`)"], "0")
    demos = [f"{demo['seconds']:.0f}" for demo in read("results/demo_seed*.json")]
    row(
        "`make demo`, seconds on one core's two threads (the goal is for two free cores)",
        [", ".join(demos)],
        "<= 200",
    )
    found = steps + filled + memory + answers + layouts
    machine = ", ".join(sorted({run["environment"]["processor"] for run in found}))
    packages = found[0]["environment"]["packages"] if found else {}
    versions = ", ".join(f"{name} {packages.get(name)}" for name in ("torch", "transformers"))
    lines += [
        "",
        f"On {machine}; {versions}.",
    ]
    return "\n".join(lines)


def crash_table() -> str:
    """How often each signal came, what the process ended with, and what was lost."""
    (result,) = read("results/crash.json")
    lines = [
        "| signal | stops | exit code | weights and logs |",
        "|---|---|---|---|",
    ]
    for name, row in result["signals"].items():
        codes = ", ".join(f"{code} ({count} times)" for code, count in row["exit_codes"].items())
        same = "the same bit for bit" if row["same_bit_for_bit"] else "**differ**"
        lines.append(f"| {name} | {row['stops']} | {codes} | {same} |")
    return "\n".join(lines)


def streaming_table() -> str:
    """Peak memory of a training by the size of its file, streamed and held."""
    (result,) = read("results/streaming.json")
    lines = [
        "| examples | file | laid out on disk | peak memory, streamed | peak memory, held |",
        "|---|---|---|---|---|",
    ]
    by_count: dict[int, dict[bool, dict[str, Any]]] = {}
    for row in result["rows"]:
        by_count.setdefault(row["examples"], {})[row["streaming"]] = row
    for count, rows in by_count.items():
        streamed, held = rows[True], rows[False]
        sizes = [streamed[key] / 1e6 for key in ("file_bytes", "bytes_on_disk")]
        sizes += [row["peak_memory_bytes"] / 1e6 for row in (streamed, held)]
        lines.append(f"| {count:,} | " + " | ".join(f"{size:,.0f} MB" for size in sizes) + " |")
    growth = result["memory_growth_a_byte_of_the_file"]
    lines += [
        "",
        f"From the smallest file to the largest, memory grows by {growth['streamed']:.2f} bytes "
        f"for each byte of the file when it is streamed, and by {growth['held']:.2f} when held "
        f"({result['environment']['processor']}).",
    ]
    return "\n".join(lines)
