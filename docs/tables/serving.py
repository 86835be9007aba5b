"""Engines: answers, times, quantised files."""

from __future__ import annotations

from typing import Any

from tables.numbers import quartiles, read, short_commit


def gguf_table() -> str:
    (result,) = read("results/gguf_quantised.json")
    return quantised(result)


def quantised(result: dict[str, Any]) -> str:
    """A run in llama.cpp at several weight types."""
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
            f"`{result['llama_cpp']['exact_flags']}`. This model's q4_k_m has "
            + ", ".join(f"{count} tensors of {kind}" for kind, count in types.items())
            + ".",
        ]
    )


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
        "| engine | blocks | answer, tokens | first token ms | x direct | whole answer ms "
        "| x direct |",
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
