"""The demo, GSM8K at toy size, latency: tables of the README and its site."""

from __future__ import annotations

import statistics
from typing import Any

from tables.numbers import listed, quartiles, read, span


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
        f"On a CPU the time to the first token is {statistics.fmean(ratios):.2f} x that of a "
        f"direct answer in the demo (0.9 M parameters), and {first:.2f} x in a model of GPT-2's "
        f"size (K = {rim['blocks']} blocks, a question of {rim['question_tokens']} tokens; the "
        f"whole answer takes {whole:.2f} x)."
    )


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
        "| question, tokens | batch | method | prompt, tokens | TTFT ms | TTFT, x direct "
        "| answer ms | answer, x direct | prefill ms | ms a token | memory, MiB |",
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
