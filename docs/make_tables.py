"""Writes the documents' tables from `results/`: `python docs/make_tables.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from rim.evaluate.verdicts import change_text
from rim.report.selectors import ONE_ANSWER

ROOT = Path(__file__).parents[1]


def read(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(ROOT.glob(pattern))]


def span(values: list[float], digits: int = 1) -> str:
    """`mean (least-most)` over seeds; one seed's have no brackets."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
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
    processors = ", ".join(sorted({run["environment"]["processor"] for run in runs}))
    seconds = ", ".join(str(round(run["seconds"])) for run in runs)
    lines += [
        "",
        f"Mean (least-most) over seeds {listed(runs, 'seed')} on {processors}. RiM answers "
        f"{span(gap)} points better than direct, its first token comes after {span(ttft, 2)} x "
        f"direct's time, and its whole answer is {span(whole)} x faster than chain of thought.",
        "",
        f"A whole demo took {seconds} s there. Another kind of processor gives other numbers with "
        "the same seed: accuracy jumps suddenly during training, and small rounding differences "
        "change when.",
    ]
    return "\n".join(lines)


def first_token_line() -> str:
    """Time to the first token against a direct answer's, wherever it was measured."""
    demos, (bench,) = read("results/demo_seed*.json"), read("results/bench_*.json")
    ratios = [r["methods"]["rim"]["ttft_ms"] / r["methods"]["direct"]["ttft_ms"] for r in demos]
    (rim,) = [row for row in bench["rows"] if row["method"] == "rim"]
    first, whole = (rim[key]["median"] for key in ("ttft_to_direct", "answer_to_direct"))
    return (
        f"On a CPU the first token comes after {statistics.fmean(ratios):.2f} x a direct answer's "
        f"time in the demo (0.9 M parameters), and after {first:.2f} x in a model of GPT-2's size "
        f"(K = {rim['blocks']}, a question of {rim['question_tokens']} tokens; the whole answer "
        f"takes {whole:.2f} x)."
    )


def listed(runs: list[dict[str, Any]], key: str) -> str:
    return ", ".join(str(run[key]) for run in runs)


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


def latency_table() -> str:
    """Every `results/bench_*.json`: medians of repeats, with quartiles where they matter most."""
    return "\n\n".join(_latency_of(result) for result in read("results/bench_*.json"))


