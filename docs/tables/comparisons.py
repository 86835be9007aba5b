"""Comparisons of methods, and blind drop-out."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from scipy.stats import fisher_exact, wilcoxon
from tables.numbers import read, short_commit, span, spread

from rim.evaluate.verdicts import change_text, p_cell


def comparison_table() -> str:
    (result,) = read("results/compare_arithmetic.json")
    return comparison_of(result)


def variants_table() -> str:
    (result,) = read("results/compare_rim_variants.json")
    return comparison_of(result)


def short_table() -> str:
    """The example of `docs/compare.md`: what one would choose by, and what one then reads."""
    (result,) = read("results/compare_short.json")
    (content,) = result["tasks"].values()
    lines = [
        "| method | validation % | test accuracy % | p | tokens trained, M |",
        "|---|---|---|---|---|",
    ]
    for name, row in content["methods"].items():
        ends = [100 * seed["points"][-1][1] for seed in row["learning"]]
        p = "-" if row["p"] is None else p_cell(row["p"])
        cells = (
            name,
            span(ends),
            spread(row["final"], scale=100),
            p,
            spread(row["tokens"], 2, 1e-6),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", table_note(result, content)])


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
            "-" if p is None else p_cell(p),
            spread(row["latency"]["ttft_ms"]),
            spread(row["latency"]["answer_ms"]),
            spread(row["latency"]["tokens"]),
            spread(row["tokens"], 2, 1e-6),
            spread(row["seconds"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", table_note(result, content)])


def table_note(result: dict[str, Any], content: dict[str, Any]) -> str:
    """What stands below a comparison's table: seeds, questions, commits, what p is.

    Raises:
        ValueError: not all methods have the same seeds.
    """
    seeds = content["methods"][result["reference"]]["seeds"]
    if unequal := [name for name, row in content["methods"].items() if row["seeds"] != seeds]:
        raise ValueError(f"{', '.join(unequal)}: not over seeds {seeds}, as the table's note says")
    kind = next(iter(content["methods"].values()))["final"]["kind"]
    bracket = {"wilson": "95 % Wilson interval", "range": "least and most", "t": "95 % t interval"}
    questions = next(iter(content["methods"].values()))["per_seed"][0]["total"]
    commits = ", ".join(map(short_commit, content["commits"]))
    over = f"seeds {', '.join(map(str, seeds))}"
    return (
        f"Mean ({bracket[kind]}) over {over}; {questions} test questions; runs made at {commits}. "
        f"p: McNemar against {result['reference']}, the largest of the seeds', 1 where they point "
        "in different directions."
    )


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


def blind_table() -> str:
    """Plain RiM, RiM with an opening, RiM with blind drop-out: what the controls say of each."""
    (both,) = read("results/compare_blind.json")
    (start_last,) = read("results/compare_blind_start_last.json")  # all seeds, on one processor
    lines = [
        "1,000 questions, controls on 500; means, and each seed's accuracy from seed 0 on",
        "",
        "| task | method | accuracy % | each seed | question hidden | another question's blocks: "
        "still right / the other's answer (by chance) | K = 1 .. 5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, result in {**both["tasks"], **start_last["tasks"]}.items():
        by_name = {verdict["name"]: verdict for verdict in result["controls"]}
        settings = {**both["settings"]["tasks"], **start_last["settings"]["tasks"]}[task]
        modulus = settings["data"]["train"]["arithmetic"]["modulus"]
        for method, row in result["methods"].items():
            hidden = by_name[f"{method}, question hidden from the read-out"]
            swap = by_name[f"{method}, blocks of another question"]
            sweep = list(by_name[f"{method}, number of blocks"]["accuracies"].values())[:5]
            seeds = ", ".join(f"{100 * seed['accuracy']:.1f}" for seed in row["per_seed"])
            lines.append(
                f"| {task} | {method} | {100 * row['final']['mean']:.1f} | {seeds} | "
                f"{100 * hidden['to']:.1f} | "
                f"{100 * swap['to']:.1f} / {_follows(swap, modulus)} | "
                f"{', '.join(f'{100 * share:.0f}' for share in sweep)} |"
            )
    return "\n".join(lines)


def blind_share_table() -> str:
    """Blind drop-out by its share p: controls and protocol A of each run, on two processors."""
    lines = [
        "| share p | seed | accuracy % | question hidden | another question's blocks: still right "
        f"/ the other's answer | {' | '.join(_TRANSPLANT_HEADS)} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [row for machine in ("", "_epyc") for row in _share_rows(machine)]
    return "\n".join([*lines, *(line for _, line in sorted(rows, key=lambda row: row[0]))])


def _share_rows(machine: str) -> list[tuple[tuple[float, str], str]]:
    """Rows with what they are sorted by."""
    (content,) = read(f"results/compare_blind_share_prefix{machine}.json")
    (protocol,) = read(f"results/blind_share_transplant{machine}.json")
    (result,) = content["tasks"].values()
    by_name = {verdict["name"]: verdict for verdict in result["controls"]}
    runs = {run["run"]: run for run in protocol["runs"]}
    rows = []
    for method, row in result["methods"].items():
        hidden = by_name[f"{method}, question hidden from the read-out"]
        swap = by_name[f"{method}, blocks of another question"]
        each = (row["seeds"], row["per_seed"], hidden["per_seed"], swap["per_seed"])
        for seed, own, unseen, swapped in zip(*each, strict=True):
            follows = swapped.get("follows", swap["follows"])  # of one seed the mean is its own
            p, name = int(method.rpartition("_")[2]) / 100, f"{seed}{' (EPYC)' if machine else ''}"
            line = (
                f"| {p:g} | {name} | {100 * own['accuracy']:.1f} | {100 * unseen['to']:.1f} "
                f"| {100 * swapped['to']:.1f} / {100 * follows:.1f} "
                f"| {_transplanted(runs[f'{method}-seed{seed}'])} |"
            )
            rows.append(((p, name), line))
    return rows


def blind_seeds_table() -> str:
    """With and without blind drop-out, many seeds on one processor: who decides, seed by seed."""
    (content,) = read("results/compare_blind_seeds.json")
    (result,) = content["tasks"].values()
    protocols = read("results/blind_seeds_transplant_*.json")
    runs = {run["run"]: run for protocol in protocols for run in protocol["runs"]}
    by_name = {verdict["name"]: verdict for verdict in result["controls"]}
    lines = [
        "| share p | accuracy %, least | question hidden %, each seed | another question's blocks: "
        "the other's answer %, each seed | with the source's blocks: the source's answer %, each "
        "seed | carry the answer |",
        "|---|---|---|---|---|---|",
    ]
    table, handed_on = [], []
    for method, row in result["methods"].items():
        own = [runs[f"{method}-seed{seed}"] for seed in row["seeds"]]
        carried = [_aims(run)["answer"]["holds"] for run in own]
        blocks = [_carrier(run, "all blocks")["source"]["accuracy"] for run in own]
        hidden = by_name[f"{method}, question hidden from the read-out"]["per_seed"]
        swap = by_name[f"{method}, blocks of another question"]["per_seed"]
        lines.append(
            f"| {int(method.rpartition('_')[2]) / 100:g} "
            f"| {100 * min(seed['accuracy'] for seed in row['per_seed']):.1f} "
            f"| {_shares(seed['to'] for seed in hidden)} "
            f"| {_shares(seed['follows'] for seed in swap)} "
            f"| {_shares(blocks)} (mean {100 * fmean(blocks):.0f}) "
            f"| {sum(carried)} of {len(carried)} |"
        )
        table.append([sum(carried), len(carried) - sum(carried)])
        handed_on.append(blocks)
    return "\n".join(
        [
            *lines,
            "",
            f"Seeds {', '.join(map(str, content['seeds']))}. Last column: Fisher's exact test, "
            f"p-value {fisher_exact(table).pvalue:.2g}. The one before: Wilcoxon's signed ranks by "
            f"seed, p-value {wilcoxon(*handed_on).pvalue:.2g}.",
        ]
    )


def _shares(values: Iterable[float]) -> str:
    return ", ".join(f"{100 * value:.0f}" for value in values)


def _aims(run: dict[str, Any]) -> dict[str, Any]:
    return {verdict["aim"]: verdict for verdict in run["verdicts"]}


def _carrier(run: dict[str, Any], name: str) -> dict[str, Any]:
    return next(carrier for carrier in run["carriers"] if carrier["name"] == name)


def blind_floor_table() -> str:
    """The task of `blind_share_table` without blocks, with one, and without stage 1."""
    return _each_seed("results/compare_blind_floor_prefix.json")


def long_counts_table() -> str:
    """The task whose answers alone teach nothing."""
    return _each_seed("results/compare_long_counts.json")


def pairs_table() -> str:
    """The task whose question ends with what to look for, and the same with that in front."""
    return _each_seed("results/compare_pairs.json")


def _each_seed(file: str) -> str:
    """Every method of a comparison: accuracies and controls of each seed, task by task."""
    (content,) = read(file)
    tasks = {task: result for task, result in content["tasks"].items() if result["methods"]}
    heads = (
        *(["task"] if len(tasks) > 1 else []),
        "method",
        "accuracy %, each seed",
        "tokens trained, M (+ its start's)",
        "question hidden",
        "another question's blocks: still right / the other's answer, each seed",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for task, result in tasks.items():
        start = f"| {task} " if len(tasks) > 1 else ""
        lines += [start + line for line in _seeds_of(result)]
    return "\n".join(lines)


def _seeds_of(result: dict[str, Any]) -> list[str]:
    lines = []
    by_name = {verdict["name"]: verdict for verdict in result["controls"]}
    for method, row in result["methods"].items():
        own = ", ".join(f"{100 * seed['accuracy']:.1f}" for seed in row["per_seed"])
        starts = [s["tokens"]["mean"] for s in result["starts"].values() if method in s["methods"]]
        trained = f"{row['tokens']['mean'] / 1e6:.1f}"
        trained += f" + {sum(starts) / 1e6:.1f}" * bool(starts)
        hidden = by_name.get(f"{method}, question hidden from the read-out")
        swap = by_name.get(f"{method}, blocks of another question")
        unseen = ", ".join(f"{100 * s['to']:.0f}" for s in hidden["per_seed"]) if hidden else "-"
        shares = [
            f"{100 * s['to']:.0f} / {100 * s['follows']:.0f}"
            for s in (swap["per_seed"] if swap else [])
        ]
        lines.append(f"| {method} | {own} | {trained} | {unseen} | {', '.join(shares) or '-'} |")
    return lines


def after_grounding_table() -> str:
    """From one grounded model: with blocks, and without any; each seed, and its McNemar test."""
    (content,) = read("results/compare_after_grounding.json")
    lines = [
        "| task | seed | RiM's second stage, 300 steps % | no blocks: direct answers, 300 steps % "
        "| p (McNemar) | 1,200 steps % | direct answers after 900 / 5,000 steps of cut questions % "
        "| direct answers from the base, 1,200 steps % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, result in content["tasks"].items():
        methods = result["methods"]
        after = methods["direct_after_grounding"]  # its tests are against rim, the reference
        shares = {
            name: {
                seed: f"{100 * share['accuracy']:.1f}"
                for seed, share in zip(row["seeds"], row["per_seed"], strict=True)
            }
            for name, row in methods.items()
        }
        for test in after["against_reference"]:
            seed = test["seed"]
            found = [shares[n].get(seed, "-") for n in ("rim", "direct_after_grounding")]
            p = p_cell(test["p"])
            longer, cut, longer_cut, direct = (
                shares.get(name, {}).get(seed, "-")
                for name in (
                    "direct_longer_after_grounding",
                    "direct_after_cut",
                    "direct_after_longer_cut",
                    "direct",
                )
            )
            more = f"{longer} | {cut} / {longer_cut} | {direct}"
            lines.append(f"| {task} | {seed} | {found[0]} | {found[1]} | {p} | {more} |")
    return "\n".join(lines)


def _follows(swap: dict[str, Any], answers: int) -> str:
    """How many answers are the other question's, and how many would be if those that are not right
    were spread evenly over all other answers.
    """
    return f"{100 * swap['follows']:.1f} ({100 * (1 - swap['to']) / (answers - 1):.1f})"


#: Heads of `_transplanted`.
_TRANSPLANT_HEADS = (
    "with the source's blocks: gives the source's answer % (95 %)",
    "with the source's question: keeps its own answer % (95 %)",
    "verdict on the answer",
    "a step's value, best part (post hoc)",
)


def _transplanted(run: dict[str, Any]) -> str:
    """What the transplant protocol says of a run: who decides, the verdict on the answer, and the
    step whose value the best part of the blocks hands over most often.
    """
    held = _aims(run)["answer"]
    shares = (_carrier(run, "all blocks")["source"], _carrier(run, "question")["recipient"])
    decides = [f"{100 * x['accuracy']:.1f} ({_interval(x)})" for x in shares]
    call = "carry the answer" if held["holds"] else f"no call: {', '.join(held['failing'])}"
    part = held["carrier"].replace(", later blocks run again", "*")
    sufficiency = f"{100 * held['sufficiency']['accuracy']:.1f}, {part}"
    return f"{' | '.join(decides)} | {call} ({sufficiency}) | {_best_step(run)}"


def _interval(share: dict[str, Any]) -> str:
    return f"{100 * share['low']:.0f}-{100 * share['high']:.0f}"


def _best_step(run: dict[str, Any]) -> str:
    found = [
        (by["accuracy"], f"{by['right']} of {by['total']}: step {step}, {carrier['name']}")
        for carrier in run["carriers"]
        if carrier["part"] in ("block", "up_to", "blocks")
        for step, by in carrier["by_step"].items()
    ]
    return max(found)[1].replace(", later blocks run again", "*")


def blind_transplant_table() -> str:
    """Protocol A on both tasks of chains."""
    lines = [
        f"| task | run | {' | '.join(_TRANSPLANT_HEADS)} |",
        "|---|---|---|---|---|---|",
    ]
    for task, files in (
        ("start last", "results/blind_start_last_transplant_*.json"),
        ("demo's chains", "results/blind_chains_transplant.json"),
    ):
        for result in read(files):
            lines += [f"| {task} | {run['run']} | {_transplanted(run)} |" for run in result["runs"]]
    return "\n".join(lines)
