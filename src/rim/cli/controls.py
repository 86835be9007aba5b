"""`rim controls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rim.cli import common
from rim.cli.help import Positive, PositiveOrNone


def controls(
    run: Path,
    data: Path,
    *,
    format_: str | None = None,
    blocks: str | None = None,
    limit: PositiveOrNone = None,
    batch_size: Positive = 64,
    max_new_tokens: Positive = 64,
    out: Path | None = None,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """Do the blocks compute? Ask a trained model again with its blocks removed, zeroed, shuffled,
    swapped or multiplied, and with the question hidden from the answer: one verdict each.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        blocks (K,...): Blocks that the model is asked with before anything is changed; several
            numbers are controlled one after the other. As in training if left out.
        out (FILE): Also write the result JSON here; of several numbers of blocks, FILE-kK.json.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model, check_target, targets
        from rim.config import ConfigError
        from rim.data.sources import open_file
        from rim.models.folder import read_prompt_format
        from rim.results import write_json

        asked = block_counts(blocks, least=1)
        examples = open_file(data, format_, limit)
        own = read_prompt_format(check_model(run, asked, device))
        if own.trained_blocks == 0:
            raise ConfigError(f"method {own.method!r} has no memory blocks to control")
        counts = [own.trained_blocks if count is None else count for count in asked]
        files = targets(out, counts)
        for file in files:
            check_target(file)
        reasoner = common.load(run, device)
        settings = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
        person = common.console_for(json_)
        results = []
        for count in counts:
            content = _controlled(reasoner, count, examples, settings, run.name, person)
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
        options = {"blocks": blocks, "progress": advance, **settings}
        result = score(reasoner, examples, all_blocks=False, **options)
        outcomes = run_controls(reasoner, examples, **options)
    records = [outcome.as_record() for outcome in outcomes]
    right = result.right["final"]
    return {
        "run": run,
        "data": {"examples": len(examples), "hash": data_hash(examples)},
        "settings": {"blocks": blocks, **settings},
        "right": right,
        "controls": records,
        "verdicts": control_verdicts(run, [right], [records]),
        "note": what_stays_alive(reasoner),
        "environment": environment(),
    }
