"""Tasks' shortcuts, the budget study, answer parsers."""

from __future__ import annotations

from tables.numbers import read, short_commit


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


def lookup_table() -> str:
    (result,) = read("results/task_shortcuts.json")
    lines = ["| task | answers | right % by looking up |", "|---|---|---|"]
    for task, row in result["tasks"].items():
        listed = ", ".join(f"{name} {100 * share:.1f}" for name, share in row["right"].items())
        lines.append(f"| {task} | {row['answers']} | {listed} |")
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
