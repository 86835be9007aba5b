"""How far shortcuts get in graph search that never look at who is asked about.

A shortcut scores the two concepts by the facts alone and takes the higher one; where they are equal
it guesses. A task that wants the path found leaves each of them near one half. Prints one JSON line
last, with the sizes of the graphs beside.

    python benchmarks/graph_shortcuts.py [--examples 2000] [--seed 0] [--prosqa FILE] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples, open_file, task_source
from rim.results import environment, write_json


@dataclass(frozen=True)
class Question:
    """A question as text says it: edges from parent to child, people, who and what is asked."""

    edges: tuple[tuple[str, str], ...]
    people: frozenset[str]
    asked: str
    concepts: tuple[str, str]

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for parent, child in self.edges:
            found.setdefault(child, []).append(parent)
        return found

    def above(self, concept: str) -> dict[str, int]:
        """All ancestors of a concept and their distances to it, itself left out."""
        found, queue = {concept: 0}, [concept]
        for node in queue:
            for parent in self.parents.get(node, []):
                if parent not in found:
                    found[parent] = found[node] + 1
                    queue.append(parent)
        return {node: distance for node, distance in found.items() if distance}

    def people_within(self, concept: str, hops: float) -> int:
        above = self.above(concept)
        return sum(person in above and above[person] <= hops for person in self.people)


def read(example: Example) -> Question:
    body, _, ask = example.question.rpartition(". ")
    facts = [re.fullmatch(r"(Every )?(\S+) is a (\S+?)\.?", text) for text in body.split(". ")]
    asked = re.fullmatch(r"Is (\S+) a (\S+) or (\S+)\?", ask)
    assert asked and all(facts), example.question
    edges = tuple((fact[2], fact[3]) for fact in facts if fact)
    people = frozenset(fact[2] for fact in facts if fact and not fact[1])
    return Question(edges, people, asked[1], (asked[2], asked[3]))


#: Scores of a concept; none may depend on who is asked about.
SHORTCUTS: dict[str, Callable[[Question, str], float]] = {
    "stands first": lambda q, concept: -q.concepts.index(concept),
    "more people reach": lambda q, concept: q.people_within(concept, math.inf),
    "fewer people reach within 2 hops": lambda q, concept: -q.people_within(concept, 2),
    "is farther from the nearest person": lambda q, concept: min(
        (distance for node, distance in q.above(concept).items() if node in q.people),
        default=math.inf,
    ),
    "has more ancestors": lambda q, concept: len(q.above(concept)),
    "has more parents": lambda q, concept: len(q.parents[concept]),
    "lies deeper": lambda q, concept: max(q.above(concept).values(), default=0),
    "has more facts about its ancestors": lambda q, concept: sum(
        parent in q.above(concept) for parent, _ in q.edges
    ),
}


def share_right(shortcut: Callable[[Question, str], float], examples: Sequence[Example]) -> float:
    """Accuracy of a shortcut, a half where it sees no difference."""
    marks = []
    for example in examples:
        question = read(example)
        gold = next(c for c in question.concepts if example.answer.rstrip(".").endswith(f" {c}"))
        (other,) = {*question.concepts} - {gold}
        own, its = shortcut(question, gold), shortcut(question, other)
        marks.append(0.5 if own == its else float(own > its))
    return fmean(marks)


def measure(examples: Sequence[Example]) -> dict[str, Any]:
    questions = [read(example) for example in examples]
    sizes = {
        "people": fmean(len(q.people) for q in questions),
        "nodes": fmean(len({node for edge in q.edges for node in edge}) for q in questions),
        "facts": fmean(len(q.edges) for q in questions),
        "facts about people": fmean(sum(p in q.people for p, _ in q.edges) for q in questions),
        "hops": fmean(len(example.steps) for example in examples),
        "reached from who is asked about": fmean(
            sum(q.asked in q.above(node) for node in {*q.parents}) for q in questions
        ),
    }
    right = {name: round(share_right(s, examples), 4) for name, s in SHORTCUTS.items()}
    return {
        "examples": len(examples),
        "hash": data_hash(examples),
        "right": right,
        "means": {name: round(value, 2) for name, value in sizes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prosqa", type=Path, help="ProsQA's validation file, to compare with")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    arguments = parser.parse_args()
    knobs = {"num_examples": arguments.examples, "seed": arguments.seed, "split": "test"}
    result = {
        "seed": arguments.seed,
        "graph_search": measure(load_examples(task_source("graph_search", knobs))),
    }
    if arguments.prosqa:
        result["prosqa"] = measure(open_file(arguments.prosqa))
    result["environment"] = environment()
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
