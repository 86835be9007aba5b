"""`rim controls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rim.cli import common
from rim.cli.columns import reading
from rim.cli.help import Dtype, Positive, PositiveOrNone, refuse_unused

Pairs = Annotated[int, typer.Option(min=20)]


def controls(
    run: Path,
    data: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    blocks: str | None = None,
    limit: PositiveOrNone = None,
    batch_size: Positive = 64,
    max_new_tokens: Positive = 64,
    out: Path | None = None,
    overwrite: bool = False,
    json_: bool = False,
    device: str | None = None,
    dtype: Dtype = None,
    protocol: Literal["transplant", "interchange", "content"] | None = None,
    pairs: Pairs = 240,
    seed: int = 0,
    task: str | None = None,
    set_: list[str] | None = None,
) -> None:
    """Do the blocks compute? Ask a trained model again with its blocks removed, zeroed, shuffled,
    swapped or multiplied, and with the question hidden from the answer: one verdict each. With
    --protocol, exchange parts of its cache between questions and see what the answer becomes.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        blocks (K,...): Blocks that the model is asked with before anything is changed; several
            numbers are controlled one after the other (one with --protocol). As in training if
            left out.
        out (FILE): Result JSON; a file in RUN/controls if left out, where `rim report` finds it.
            Several numbers of blocks go to FILE-kK.json.
        overwrite: Replace an earlier result.
        protocol (NAME): A causal protocol instead: transplant (what carries the intermediate value,
            or the answer), interchange (in which block and layers it lies), content (does it matter
            what stands in the blocks). For tasks that know their intermediate values.
        pairs (N): Pairs of questions of a protocol.
        seed (N): Seed of a protocol's pairs.
        task (TASK): The task that DATA has; the one RUN was trained on if left out.
        set_ (KNOB=VALUE): A knob of --task; repeatable.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model, check_target, targets
        from rim.config import ConfigError
        from rim.data.sources import open_file
        from rim.models.folder import read_prompt_format
        from rim.results import write_json

        asked = block_counts(blocks, least=1)
        if protocol is None:
            refuse_unused("only with --protocol", "pairs", "seed", "task", "set_")
        else:
            why = "not with --protocol, whose answers are chosen, not written"
            refuse_unused(why, "max_new_tokens")
            if task is None:
                refuse_unused("goes with --task", "set_")
            if len(asked) > 1:
                raise ConfigError("a protocol asks with one number of blocks")
            if out is not None and out.suffix != ".json":
                why = "results are JSON; give a .json file (a picture goes beside it)"
                raise ConfigError(f"{out}: {why}")
        examples = open_file(data, format_, limit, reading(column, separator))
        own = read_prompt_format(check_model(run, asked, device))
        counts = [own.blocks_to("control", count) for count in asked]
        stem = data.stem if protocol is None else f"{protocol}-{data.stem}"
        files = targets(out, counts) or [run / "controls" / f"{stem}-k{k}.json" for k in counts]
        for file in files:
            check_target(file, overwrite=overwrite)
        source = None
        if protocol is not None:
            from rim.evaluate.protocols.running import task_of

            source = task_of(run, task, set_ or ())
        reasoner = common.load(run, device, dtype)
        name, person = run.resolve().name, common.console_for(json_)
        results = []
        for count in counts:
            options: dict[str, Any] = {"blocks": count, "batch_size": batch_size}
            if protocol is None:
                options["max_new_tokens"] = max_new_tokens
                found, lines = _controlled(reasoner, examples, options, name, person)
            else:
                options |= {"pairs": pairs, "seed": seed}
                found, lines = _exchanged(protocol, reasoner, examples, source, options, person)
            record: dict[str, Any] = {"run": name, **found}
            record["data"]["name"] = data.name
            results.append(record)
            if len(counts) > 1:
                common.say(f"{count} blocks:", person)
            for line in lines:
                common.say(line, person)
        for record, file in zip(results, files, strict=True):
            write_json(file, record)
            common.say(f"Result: {file}", person)
            if protocol is not None:
                _draw(record, file.with_suffix(".svg"), f"{name}, {protocol}", person)
        if json_:
            common.print_json(results if protocol is None else results[0])


def _controlled(
    reasoner: Any, examples: Any, options: dict[str, Any], run: str, person: Any
) -> tuple[dict[str, Any], list[str]]:
    """Accuracy as it is and every control of it, as JSON has them; what to say of them."""
    from rim.data.sources import data_hash
    from rim.evaluate.accuracy import score
    from rim.evaluate.controls import num_answers, run_controls, what_stays_alive
    from rim.evaluate.verdicts import control_verdicts
    from rim.results import environment

    total = num_answers(options["blocks"], len(examples)) + len(examples)
    with common.progress("answering", total, person) as advance:
        result = score(reasoner, examples, all_blocks=False, progress=advance, **options)
        refused: dict[str, str] = {}
        outcomes = run_controls(reasoner, examples, refused=refused, progress=advance, **options)
    for name, reason in refused.items():
        common.say(f"No control {name!r}: {reason}", person)
    records = [outcome.as_record() for outcome in outcomes]
    right = result.right["final"]
    verdicts = control_verdicts(run, [right], [records])
    note = what_stays_alive(reasoner)
    record = {
        "data": {"examples": len(examples), "hash": data_hash(examples)},
        "settings": options,
        "right": right,
        "controls": records,
        "refused": refused,
        "verdicts": verdicts,
        "note": note,
        "environment": environment(),
    }
    return record, [*(verdict["line"] for verdict in verdicts), note]


def _exchanged(
    protocol: Any, reasoner: Any, examples: Any, source: Any, options: dict[str, Any], person: Any
) -> tuple[dict[str, Any], list[str]]:
    """A protocol's result, as JSON has it; what to say of it."""
    from rim.evaluate.protocols.running import lines_of, run_protocol

    with common.progress(f"{protocol}: asking", 1, person) as advance:
        found = run_protocol(protocol, reasoner, examples, source, progress=advance, **options)
    return found, lines_of(found)


def _draw(result: dict[str, Any], picture: Path, title: str, person: Any) -> None:
    """Beside a protocol's result its picture, if it has one."""
    from rim.report.heat_map import protocol_svg

    drawn = protocol_svg(result, f"{title}: per cent of pairs")
    if drawn is not None:
        picture.write_text(drawn, encoding="utf-8")
        common.say(f"Picture: {picture}", person)