def _latency_of(result: dict[str, Any]) -> str:
    model, settings, machine = result["model"], result["settings"], result["environment"]
    on_cpu = model["device"] == "cpu"
    place = f"{machine['torch_threads']} threads of {machine['processor']}"
    lines = [
        f"**{model['name']}**, {model['parameters'] / 1e6:.1f} M parameters, {model['weights']} "
        f"weights, {model['dtype']}, on {place if on_cpu else machine['accelerator']}, torch "
        f"{machine['packages']['torch']}, commit {machine['git_commit'][:7]}; answers of "
        f"{settings['answer_tokens']} tokens; median (quartiles) of {settings['repeats']} repeats.",
        "",
        "| question | batch | method | prompt | TTFT ms | TTFT to direct | answer ms "
        "| answer to direct | prefill ms | ms a token | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        name = f"{row['method']}, K = {row['blocks']}" if row["blocks"] else row["method"]
        name += f", {row['step_tokens']} step tokens" if row["step_tokens"] else ""
        memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
        cells = [
            row["question_tokens"],
            row["batch_size"],
            name,
            row["prompt_tokens"],
            quartiles(row["ttft_ms"], 1),
            quartiles(row["ttft_to_direct"], 2),
            quartiles(row["answer_ms"], 1),
            quartiles(row["answer_to_direct"], 2),
            quartiles(row["prefill_ms"], 1),
            quartiles(row["decode_ms_per_token"], 1),
            memory,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def quartiles(values: dict[str, float] | None, digits: int) -> str:
    if values is None:
        return "-"
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def spread(values: dict[str, float], digits: int = 1, scale: float = 1) -> str:
    """`mean (low-high)` of a comparison's numbers; one seed's have no brackets."""
    mean, low, high = (f"{scale * values[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}-{high})" if low != high else mean


def comparison_table() -> str:
    (result,) = read("results/compare_arithmetic.json")
    return comparison_of(result)


def variants_table() -> str:
    (result,) = read("results/compare_rim_variants.json")
    return comparison_of(result)


def comparison_of(result: dict[str, Any]) -> str:
    (content,) = result["tasks"].values()
    lines = [
        "| method | accuracy % | any block % | longer chains % | p | TTFT ms | answer ms "
        "| tokens out | tokens trained, M | train s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["methods"].items():
        p = row["p"]
        cells = [
            f"{name} (control)" if row["control_of"] else name,
            spread(row["final"], scale=100),
            spread(row["any_block"], scale=100) if "any_block" in row else "-",
            spread(row["extra_tests"]["longer"], scale=100),
            "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
            spread(row["latency"]["ttft_ms"]),
            spread(row["latency"]["answer_ms"]),
            spread(row["latency"]["tokens"]),
            spread(row["tokens"], 2, 1e-6),
            spread(row["seconds"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    seeds = content["methods"][result["reference"]]["seeds"]
    if unequal := [name for name, row in content["methods"].items() if row["seeds"] != seeds]:
        raise ValueError(f"{', '.join(unequal)}: not over seeds {seeds}, as the table's note says")
    kind = next(iter(content["methods"].values()))["final"]["kind"]
    bracket = "95 % Wilson interval" if kind == "wilson" else "least and most"
    questions = next(iter(content["methods"].values()))["per_seed"][0]["total"]
    commits = ", ".join(map(short_commit, content["commits"]))
    return "\n".join(
        [
            *lines,
            "",
            f"Mean ({bracket}) over seeds {', '.join(map(str, seeds))}; {questions} test "
            f"questions; runs made at {commits}. p: McNemar against {result['reference']}, the "
            "largest of the seeds', 1 where they point in different directions.",
        ]
    )


def short_commit(commit: str) -> str:
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def control_lines() -> str:
    (result,) = read("results/compare_arithmetic.json")
    (content,) = result["tasks"].values()
    return "\n".join(f"- {_line_of(verdict, content)}" for verdict in content["controls"])


def _line_of(verdict: dict[str, Any], content: dict[str, Any]) -> str:
    """A verdict's sentence; of a training control anew, from every seed's numbers."""
    name, separator, controlled = verdict["name"].partition(" instead of ")
    if not separator:
        return verdict["line"]
    methods = content["methods"]
    shares = [
        (one["accuracy"], other["accuracy"])
        for one, other in zip(
            methods[controlled]["per_seed"], methods[name]["per_seed"], strict=True
        )
    ]
    assert controlled == "rim", "against_reference is against that"
    change = change_text(shares, [test["p"] for test in methods[name]["against_reference"]])
    return (
        f"{verdict['name']}: accuracy {change} ({verdict['questions']} questions, "
        f"{verdict['seeds']} seeds, McNemar, each seed alone)"
    )


def shortcut_table() -> str:
    (result,) = read("results/graph_shortcuts.json")
    ours, prosqa = result["graph_search"], result["prosqa"]
    lines = [
        "| shortcut: the concept that | right in graph_search % | in ProsQA's validation file % |",
        "|---|---|---|",
        *(
            f"| {name} | {100 * share:.1f} | {100 * prosqa['right'][name]:.1f} |"
            for name, share in ours["right"].items()
        ),
        "",
        f"{ours['examples']} test questions, seed {result['seed']}, and {prosqa['examples']} of "
        f"ProsQA; commit {short_commit(result['environment']['git_commit'])}. Means, ours and "
        "ProsQA's: "
        + ", ".join(f"{n} {v} and {prosqa['means'][n]}" for n, v in ours["means"].items())
        + ".",
    ]
    return "\n".join(lines)


def relations_table() -> str:
    (result,) = read("results/relations_shortcuts.json")
    measured = result["relations"]
    lines = [
        "| guess among | right % |",
        "|---|---|",
        *(f"| {name} | {100 * share:.1f} |" for name, share in measured["right"].items()),
        "",
        f"{measured['examples']} test questions with the default settings, seed "
        f"{result['settings']['seed']}; commit "
        f"{short_commit(result['environment']['git_commit'])}.",
    ]
    return "\n".join(lines)


def budget_table() -> str:
    (result,) = read("results/budget.json")
    best, level = result["router"], result["by_level"]
    blocks = ", ".join(f"{n} operations: {k}" for n, k in level["blocks"].items())
    rows = {
        **{
            f"{k} block{'s' if k != '1' else ''}, always": row for k, row in result["fixed"].items()
        },
        f"blocks by difficulty ({blocks})": level,
        f"router, confidence {best['confidence']:.3f} "
        f"(asks chain of thought {100 * best['second_asked']:.1f} % of the time)": best,
        "chain of thought, always": result["chain_of_thought"],
    }
    lines = ["| policy | accuracy % (95 %) | mean ms | median ms |", "|---|---|---|---|"]
    for name, row in rows.items():
        interval = f"{100 * row['low']:.1f}-{100 * row['high']:.1f}"
        lines.append(
            f"| {name} | {100 * row['accuracy']:.1f} ({interval}) "
            f"| {row['mean_ms']:.1f} | {row['median_ms']:.1f} |"
        )
    questions, machine = result["questions"], result["environment"]
    return "\n".join(
        [
            *lines,
            "",
            f"{questions['test']['examples']} test questions; blocks and confidence chosen on "
            f"{questions['validation']['examples']} validation questions, to lose at most "
            f"{100 * result['loss']:.0f} point there. {machine['processor']}, one thread, commit "
            f"{short_commit(machine['git_commit'])}.",
        ]
    )


def gguf_table() -> str:
    (result,) = read("results/gguf_quantised.json")
    names = {"rim": "`rim ask`", "transformers": "transformers `generate`"}
    lines = [
        "| engine | accuracy % (95 %) | answers as `rim ask`'s | ms (quartiles) | file, MB |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["engines"].items():
        weights = name.removeprefix("llama.cpp ").removesuffix(", exact")
        size = result["files"].get(weights, {}).get("bytes")
        interval = f"{100 * row['low']:.1f}-{100 * row['high']:.1f}"
        cells = [
            names.get(name, name),
            f"{100 * row['accuracy']:.1f} ({interval})",
            f"{row['equal_to_rim']} of {row['total']}",
            quartiles(row["milliseconds"], 1),
            f"{size / 1e6:.2f}" if size else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machine = result["environment"]
    types = result["files"]["q4_k_m"]["tensors"]
    return "\n".join(
        [
            *lines,
            "",
            f"{machine['processor']}, one thread, {result['rounds']} rounds, engines taking turns, "
            f'commit {short_commit(machine["git_commit"])}. "exact": '
            f"`{result['llama_cpp']['exact_flags']}`. This narrow model's q4_k_m has "
            + ", ".join(f"{count} tensors of {kind}" for kind, count in types.items())
            + ".",
        ]
    )


def budget_levels() -> str:
    (result,) = read("results/budget.json")
    levels = result["accuracy_by_level"]
    counts = list(next(iter(levels.values())))
    lines = [
        f"| operations | {' | '.join(f'K = {k}' for k in counts)} |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for level, shares in levels.items():
        lines.append(f"| {level} | {' | '.join(f'{100 * v:.1f}' for v in shares.values())} |")
    return "\n".join(lines)


def engine_table() -> str:
    """Every `results/engines_*.json`: who answered as we do, and in what time."""
    return "\n\n".join(_engines_of(result) for result in read("results/engines_*.json"))


def _engines_of(result: dict[str, Any]) -> str:
    model, settings, machine = result["model"], result["settings"], result["environment"]
    questions = result["data"]["questions"]
    counts = settings["blocks"] if isinstance(settings["blocks"], list) else [settings["blocks"]]
    several = len(counts) > 1
    lines = [
        f"**{model['run']}**, {model['family']}, {model['parameters'] / 1e6:.1f} M parameters, "
        f"vocabulary {model['vocabulary']}, {', '.join(map(str, counts))} blocks, {questions} "
        f"questions{' with each number' if several else ''}, on {machine['processor']}, commit "
        f"{short_commit(machine['git_commit'])}:",
        "",
        "| engine | answers equal to ours | accuracy % | ms an answer (quartiles) |",
        "|---|---|---|---|",
    ]
    for name, row in result["engines"].items():
        accuracy = " / ".join(
            f"{100 * part['accuracy']:.1f}"
            for part in (row["by_blocks"].values() if several else [row])
        )
        told = " (their text)" if row.get("compared") == "text" else ""
        equal = f"{row['equal_answers']} of {row.get('answers', questions)}{told}"
        version = machine["packages"].get(name)
        engine = f"{name} {version}" if version else name
        lines.append(f"| {engine} | {equal} | {accuracy} | {quartiles(row['milliseconds'], 1)} |")
    lines += [f"| {name} | does not run, see below | - | - |" for name in result["failed"]]
    for name, kept in result.get("kept_prompt_tokens", {}).items():
        if any(row["kept"] for row in kept):
            said = ", ".join(
                f"{row['kept']} of {row['prompt']} with {row['blocks']} blocks" for row in kept
            )
            lines += ["", f"Prompt tokens that {name} had kept from earlier requests: {said}."]
    return "\n".join(lines)


def served_latency_table() -> str:
    """Every `results/served_latency_*.json`: what a client of a stock server waits for."""
    return "\n\n".join(_served_latency_of(r) for r in read("results/served_latency_*.json"))


def _served_latency_of(result: dict[str, Any]) -> str:
    model, machine, asked = result["model"], result["environment"], result["questions"]
    lines = [
        f"**{model['run']}**, {model['parameters'] / 1e6:.1f} M parameters, "
        f"{'trained' if model['trained'] else 'its blocks not trained'}; questions of "
        f"{quartiles(asked['prompt_tokens'], 0)} tokens, {asked['tokens_a_block']} tokens a block; "
        f"median (quartiles) of {asked['number']} questions on {machine['processor']}, one thread, "
        f"float32, commit {short_commit(machine['git_commit'])}:",
        "",
        "| engine | blocks | answer, tokens | first token ms | to direct | whole answer ms | to "
        "direct |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result["rows"], key=lambda row: row["engine"]):
        version = machine["packages"].get(row["engine"])
        cells = [
            f"{row['engine']} {version}" if version else row["engine"],
            row["blocks"],
            row["tokens"],
            quartiles(row["first_ms"], 0),
            quartiles(row["first_to_direct"], 2),
            quartiles(row["answer_ms"], 0),
            quartiles(row["answer_to_direct"], 2),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [f"| {name} | did not run | - | - | - | - | - |" for name in result["failed"]]
    return "\n".join(lines)


def parser_table() -> str:
    (result,) = read("results/answer_parsers.json")
    lines = [
        "| how an answer is written | judgements | unlike our parser's | right ones missed |",
        "|---|---|---|---|",
    ]
    for name, row in result["forms"].items():
        lines.append(
            f"| {name} | {row['cases']} | {row['disagreements']} | {row['regex_misses']} |"
        )
    return "\n".join(lines)


def blind_table() -> str:
    """Plain RiM, RiM with an opening, RiM with blind drop-out: what the controls say of each."""
    (both,) = read("results/compare_blind.json")
    (start_last,) = read("results/compare_blind_start_last.json")  # all seeds, on one processor
    lines = [
        "1,000 questions, controls on 500; means, and each seed's accuracy from seed 0 on",
        "",
        "| task | method | accuracy % | each seed | question hidden | another question's blocks: "
        "still right / follow the other | K = 1 .. 5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, result in {**both["tasks"], **start_last["tasks"]}.items():
        by_name = {verdict["name"]: verdict for verdict in result["controls"]}
        for method, row in result["methods"].items():
            hidden = by_name[f"{method}, question hidden from the read-out"]
            swap = by_name[f"{method}, blocks of another question"]
            sweep = list(by_name[f"{method}, number of blocks"]["accuracies"].values())[:5]
            seeds = ", ".join(f"{100 * seed['accuracy']:.1f}" for seed in row["per_seed"])
            lines.append(
                f"| {task} | {method} | {100 * row['final']['mean']:.1f} | {seeds} | "
                f"{100 * hidden['to']:.1f} | "
                f"{100 * swap['to']:.1f} / {100 * swap['follows']:.1f} | "
                f"{', '.join(f'{100 * share:.0f}' for share in sweep)} |"
            )
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


def families_table() -> str:
    """Which way the read-outs of every family run, and whether its answers are right."""
    (result,) = read("results/families.json")
    lines = [
        "| family | layers (window) | attention | error of parallel | read-outs "
        "| answers right | alone as in a batch | loaded as saved |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["families"]:
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
    machine = result["environment"]
    ratios = {f"{row['separate_tokens']:.1f}" for row in result["families"] if "layers" in row}
    lines += [
        "",
        f"Separate rows took {' or '.join(sorted(ratios))} times the tokens here (3 blocks, short "
        f"questions). transformers {machine['packages']['transformers']}, torch "
        f"{machine['packages']['torch']}, commit {short_commit(machine['git_commit'])}.",
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
        "positions that carry an example, one row each, GSM8K, batch 128, stage 1 / 2",
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
    row("`make demo` on two free cores", [], "<= 200 s")
    found = steps + filled + memory + answers + layouts
    machine = ", ".join(sorted({run["environment"]["processor"] for run in found}))
    packages = found[0]["environment"]["packages"] if found else {}
    versions = ", ".join(f"{name} {packages.get(name)}" for name in ("torch", "transformers"))
    lines += [
        "",
        f"On {machine}; {versions}.",
    ]
    return "\n".join(lines)


def blind_share_table() -> str:
    """Blind drop-out by its share p: controls and protocol A of each run."""
    (content,) = read("results/compare_blind_share_prefix.json")
    (protocol,) = read("results/blind_share_transplant.json")
    (result,) = content["tasks"].values()
    by_name = {verdict["name"]: verdict for verdict in result["controls"]}
    lines = [
        "| p | seed | accuracy % | question hidden | another question's blocks: still right / "
        "follow | transplanted, source's answer % (95 %) | best competitor % | necessity, points "
        "| verdict | counterfactual answer % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    runs = {run["run"]: run for run in protocol["runs"]}
    for method, row in result["methods"].items():
        hidden = by_name[f"{method}, question hidden from the read-out"]
        swap = by_name[f"{method}, blocks of another question"]
        each = (row["seeds"], row["per_seed"], hidden["per_seed"], swap["per_seed"])
        for seed, own, unseen, swapped in zip(*each, strict=True):
            follows = f"{100 * swap['follows']:.1f}" if len(row["seeds"]) == 1 else "-"  # a mean
            lines.append(
                f"| {int(method.rpartition('_')[2]) / 100:g} | {seed} "
                f"| {100 * own['accuracy']:.1f} | {100 * unseen['to']:.1f} "
                f"| {100 * swapped['to']:.1f} / {follows} "
                f"{_transplanted(runs[f'{method}-seed{seed}'])}"
            )
    return "\n".join(lines)


def _transplanted(run: dict[str, Any]) -> str:
    """The last five columns of a row: what the transplant protocol says of a run."""
    aims = {verdict["aim"]: verdict for verdict in run["verdicts"]}
    held, value = aims["answer"], aims["intermediate"]["sufficiency"]["accuracy"]
    share = {k: 100 * held["sufficiency"][k] for k in ("accuracy", "low", "high")}
    call = "carry the answer" if held["holds"] else f"no call: {', '.join(held['failing'])}"
    return (
        f"| {share['accuracy']:.1f} ({share['low']:.1f}-{share['high']:.1f}), "
        f"{held['carrier'].replace(', later blocks run again', '')} "
        f"| {100 * held['competitor']['share']:.1f} "
        f"| {100 * held['controls']['necessity']:.1f} | {call} | {100 * value:.1f} |"
    )


def blind_transplant_table() -> str:
    """Protocol A on every seed of the chains whose start comes last."""
    lines = [
        "| run | transplanted, source's answer % (95 %) | best competitor % | necessity, points "
        "| verdict | counterfactual answer % |",
        "|---|---|---|---|---|---|",
    ]
    for result in read("results/blind_start_last_transplant_*.json"):
        lines += [f"| {run['run']} {_transplanted(run)}" for run in result["runs"]]
    return "\n".join(lines)


def lookup_table() -> str:
    (result,) = read("results/task_shortcuts.json")
    lines = ["| task | answers | right % by looking up |", "|---|---|---|"]
    for task, row in result["tasks"].items():
        listed = ", ".join(f"{name} {100 * share:.1f}" for name, share in row["right"].items())
        lines.append(f"| {task} | {row['answers']} | {listed} |")
    return "\n".join(lines)


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


# Marker: where it stands, what fills it.
TABLES = {
    "demo-table": ("README.md", demo_table),
    "first-token-line": ("README.md", first_token_line),
    "gsm8k-table": ("README.md", gsm8k_table),
    "demo-table-site": ("docs/results.md", demo_table),
    "gsm8k-table-site": ("docs/results.md", gsm8k_table),
    "latency-table": ("docs/latency.md", latency_table),
    "comparison-table": ("docs/compare.md", comparison_table),
    "variants-table": ("docs/compare.md", variants_table),
    "blind-table": ("docs/evidence.md", blind_table),
    "blind-share-table": ("docs/evidence.md", blind_share_table),
    "blind-transplant-table": ("docs/evidence.md", blind_transplant_table),
    "lookup-table": ("docs/tasks.md", lookup_table),
    "control-lines": ("docs/controls.md", control_lines),
    "gguf-table": ("docs/serving.md", gguf_table),
    "budget-table": ("docs/budget.md", budget_table),
    "budget-levels": ("docs/budget.md", budget_levels),
    "shortcut-table": ("docs/tasks.md", shortcut_table),
    "served-latency-table": ("docs/latency.md", served_latency_table),
    "engine-table": ("docs/engines.md", engine_table),
    "families-table": ("docs/families.md", families_table),
    "crash-table": ("docs/scaling.md", crash_table),
    "streaming-table": ("docs/scaling.md", streaming_table),
    "performance-table": ("docs/performance.md", performance_table),
    "relations-table": ("docs/tasks.md", relations_table),
    "inside-lines": ("docs/inside.md", inside_lines),
    "inside-walk": ("docs/inside.md", inside_walk),
    "inside-times": ("docs/inside.md", inside_times),
    "inside-protocols": ("docs/inside.md", inside_protocols),
    "inside-faithfulness": ("docs/inside.md", inside_faithfulness),
    "inside-checkpoints": ("docs/inside.md", inside_checkpoints),
    "inside-selectors": ("docs/inside.md", inside_selectors),
    "parser-table": ("docs/lm-eval.md", parser_table),
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
