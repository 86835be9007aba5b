"""People and relations in plain English: who is Anna's best friend's teacher?

"Anna's teacher is Ben. Ben's best friend is Clara. ... Who is Anna's teacher's best friend?" Every
relation gives every person exactly one other, and nobody to two: a permutation without fixed
points, or a single ring. So there is one answer, every name is in as many facts as any other, and
nothing that leaves out the path says which one is asked for. Nobody is met twice on the way, so no
fewer hops lead there.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Mapping, Sequence

from rim.config import RelationsConfig
from rim.data.examples import DataError, Example
from rim.data.tasks.drawing import PEOPLE, Draft, Task, generate, sentences_key
from rim.data.tasks.worked import Worked

_NEW = (
    "Adam Alice Carl Daniel Edith Frank George Helen Henry Jack Jane John Kate Laura Lucy Mark "
    "Martin Mary Nina Oscar Peter Robert Sara Tom Victor"
)
NAMES: dict[str, tuple[str, ...]] = {"familiar": PEOPLE, "new": tuple(_NEW.split())}
_LIKED = "tea coffee music chess football dogs cats books cake fish milk rice"
_LIKES = "{who} likes {thing}."
_PLAIN = "{who}'s {relation} is {other}."
_FACTS = {
    "plain": (_PLAIN,),
    "paraphrased": ("The {relation} of {who} is {other}.", "{other} is the {relation} of {who}."),
}
# `path` is "Anna's teacher's best friend", `chain` "the best friend of the teacher of Anna".
_QUESTIONS = {
    "plain": ("Who is {path}?",),
    "paraphrased": ("Who is {chain}?", "Name {chain}.", "What is the name of {path}?"),
}


def generate_relations(config: RelationsConfig, excluded: Collection[str] = ()) -> list[Example]:
    """Examples of one split, as many of each number of hops; see `generate`.

    Raises:
        DataError: more people wanted than there are names, or knobs that allow no question.
    """
    names = _pool(config)
    if config.max_people > len(names):
        raise DataError(
            f"relations: max_people must be <= {len(names)}, there are no more {config.names} names"
        )
    task = Task(
        "relations",
        range(config.min_hops, config.max_hops + 1),
        "hops",
        lambda rng, hops: _draw(config, rng, hops),
        "have more people or relations, or shape: ring",
    )
    return generate(config, task, excluded)


def _pool(config: RelationsConfig) -> tuple[str, ...]:
    return NAMES[config.names][: config.pool]


def read_relations(config: RelationsConfig, question: str) -> Worked | None:
    """See `Worked`: the value after step t is the person reached. None where facts or the question
    are worded otherwise than plainly.
    """
    text, asks, ask = question.rpartition("Who is ")
    start, *asked = ask.removesuffix("?").split("'s ")
    relations = "|".join(map(re.escape, config.relations))
    facts = re.findall(rf"(\w+)'s ({relations}) is (\w+)\.", text)
    others = {(who, relation): other for who, relation, other in facts}
    people = tuple(sorted({who for who, _, _ in facts}))
    complete = len(others) == len(facts) == len(people) * len(config.relations)
    if not (asks and asked and complete and {start} <= set(people)):
        return None
    if not set(asked) <= set(config.relations) or not {x for _, _, x in facts} <= set(people):
        return None

    def follow(who: str, path: Sequence[str]) -> list[str]:
        met = []
        for relation in path:
            who = others[who, relation]
            met.append(who)
        return met

    def rewrite(rng: random.Random) -> str:
        """One relation leads to somebody else: two people may now have the same friend."""
        who, relation, other = rng.choice(facts)
        new = rng.choice([person for person in people if person not in (who, other)])
        old, changed = (
            _PLAIN.format(who=who, relation=relation, other=each) for each in (other, new)
        )
        return question.replace(old, changed)

    values = tuple(follow(start, asked))
    return Worked(
        f"{', '.join(asked)} among {', '.join(people)}",
        values,
        values[-1],
        people,
        lambda t, value: [value, *follow(value, asked[t:])][-1],
        rewrite,
    )


def _draw(config: RelationsConfig, rng: random.Random, hops: int) -> Draft | None:
    people = rng.sample(_pool(config), rng.randint(config.min_people, config.max_people))
    others = {relation: _draw_map(config.shape, rng, people) for relation in config.relations}
    asked = rng.choices(config.relations, k=hops)
    path = [rng.choice(people)]
    for relation in asked:
        path.append(others[relation][path[-1]])
    if len(set(path)) < len(path):
        return None
    facts = [
        {"who": who, "relation": relation, "other": other}
        for relation, pairs in others.items()
        for who, other in pairs.items()
    ]
    sentences = [rng.choice(_wordings(_FACTS, config.facts)).format(**fact) for fact in facts]
    likes = [
        _LIKES.format(who=rng.choice(people), thing=thing)
        for thing in rng.sample(_LIKED.split(), config.distractors)
    ]
    sentences += likes
    rng.shuffle(sentences)
    possessive = "".join([f"{path[0]}'s", *(f" {relation}'s" for relation in asked)])
    ask = {
        "path": possessive.removesuffix("'s"),
        "chain": "".join(f"the {relation} of " for relation in reversed(asked)) + path[0],
    }
    steps = [
        _step(config.step, who, relation, other)
        for (who, other), relation in zip(itertools.pairwise(path), asked, strict=True)
    ]
    return Draft(
        " ".join([*sentences, rng.choice(_wordings(_QUESTIONS, config.question)).format(**ask)]),
        lambda: (steps, path[-1]),
        # The plain wording, so that a question in other words belongs to the same split.
        key=sentences_key([*(_PLAIN.format(**fact) for fact in facts), *likes, ask["path"]]),
    )


def _draw_map(shape: str, rng: random.Random, people: Sequence[str]) -> dict[str, str]:
    """Another person for each, every one once: one ring, or any permutation without fixed points.

    Permutations are drawn until none maps a person to itself; about one in three does not.
    """
    if shape == "ring":
        ring = rng.sample(people, len(people))
        return dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    while True:
        pairs = dict(zip(people, rng.sample(people, len(people)), strict=True))
        if all(who != other for who, other in pairs.items()):
            return pairs


def _wordings(wordings: Mapping[str, Sequence[str]], kind: str) -> Sequence[str]:
    return [*wordings["plain"], *wordings["paraphrased"]] if kind == "mixed" else wordings[kind]


def _step(kind: str, who: str, relation: str, other: str) -> str:
    return other if kind == "name" else _PLAIN.format(who=who, relation=relation, other=other)
