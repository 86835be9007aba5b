"""`rim analyze` and `rim explain`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rim.cli import common
from rim.cli.columns import reading
from rim.cli.help import Positive, PositiveOrNone, refuse_unused


def analyze(
    run: Path,
    data: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    blocks: str | None = None,
    limit: PositiveOrNone = None,
    batch_size: Positive = 32,
    max_new_tokens: Positive = 64,
    no_base: bool = False,
    beside: list[Path] | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """Look into the blocks: states of every block and layer, probes for intermediate values and for
    "this answer is right" beside their controls, principal components, attention.

    Half of the questions train the probes, the other half tests them. An interrupted analysis goes
    on where it was. `rim report` draws what is found; `rim explain` and `--select probe` use the
    probes, which are kept with the run.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        blocks (K): Blocks that the model is asked with; as in training if left out.
        no_base: Leave out the comparison with the model that the run started from.
        beside (RUN2): Another run or model folder of the same size, whose states are shown beside
            those of RUN and of its stages; repeatable.
        out (FOLDER): Where states and result go; RUN/analysis/DATA if left out.
        overwrite: Throw away what an earlier analysis left.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import block_counts, check_folder, check_model
        from rim.config import ConfigError
        from rim.data.sources import data_hash, open_file
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks, least=1)
        if len(counts) > 1:
            raise ConfigError("rim analyze takes one number of --blocks")
        model_dir = check_model(run, counts, device)
        own = read_prompt_format(model_dir)
        count = own.blocks_to("look into", counts[0])
        for other in beside or ():
            check_model(other, (), device)
        examples = open_file(data, format_, limit, reading(column, separator))
        folder = out or run / "analysis" / data.stem
        check_folder(folder)
        if overwrite and (folder / "trained").exists():
            from rim.evaluate.states import INDEX

            for part in ("trained", "base"):
                if (folder / part / INDEX).exists():  # states, not somebody's models
                    shutil.rmtree(folder / part, ignore_errors=True)
        reasoner = common.load(run, device)

        from rim.core.layers import num_layers
        from rim.evaluate.analysis import analyze, work
        from rim.evaluate.over_training import own_checkpoints
        from rim.evaluate.states import fingerprint
        from rim.report.analysis import sentences
        from rim.results import environment, write_json

        person = common.console_for(json_)
        start = None if no_base else _base(reasoner, model_dir, person)
        shown = own_checkpoints(run, str(reasoner.model.device))
        for other in beside or ():
            name = other.name if other.name not in shown else str(other)
            shown[name] = lambda at=other: common.load(at, device)
        models = 1 + (start is not None)
        sizes = (len(examples), count, num_layers(reasoner.model), models, models + len(shown))
        total = work(*sizes)
        with common.progress("looking inside", total, person) as advance:
            found = analyze(
                reasoner,
                examples,
                folder,
                run,
                blocks=count,
                model=fingerprint(model_dir),
                base=start,
                checkpoints=shown,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                progress=advance,
            )
        record = {
            "run": run.resolve().name,
            "data": {"name": data.name, "examples": len(examples), "hash": data_hash(examples)},
            "analysis": found,
            "environment": environment(),
        }
        write_json(folder / "analysis.json", record)
        for name, reason in found["checkpoints"].get("left_out", {}).items():
            common.say(f"{name} is not shown: {reason}", person)
        for line in sentences(found):
            common.say(line, person)
        common.say(f"Result: {folder / 'analysis.json'}", person)
        if json_:
            common.print_json(record)


def _base(reasoner: Any, model_dir: Path, person: Any) -> Any:
    """What the run started from, as a reasoner; None, with the reason said, where it is gone."""
    from rim.config import ConfigError
    from rim.infer.reasoner import Reasoner
    from rim.models.loading import load_untrained

    try:
        model = load_untrained(model_dir, device=str(reasoner.model.device))
    except ConfigError as error:
        common.say(f"Not compared with the base: {error}", person)
        return None
    return Reasoner(model, reasoner.encoder)


