"""A real language model: `recipes/compare_real.yaml`."""

from __future__ import annotations

from typing import Any

from tables.comparisons import table_note
from tables.numbers import quartiles, read, short_commit, spread
from tables.serving import quantised

from rim.evaluate.verdicts import p_cell


def _content() -> tuple[dict[str, Any], dict[str, Any]]:
    (result,) = read("results/compare_real.json")
    (content,) = result["tasks"].values()
    return result, content


def accuracy_table() -> str:
    """Accuracy by method, by number of hops, on new names and on paraphrased questions."""
    result, content = _content()
    hops = [row["steps"] for row in content["methods"][result["reference"]]["by_steps"]]
    heads = [f"{n} hops" for n in hops]
    lines = [
        f"| method | accuracy % | {' | '.join(heads)} | any block % | new names % | paraphrased % "
        f"| p |",
        "|---" * (6 + len(hops)) + "|",
    ]
    for name, row in content["methods"].items():
        p, by = row["p"], {r["steps"]: r for r in row["by_steps"]}
        cells = [
            name,
            spread(row["final"], scale=100),
            *(f"{100 * by[n]['mean']:.1f}" for n in hops),
            spread(row["any_block"], scale=100) if "any_block" in row else "-",
            spread(row["extra_tests"]["new_names"], scale=100),
            spread(row["extra_tests"]["paraphrased"], scale=100),
            "-" if p is None else p_cell(p),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", table_note(result, content)])


def learning_table() -> str:
    """Validation accuracy while training, by step."""
    _, content = _content()
    curves = {
        name: [dict(map(tuple, seed["points"])) for seed in row["learning"]]
        for name, row in content["methods"].items()
        if row.get("learning") and len(row["learning"][0]["points"]) > 2
    }
    steps = sorted(set.intersection(*(set(seed) for seeds in curves.values() for seed in seeds)))
    lines = [f"| method | {' | '.join(map(str, steps))} |", "|---" * (1 + len(steps)) + "|"]
    for name, seeds in curves.items():
        means = [sum(seed[step] for seed in seeds) / len(seeds) for step in steps]
        lines.append(f"| {name} | {' | '.join(f'{100 * mean:.0f}' for mean in means)} |")
    return "\n".join(lines)


def after_grounding_table() -> str:
    """Further training from one model after RiM's first stage: with blocks, and without any."""
    (result,) = read("results/compare_real_after_grounding.json")
    (content,) = result["tasks"].values()
    lines = [
        "| method | steps after its start | accuracy % | 2 hops | 3 hops | new names % "
        "| paraphrased % | validation % by step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["methods"].items():
        by = {r["steps"]: f"{100 * r['mean']:.1f}" for r in row["by_steps"]}
        (points,) = (seed["points"] for seed in row["learning"])
        extra = [spread(row["extra_tests"][t], scale=100) for t in ("new_names", "paraphrased")]
        curve = ", ".join(f"{step}: {100 * share:.0f}" for step, share in points)
        lines.append(
            f"| {name} | {row['steps']['mean']:.0f} | {spread(row['final'], scale=100)} | {by[2]} "
            f"| {by[3]} | {' | '.join(extra)} | {curve} |"
        )
    starts = ", ".join(f"{n} {s['steps']['mean']:.0f}" for n, s in content["starts"].items())
    seeds = ", ".join(map(str, result["seeds"]))
    note = (
        f"95 % Wilson intervals, seed {seeds}, {content['data']['tests']['test']['examples']} test "
        f"questions. Steps of the starts, one from another: {starts}. Runs made at "
        f"{', '.join(map(short_commit, content['commits']))}."
    )
    return "\n".join([*lines, "", note])


def cost_table() -> str:
    """Times to the first token and of the whole answer, and what training took."""
    result, content = _content()
    direct = content["methods"]["direct"]["latency"]
    lines = [
        "| method | first token ms | x direct | whole answer ms | tokens out | steps | "
        "tokens trained, k | training minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["methods"].items():
        timed = row["latency"]
        times = timed["ttft_ms"]["mean"] / direct["ttft_ms"]["mean"]
        lines.append(
            f"| {name} | {spread(timed['ttft_ms'], 0)} | {times:.2f} "
            f"| {spread(timed['answer_ms'], 0)} | {spread(timed['tokens'])} "
            f"| {row['steps']['mean']:.0f} | {spread(row['tokens'], 0, 1e-3)} "
            f"| {spread(row['seconds'], 0, 1 / 60)} |"
        )
    starts = ", ".join(
        f"{name}: {cost['steps']['mean']:.0f} steps, {cost['seconds']['mean'] / 60:.0f} minutes"
        for name, cost in content["starts"].items()
    )
    timing = result["latency"]
    return "\n".join(
        [
            *lines,
            "",
            f"Times: {timing['questions']} questions, one at a time, {timing['threads']} thread, "
            f"float32. The start of all, in nobody's budget: {starts}.",
        ]
    )


def sweep_table() -> str:
    """Accuracy under other numbers of blocks than in training, by number of hops."""
    _, content = _content()
    sweeps = [v for v in content["controls"] if "by_steps" in v]
    counts = [name.removeprefix("K = ") for name in sweeps[0]["accuracies"]]
    lines = [
        f"| method, hops | {' | '.join(f'K = {k}, %' for k in counts)} |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for sweep in sweeps:
        for hops in next(iter(sweep["by_steps"].values())):
            shares = [100 * by[hops] for by in sweep["by_steps"].values()]
            name = sweep["name"].removesuffix(", number of blocks")
            lines.append(f"| {name}, {hops} | {' | '.join(f'{s:.0f}' for s in shares)} |")
    return "\n".join(lines)


def control_lines() -> str:
    """The controls' verdicts, a line each."""
    _, content = _content()
    return "\n".join(f"- {verdict['line']}" for verdict in content["controls"])


def engine_table() -> str:
    """The trained RiM model in stock engines: the same answers, by number of blocks, and times."""
    (result,) = read("results/engines_smollm2.json")
    counts = result["settings"]["blocks"]
    right = [f"right with {k} block{'s' if k > 1 else ''}, %" for k in counts]
    lines = [
        f"| engine | answers equal to ours | {' | '.join(right)} | ms an answer (quartiles) |",
        "|---" * (3 + len(counts)) + "|",
    ]
    machine = result["environment"]
    for name, row in result["engines"].items():
        version = machine["packages"].get(name)
        cells = [
            f"{name} {version}" if version else name,
            f"{row['equal_answers']} of {row['answers']}",
            *(f"{100 * row['by_blocks'][str(k)]['accuracy']:.0f}" for k in counts),
            quartiles(row["milliseconds"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    asked = result["data"]["questions"]
    return "\n".join(
        [
            *lines,
            "",
            f"{asked} test questions with each number of blocks, {machine['processor']}, one "
            f"thread, float32, commit {short_commit(machine['git_commit'])}; whole answers, the "
            "prompt of a question kept by the servers that keep prompts.",
        ]
    )


def quantised_table() -> str:
    """The same model as GGUF files of several weight types."""
    (result,) = read("results/gguf_quantised_smollm2.json")
    return quantised(result)


def transplant_table() -> str:
    """Which part of another question's cache brings its answer, after blind drop-out."""
    (content,) = read("results/real_transplant.json")
    (run,) = content["runs"]
    shown = ["block 1", "block 2", "block 3", "block 3, keys", "block 3, values"]
    shown += [f"block 3, layers {band}" for band in ("1 to 8", "9 to 15", "16 to 22", "23 to 30")]
    shown += ["all blocks", "question", "question and all blocks"]
    by_name = {carrier["name"]: carrier for carrier in run["carriers"]}
    lines = [
        "| transplanted | the source's answer, % (95 %) | what follows from its intermediate name, "
        "% |",
        "|---|---|---|",
    ]
    for name in shown:
        source, value = (by_name[name][key] for key in ("source", "counterfactual"))
        low, high = 100 * source["low"], 100 * source["high"]
        lines.append(
            f"| {name} | {100 * source['accuracy']:.1f} ({low:.1f}-{high:.1f}) "
            f"| {100 * value['accuracy']:.1f} |"
        )
    return "\n".join(lines)
