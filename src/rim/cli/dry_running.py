"""What `rim train --dry-run` prints."""

from __future__ import annotations

from typing import Any

from rim.cli import common
from rim.report.text import duration

#: Characters of the longest bar.
BAR = 40


def show(what: str, found: dict[str, Any]) -> None:
    """Print a part of a dry run for people, as soon as it is known."""
    if what == "data":
        _data(found)
    else:
        _stage(found)


def _data(result: dict[str, Any]) -> None:
    data, say = result["data"], common.say
    say(f"{result['name']}: {data['train']:,} training, {data['validation']:,} validation examples")
    of = "" if data["counted"] >= data["train"] else f" (of {data['counted']:,} examples)"
    for name, tokens in data["tokens"].items():
        say(f"  {name}: {tokens['median']:g} tokens (median), {tokens['longest']} (longest){of}")
    _histogram(result["steps"])
    parameters = result["parameters"]
    say(f"Parameters: {parameters['trainable']:,} of {parameters['total']:,} train")


def show_whole(result: dict[str, Any]) -> None:
    """Print what is known when all parts are."""
    say = common.say
    memory, writes = result["memory"], result["writes"]
    peak = "not known" if memory["peak"] is None else f"{memory['peak'] / 1e9:.2f} GB"
    say(f"Memory on {memory['device']}: {peak} at its peak so far, {_size(memory['free'])} free")
    say(f"Time: about {duration(result['seconds'])} on this machine as it is now")
    say(
        f"Writes: {writes['folder']}/ (model {_size(writes['model'])}, stages "
        f"{_size(writes['stages'])}, checkpoints up to {_size(writes['checkpoints'])} while it "
        f"trains; {_size(writes['free'])} free)"
    )
    for note in result["notes"]:
        say(f"Note: {note}", style="bold")
    say("Dry run: nothing was written")


def _histogram(steps: dict[str, Any]) -> None:
    room = steps["room"]
    told = "" if room is None else f", {steps['blocks']} blocks have room for {room}"
    common.say(f"Steps of an example{told}:")
    most = max(steps["histogram"].values())
    for number, count in steps["histogram"].items():
        bar = "#" * max(1, round(BAR * count / most))
        over = "  more than there is room for" if room is not None and number > room else ""
        common.say(f"  {number:>3} {bar} {count:,}{over}")


def _stage(stage: dict[str, Any]) -> None:
    parts = stage["batch_size"] // stage["micro_batch_size"]
    split = "at once" if parts == 1 else f"in {parts} parts of {stage['micro_batch_size']}"
    most = "at most " if stage["patience"] else "at least " if stage["handed_on"] else ""
    common.say(
        f"Stage {stage['name']}: {most}{stage['steps']:,} steps of {stage['batch_size']} examples "
        f"{split}, {stage['tokens_an_example']:.0f} tokens an example; "
        f"{stage['seconds_a_step']:.2g} s a step, {stage['validations']} validations of at most "
        f"{stage['seconds_a_validation']:.2g} s: {duration(stage['seconds'])}"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
