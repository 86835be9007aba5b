"""Comparisons of methods, and blind drop-out."""

from __future__ import annotations

from typing import Any

from tables.numbers import read, short_commit, spread

from rim.evaluate.verdicts import change_text


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
    """Blind drop-out by its share p: controls and protocol A of each run."""
    (content,) = read("results/compare_blind_share_prefix.json")
    (protocol,) = read("results/blind_share_transplant.json")
    (result,) = content["tasks"].values()
    by_name = {verdict["name"]: verdict for verdict in result["controls"]}
    lines = [
        "| p | seed | accuracy % | question hidden | another question's blocks: still right / the "
        "other's answer (by chance) | transplanted, source's answer % (95 %) | best competitor % "
        "| necessity, points | verdict | counterfactual answer % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    runs = {run["run"]: run for run in protocol["runs"]}
    for method, row in result["methods"].items():
        hidden = by_name[f"{method}, question hidden from the read-out"]
        swap = by_name[f"{method}, blocks of another question"]
        each = (row["seeds"], row["per_seed"], hidden["per_seed"], swap["per_seed"])
        for seed, own, unseen, swapped in zip(*each, strict=True):
            follows = _follows(swap, 4) if len(row["seeds"]) == 1 else "-"  # a mean
            lines.append(
                f"| {int(method.rpartition('_')[2]) / 100:g} | {seed} "
                f"| {100 * own['accuracy']:.1f} | {100 * unseen['to']:.1f} "
                f"| {100 * swapped['to']:.1f} / {follows} "
                f"{_transplanted(runs[f'{method}-seed{seed}'])}"
            )
    return "\n".join(lines)


def _follows(swap: dict[str, Any], answers: int) -> str:
    """How many answers are the other question's, and how many would be if those that are not right
    were spread evenly over all other answers.
    """
    return f"{100 * swap['follows']:.1f} ({100 * (1 - swap['to']) / (answers - 1):.1f})"


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
