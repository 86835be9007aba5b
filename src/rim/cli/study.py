"""`rim study`."""

from __future__ import annotations

from pathlib import Path

from rim.cli import common
from rim.cli.compare import check_runs, fail_for
from rim.cli.help import Positive, PositiveOrNone


def study(
    name: str,
    *,
    set_: list[str] | None = None,
    steps: PositiveOrNone = None,
    seeds: str | None = None,
    jobs: Positive = 1,
    out: Path | None = None,
    table_only: bool = False,
    json_: bool = False,
) -> None:
    """Repeat a comparison over a grid of settings: when do memory blocks help?

    `depth`: how many steps can be done by how many layers, with and without blocks. `width`: what
    the number of blocks is worth, with and without grounding. Or a YAML file of your own.
    It says first how many runs of how many steps that takes. Interrupt it at any time: the same
    command continues. Writes one JSON, and a picture a task beside it.

    Args:
        name (STUDY): depth, width, or a study's YAML.
        set_ (KEY=VALUE): Change a setting: axes.layers.values=[2,4]. Repeatable.
        steps (N): A trial of so many optimizer steps for each method, in a folder of its own
            (NAME-Nsteps).
        seeds (N,...): The study's if left out.
        jobs (N): Runs at a time, each with its share of the cores.
        out (FILE): Result JSON; study.json in its folder if left out.
        table_only: Run nothing: sum up what is finished.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import check_target, comma_separated
        from rim.config import ConfigError
        from rim.study.sweep.settings import load_study

        if out is not None and out.suffix != ".json":
            raise ConfigError(f"--out {out}: the result is a .json file")
        numbers = comma_separated("--seeds", seeds)
        chosen = [] if numbers is None else [f"seeds={numbers}"]
        trial = [] if steps is None else [f"steps={steps}"]
        settings = load_study(name, (*(set_ or ()), *chosen, *trial))
        target = out or settings.folder / "study.json"
        check_target(target)
        points = [(point, settings.at(point)) for point in settings.points()]
        if not table_only:
            for _, comparison in points:
                if comparison is not None:
                    check_runs(comparison)
        common.quiet_libraries()
        from rim.report.sweep import study_notes, study_svg, study_tables, study_tasks
        from rim.results import write_json
        from rim.study.sweep.running import run_study, sum_up_study

        person = common.console_for(json_)
        if table_only:
            result, failures = sum_up_study(settings), []
        else:
            result, failures = run_study(settings, person, jobs=jobs)
        write_json(target, result)
        shown = common.printable_tree(result)
        for table in study_tables(shown):
            person.print(table)
        for line in study_notes(shown):
            person.print(line, highlight=False, markup=False)
        written = [f"Result: {target}"]
        for task in study_tasks(result):
            picture = target.with_name(f"{target.stem}-{task}.svg")
            drawn = study_svg(result, task)
            if drawn is None:
                continue
            picture.write_text(drawn, encoding="utf-8")
            written.append(f"Picture: {picture}")
        common.say("\n".join(written), person)
        if json_:
            common.print_json(result)
        fail_for(failures)
