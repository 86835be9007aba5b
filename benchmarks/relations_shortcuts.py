"""How far shortcuts get in relations that do not follow the path from the person asked about.

A shortcut narrows the people of a question down to some and guesses among them. A task that wants
the path followed leaves each near the share of a guess among all but the person asked about. Prints
one JSON line last.

    python benchmarks/relations_shortcuts.py [--examples 2000] [--seed 0] [--out FILE]
        [--set KNOB=VALUE ...]

The wording must be the plain one.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples, task_source
from rim.results import environment, write_json


@dataclass(frozen=True)
class Question:
    """A question as text says it: facts (person, relation, other) in order, who and what is asked.

    `mentions` are the people of all sentences but the question, in order, repeated.
    """

    facts: tuple[tuple[str, str, str], ...]
    mentions: tuple[str, ...]
    asked: str
    relations: tuple[str, ...]  # of the path, in order

    @property
    def people(self) -> list[str]:
        return sorted(set(self.mentions))

    def one_hop(self, relation: str | None = None) -> set[str]:
        """Whom the person asked about leads to in one hop, by one relation or by any."""
        return {o for who, r, o in self.facts if who == self.asked and relation in (None, r)}

    def often(self, pick: Callable[[Collection[int]], int]) -> list[str]:
        counts = Counter(self.mentions)
        return [person for person in self.people if counts[person] == pick(counts.values())]


def read(example: Example) -> Question:
    body, _, ask = example.question.rpartition(". ")
    facts: list[tuple[str, str, str]] = []
    mentions: list[str] = []
    for sentence in body.split(". "):
        if fact := re.fullmatch(r"(\w+)'s (.+) is (\w+)", sentence):
            who, relation, other = fact.groups()
            facts.append((who, relation, other))
            mentions += [who, other]
        else:
            mentions.append(sentence.partition(" ")[0])
    asked, *relations = ask.removeprefix("Who is ").removesuffix("?").split("'s ")
    assert asked in mentions and all(relations), example.question
    return Question(tuple(facts), tuple(mentions), asked, tuple(relations))


#: The people that a shortcut guesses among; where it finds nobody, all are left.
SHORTCUTS: dict[str, Callable[[Question], Collection[str]]] = {
    "anybody": lambda q: q.people,
    "anybody but who is asked about": lambda q: {*q.people} - {q.asked},
    "first named": lambda q: q.mentions[:1],
    "last named": lambda q: q.mentions[-1:],
    "end of the first fact": lambda q: [q.facts[0][2]],
    "end of the last fact": lambda q: [q.facts[-1][2]],
    "named most often": lambda q: q.often(max),
    "named least often": lambda q: q.often(min),
    "one hop away, by any relation": lambda q: q.one_hop(),
    "one hop away, by the last relation": lambda q: q.one_hop(q.relations[-1]),
    "leads to who is asked about": lambda q: {who for who, _, o in q.facts if o == q.asked},
    "neither asked about nor one hop away": lambda q: {*q.people} - {q.asked} - q.one_hop(),
}


def share_right(
    shortcut: Callable[[Question], Collection[str]], examples: Sequence[Example]
) -> float:
    """Expected accuracy of a guess among the people that a shortcut leaves."""
    marks = []
    for example in examples:
        question = read(example)
        left = set(shortcut(question)) or set(question.people)
        marks.append((example.answer in left) / len(left))
    return fmean(marks)


def measure(examples: Sequence[Example]) -> dict[str, Any]:
    questions = [read(example) for example in examples]
    hops = Counter(len(question.relations) for question in questions)
    return {
        "examples": len(examples),
        "hash": data_hash(examples),
        "right": {name: round(share_right(s, examples), 4) for name, s in SHORTCUTS.items()},
        "examples_by_hops": {str(n): hops[n] for n in sorted(hops)},
        "people_mean": round(fmean(len(q.people) for q in questions), 2),
        "facts_mean": round(fmean(len(q.facts) for q in questions), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="a knob of the task")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    knobs = {"num_examples": arguments.examples, "seed": arguments.seed, "split": "test"}
    source = task_source("relations", knobs, arguments.set)
    result = {
        "settings": source.relations.model_dump(mode="json"),
        "relations": measure(load_examples(source)),
        "environment": environment(),
    }
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