def explain(
    run: Path,
    question: str | None = None,
    *,
    data: Path | None = None,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    limit: PositiveOrNone = None,
    blocks: str | None = None,
    pairs: Annotated[int, typer.Option(min=20)] = 240,
    seed: int = 0,
    task: str | None = None,
    set_: list[str] | None = None,
    against: Path | None = None,
    batch_size: Positive = 64,
    max_new_tokens: Positive = 64,
    out: Path | None = None,
    overwrite: bool = False,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """A line per block: the step it says, the answer so far and its probability, and what probes
    read off its states.

    With --data the lines are put to the test: how often is a decoded step right, is the answer
    wrong where it is, does the answer change when the decoded step is exchanged, and what does it
    cost.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        question (QUESTION): The question, quoted.
        data (DATA): Instead of a question: data with steps, to measure faithfulness on.
        pairs (N): With --data: pairs of questions for exchanging blocks.
        seed (N): With --data: seed of the pairs.
        task (TASK): With --data: the task that it has; the one RUN was trained on if left out.
        set_ (KNOB=VALUE): A knob of --task; repeatable.
        against (RUN2): With --data: another run, whose answers say what readable blocks cost.
        blocks (K): Blocks that the model is asked with; as in training if left out.
        out (FILE): With --data: result JSON; a file in RUN/explain if left out.
        overwrite: With --data: replace an earlier result.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model, check_target
        from rim.config import ConfigError
        from rim.data.sources import data_hash, open_file
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks, least=1)
        if len(counts) > 1:
            raise ConfigError("rim explain takes one number of --blocks")
        if (question is None) == (data is None):
            raise ConfigError("rim explain takes a question, or --data FILE to measure on")
        if question is not None and not question.strip():
            raise ConfigError("the question is empty")
        if question is not None:
            own = ("format_", "column", "separator", "limit", "pairs", "seed", "task", "set_")
            refuse_unused("only with --data", *own, "against", "batch_size", "out", "overwrite")
        own = read_prompt_format(check_model(run, counts, device))
        count = own.blocks_to("explain", counts[0])
        if data is not None:
            if task is None:
                refuse_unused("goes with --task", "set_")
            out = out or run / "explain" / f"{data.stem}-k{count}.json"
            check_target(out, overwrite=overwrite)
            if against is not None:
                check_model(against, (), device)
            examples = open_file(data, format_, limit, reading(column, separator))
            person = common.console_for(json_)
            reasoner = common.load(run, device)
            other = None if against is None else common.load(against, device)

            from rim.evaluate.faithfulness.measure import faithfulness
            from rim.results import environment, write_json

            source = _source(run, task, set_ or (), person)
            asked: dict[str, Any] = {"blocks": count, "pairs": pairs, "seed": seed}
            asked |= {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
            with person.status("explain: asking"):
                found = faithfulness(reasoner, run, examples, source, against=other, **asked)
            record = {
                "run": run.resolve().name,
                "data": {"name": data.name, "examples": len(examples), "hash": data_hash(examples)},
                "settings": asked | {"against": None if against is None else against.name},
                "faithfulness": found,
                "environment": environment(),
            }
            write_json(out, record)
            for reader in found["readers"]:
                common.say(f"{reader['kind']}: {reader['means']}", person)
                for line in reader["lines"]:
                    common.say(line, person)
            for cost in found["costs"]:
                common.say(cost["line"], person)
            common.say(f"Result: {out}", person)
            if json_:
                common.print_json(record)
            return
        assert question is not None
        reasoner = common.load(run, device)

        from rim.evaluate.explain import explain
        from rim.report.analysis import explain_table

        result = explain(reasoner, run, question, blocks=count, max_new_tokens=max_new_tokens)
        if json_:
            common.print_json(result)
            return
        shown = common.printable_tree(result)
        common.console.print(explain_table(shown))
        for line in shown["means"]:
            common.say(line)


def _source(run: Path, task: str | None, knobs: Sequence[str], person: Any) -> Any:
    """The task of the data, which knows what follows from another step; None, said so, if no task
    does.
    """
    from rim.data.tasks import READERS
    from rim.evaluate.protocols.running import task_of, trained_task

    if task is not None:
        return task_of(run, task, knobs)
    source = trained_task(run)
    if source is None or source.format not in READERS:
        common.say(
            "No transplants: what follows from another step is known to these tasks alone: "
            f"{', '.join(READERS)} (--task)",
            person,
        )
        return None
    return source
