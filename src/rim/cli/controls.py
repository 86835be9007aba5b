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
    if protocol is not None:
        with common.clear_errors():
            _protocol(
                protocol,
                run,
                (data, format_, limit, reading(column, separator)),
                (blocks, pairs, seed, batch_size),
                (task, tuple(set_ or ())),
                (out, overwrite),
                common.console_for(json_),
                (device, dtype),
                json_,
            )
        return
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model, check_target, targets
        from rim.data.sources import open_file
        from rim.models.folder import read_prompt_format
        from rim.results import write_json

        refuse_unused("only with --protocol", "pairs", "seed", "task", "set_")
        asked = block_counts(blocks, least=1)
        examples = open_file(data, format_, limit, reading(column, separator))
        own = read_prompt_format(check_model(run, asked, device))
        counts = [own.blocks_to("control", count) for count in asked]
        files = targets(out, counts) or [
            run / "controls" / f"{data.stem}-k{count}.json" for count in counts
        ]
        for file in files:
            check_target(file, overwrite=overwrite)
        reasoner = common.load(run, device, dtype)
        settings = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
        person = common.console_for(json_)
        results = []
        for count in counts:
            content = _controlled(reasoner, count, examples, settings, run.resolve().name, person)
            content["data"]["name"] = data.name
            results.append(content)
            if len(counts) > 1:
                common.say(f"{count} blocks:", person)
            for verdict in content["verdicts"]:
                common.say(verdict["line"], person)
            common.say(content["note"], person)
        for content, file in zip(results, files, strict=False):
            write_json(file, content)
            common.say(f"Result: {file}", person)
        if json_:
            common.print_json(results)


def _controlled(
    reasoner: Any, blocks: int, examples: Any, settings: dict[str, Any], run: str, person: Any
) -> dict[str, Any]:
    """Accuracy with so many blocks, and every control of it, as JSON has them."""
    from rim.data.sources import data_hash
    from rim.evaluate.accuracy import score
    from rim.evaluate.controls import num_answers, run_controls, what_stays_alive
    from rim.evaluate.verdicts import control_verdicts
    from rim.results import environment

    total = num_answers(blocks, len(examples)) + len(examples)
    with common.progress("answering", total, person) as advance:
        options: dict[str, Any] = {"blocks": blocks, "progress": advance, **settings}
        result = score(reasoner, examples, all_blocks=False, **options)
        refused: dict[str, str] = {}
        outcomes = run_controls(reasoner, examples, refused=refused, **options)
    for name, reason in refused.items():
        common.say(f"No control {name!r}: {reason}", person)
    records = [outcome.as_record() for outcome in outcomes]
    right = result.right["final"]
    return {
        "run": run,
        "data": {"examples": len(examples), "hash": data_hash(examples)},
        "settings": {"blocks": blocks, **settings},
        "right": right,
        "controls": records,
        "refused": refused,
        "verdicts": control_verdicts(run, [right], [records]),
        "note": what_stays_alive(reasoner),
        "environment": environment(),
    }


def _protocol(
    protocol: Any,
    run: Path,
    read: tuple[Path, Any, int | None, Any],
    asked: tuple[str | None, int, int, int],
    task: tuple[str | None, tuple[str, ...]],
    target: tuple[Path | None, bool],
    person: Any,
    where: tuple[str | None, Any],
    json_: bool,
) -> None:
    from rim.cli.checks import block_counts, check_model, check_target
    from rim.config import ConfigError
    from rim.data.sources import open_file
    from rim.evaluate.protocols.running import lines_of, run_protocol, task_of
    from rim.models.folder import read_prompt_format
    from rim.report.heat_map import protocol_svg
    from rim.results import write_json

    refuse_unused("not with --protocol, whose answers are chosen, not written", "max_new_tokens")
    if task[0] is None:
        refuse_unused("goes with --task", "set_")
    data, format_, limit, names = read
    text, pairs, seed, batch_size = asked
    counts = block_counts(text, least=1)
    if len(counts) > 1:
        raise ConfigError("a protocol asks with one number of blocks")
    own = read_prompt_format(check_model(run, counts, where[0])).trained_blocks
    count = own if counts[0] is None else counts[0]
    out = target[0] or run / "controls" / f"{protocol}-{data.stem}-k{count}.json"
    if out.suffix != ".json":
        raise ConfigError(f"{out}: results are JSON; give a .json file (a picture goes beside it)")
    check_target(out, overwrite=target[1])
    source = task_of(run, *task)
    examples = open_file(data, format_, limit, names)
    reasoner = common.load(run, *where)
    with common.progress(f"{protocol}: asking", 1, person) as advance:
        found = run_protocol(
            protocol,
            reasoner,
            examples,
            source,
            blocks=count,
            pairs=pairs,
            seed=seed,
            batch_size=batch_size,
            progress=advance,
        )
    result: dict[str, Any] = {"run": run.resolve().name, **found}
    result["data"]["name"] = data.name
    for line in lines_of(result):
        common.say(line, person)
    write_json(out, result)
    common.say(f"Result: {out}", person)
    picture = protocol_svg(result, f"{run.resolve().name}, {protocol}: per cent of pairs")
    if picture is not None:
        out.with_suffix(".svg").write_text(picture, encoding="utf-8")
        common.say(f"Picture: {out.with_suffix('.svg')}", person)
    if json_:
        common.print_json(result)
