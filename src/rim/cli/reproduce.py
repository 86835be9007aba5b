"""`rim reproduce`."""

from __future__ import annotations

from pathlib import Path

from rim.cli import common
from rim.cli.help import MinutesOrNone, Positive, PositiveOrNone


def reproduce(
    name: str | None = None,
    *,
    list_: bool = False,
    dry_run: bool = False,
    seeds: str | None = None,
    set_: list[str] | None = None,
    steps: PositiveOrNone = None,
    minutes: MinutesOrNone = None,
    jobs: Positive = 1,
    out: Path | None = None,
    json_: bool = False,
) -> None:
    """Train and test what the paper reports, by name, and say how it compares.

    Evaluates by the paper's protocol (random splits of the test questions) and by ours (chosen on
    held-out training questions), on GSM8K, GSM-Hard, SVAMP and MultiArith. Interrupt it at any
    time: the same command continues.

    Args:
        name (NAME): Such as gpt2/rim; --list has all.
        list_: All reproductions: base, expected figures, hours and memory.
        dry_run: Say what would be read, trained, expected and written, and what it takes.
        seeds (N,...): 0,1,2 if left out.
        set_ (KEY=VALUE): Change the recipe; start.KEY that of the run it starts from. Repeatable.
        steps (N): A trial: so many optimizer steps a run, in a folder of its own.
        minutes (X): Save and stop after so long, with exit code 143; the same command continues.
        jobs (N): Runs at a time, each with its share of the cores.
        out (FILE): Result JSON; METHOD.json in its folder if left out.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import check_target, comma_separated
        from rim.config import ConfigError
        from rim.study.reproduce.catalogue import find

        if list_:
            _show_list(json_)
            return
        if name is None:
            raise ConfigError("name a reproduction, such as gpt2/rim; `rim reproduce --list`")
        entry = find(name)
        from rim.report.page.reproduced import plan_lines
        from rim.study.reproduce.running import comparison_of, planned

        numbers = comma_separated("--seeds", seeds)
        settings = comparison_of(entry, (0, 1, 2) if numbers is None else numbers, set_ or ())
        if steps is not None:
            from rim.study.compare.trial import trial

            settings = trial(settings, steps)
        plan = planned(entry, settings)
        person = common.console_for(json_)
        common.say("\n".join(plan_lines(plan)), person)
        if dry_run:
            if json_:
                common.print_json(plan)
            return
        target = out or settings.folder / f"{entry.method}.json"
        check_target(target)
        from rim.cli.compare import check_runs, fail_for

        check_runs(settings)
        common.quiet_libraries()
        from rim.report.page.reproduced import figures_table, marks_note
        from rim.results import write_json
        from rim.study.compare.runner import run_comparison
        from rim.study.reproduce.running import reproduction
        from rim.train.stopping import time_limit

        with time_limit(minutes):
            result, failures = run_comparison(settings, person, jobs=jobs)
        record = reproduction(entry, plan, result, steps)
        write_json(target, record)
        person.print(figures_table(common.printable_tree(record)))
        common.say(f"Expected intervals: {marks_note()}", person)
        if steps is not None:
            common.say(f"A trial of {steps} steps: it says nothing of these figures.", person)
        common.say(f"Result: {target}", person)
        if json_:
            common.print_json(record)
        fail_for(failures)


def _show_list(as_json: bool) -> None:
    from rim.report.page.reproduced import catalogue_table, marks_note, total_line
    from rim.study.reproduce.catalogue import entries
    from rim.study.reproduce.running import comparison_of, planned

    plans = [planned(entry, comparison_of(entry, (0, 1, 2))) for entry in entries()]
    if as_json:
        common.print_json(plans)
        return
    common.console.print(catalogue_table(plans))
    bases = {plan["name"].partition("/")[0]: plan["base"] for plan in plans}
    common.say("; ".join(f"{name}: {base}" for name, base in bases.items()) + ".")
    common.say(
        f"{marks_note()} Hours and GiB on one H100 are computed, not measured; + is the run that "
        "it starts from."
    )
    common.say(total_line(plans))
