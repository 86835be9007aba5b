"""Graph search in made-up words, in the sentences of ProsQA (Hao et al. 2024, "Coconut").

"Every rompus is a wumpus. ... Tom is a rompus. Is Tom a wumpus or tumpus?" Sentences are the edges
of an acyclic graph of entities (Tom) and concepts (wumpus). One of the two concepts asked for can
be reached from the entity, the other cannot; the steps are a shortest path. The construction is
ours, its default sizes are those of ProsQA's validation file.

The wrong concept is another entity's right one, as many hops away, and which of the two entities is
asked about is drawn last. So nothing that leaves out who is asked about (how many people reach a
concept, how deep it lies) says which concept is right.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from rim.config import GraphSearchConfig
from rim.data.examples import DataError, Example
from rim.data.tasks.drawing import PEOPLE, Draft, Task, generate, sentences_key

_ONSETS = "b br d dr f fl g gr h j k kl l m n p pl qu r s sk sn t tr v w y z"
_RHYMES = ("ompus", "orpus", "umpus", "erpus", "impus", "alpus", "empus")
# Every onset with every rhyme, in an order that has all rhymes among the first names.
CONCEPTS = [
    onset + _RHYMES[(i + turn) % len(_RHYMES)]
    for turn in range(len(_RHYMES))
    for i, onset in enumerate(_ONSETS.split())
]
# How often ProsQA's validation file has paths of 3, 4, 5 and 6 hops, in per cent.
_PROSQA_HOPS = {3: 41, 4: 45, 5: 12, 6: 2}
# Share of concepts beside the two paths that both entities reach, so that each reaches as many as
# the one asked about in ProsQA. The others are reached by one of the two.
_SHARE_OF_BOTH = 0.32
_WEIGHT_OF_ENTITY = 0.15  # against concepts, where a parent is drawn


def generate_graph_search(
    config: GraphSearchConfig, excluded: Collection[str] = ()
) -> list[Example]:
    """Examples of one split; see `generate`.

    Raises:
        DataError: more names wanted than there are, or knobs that no graph fits.
    """
    for knob, names in (("vocabulary", CONCEPTS), ("max_entities", PEOPLE)):
        if getattr(config, knob) > len(names):
            raise DataError(
                f"graph_search: {knob} must be <= {len(names)}, there are no more names"
            )
    if config.min_concepts < 2 * config.max_hops:
        raise DataError(
            f"graph_search: min_concepts must be >= 2 * max_hops = {2 * config.max_hops}: a path "
            "to each of the two concepts asked for"
        )
    advice = "change min_concepts, max_concepts or edges_per_concept"
    task = Task(
        "graph_search", _hops(config), "hops", lambda rng, hops: _draw(config, rng, hops), advice
    )
    return generate(config, task, excluded)


def _hops(config: GraphSearchConfig) -> list[int]:
    """Path lengths in the order in which examples take them."""
    lengths = list(range(config.min_hops, config.max_hops + 1))
    if config.hop_mix == "even":
        return lengths
    mix = [length for length in lengths for _ in range(_PROSQA_HOPS[length])]
    random.Random("hops").shuffle(mix)  # so that few examples are mixed too
    return mix


def _draw(config: GraphSearchConfig, rng: random.Random, hops: int) -> Draft | None:
    size = rng.randint(config.min_concepts, config.max_concepts)
    entities = rng.randint(config.min_entities, config.max_entities)
    graph = draw_graph(rng, hops, size, entities, round(config.edges_per_concept * size))
    if graph is None:
        return None
    people = rng.sample(PEOPLE, entities)
    concepts = rng.sample(CONCEPTS[: config.vocabulary], size)
    names = people + concepts

    def sentence(parent: int, child: int) -> str:
        subject = names[parent] if parent < entities else f"Every {names[parent]}"
        return f"{subject} is a {names[child]}."

    facts = [sentence(parent, child) for parent, child in graph.edges]
    rng.shuffle(facts)
    asked = rng.randrange(2)
    path, other = graph.paths[asked], graph.paths[1 - asked]
    gold, wrong = names[path[-1]], names[other[-1]]
    first, second = rng.sample([gold, wrong], 2)
    ask = f"Is {people[asked]} a {first} or {second}?"
    steps = [sentence(*edge) for edge in itertools.pairwise(path)]
    return Draft(
        " ".join([*facts, ask]),
        lambda: (steps, f"{people[asked]} is a {gold}."),
        key=sentences_key([*facts, *sorted([gold, wrong])]),
    )


@dataclass
class Graph:
    """Nodes are numbers: first the entities, then the concepts.

    Entities 0 and 1 have a target each, which the other does not reach. By entity, `hops` has the
    distances of the nodes that it reaches and of no others, `paths` a shortest path to its target.
    """

    entities: int
    edges: list[tuple[int, int]] = field(default_factory=list)
    hops: tuple[dict[int, int], ...] = field(default_factory=lambda: ({0: 0}, {1: 0}))
    paths: tuple[list[int], ...] = field(default_factory=lambda: ([0], [1]))

    def reached_by(self, node: int) -> set[int]:
        return {entity for entity, hops in enumerate(self.hops) if node in hops}


@dataclass(frozen=True)
class _Role:
    """Which of the entities 0 and 1 reach a concept, and whether it is on the one's path."""

    reached_by: tuple[int, ...]
    on_path: bool = False


def draw_graph(
    rng: random.Random, hops: int, concepts: int, entities: int, edges: int
) -> Graph | None:
    """A random acyclic graph in which entities 0 and 1 reach their targets in `hops`, not in fewer.

    Concepts are added one by one and get their edges from nodes before them, which decides all
    distances at once: none has to be drawn again. The targets have no children, as in ProsQA.

    Returns:
        The graph; None if this try could not place exactly so many edges.
    """
    one = (1 - _SHARE_OF_BOTH) / 2
    roles = [_Role((entity,), on_path=True) for entity in (0, 1)] * hops + rng.choices(
        [_Role((0,)), _Role((1,)), _Role((0, 1))],
        [one, one, _SHARE_OF_BOTH],
        k=concepts - 2 * hops,
    )
    rng.shuffle(roles)
    promised = {entity: rng.randrange(concepts) for entity in range(2, entities)}  # a first child
    parents_wanted = _spread(rng, concepts, edges)
    graph = Graph(entities)
    nodes = list(range(entities))  # those that may have children
    missing = 0
    for i, role in enumerate(roles):
        node = entities + i
        allowed = _allowed_parents(graph, role, nodes)
        chosen = {entity for entity, child in promised.items() if child == i}
        for entity in rng.sample(role.reached_by, len(role.reached_by)):
            if not any(parent in graph.hops[entity] for parent in chosen):
                needed = [parent for parent in allowed if parent in graph.hops[entity]]
                path_end = graph.paths[entity][-1]
                chosen.update([path_end] if role.on_path else _pick(rng, graph, needed, 1))
        free = [parent for parent in allowed if parent not in chosen]
        wanted = max(0, parents_wanted[i] + missing - len(chosen))
        chosen.update(_pick(rng, graph, free, wanted))
        missing += parents_wanted[i] - len(chosen)
        graph.edges += [(parent, node) for parent in sorted(chosen)]
        for found in graph.hops:
            if distances := [found[parent] for parent in chosen if parent in found]:
                found[node] = 1 + min(distances)
        if role.on_path:
            graph.paths[role.reached_by[0]].append(node)
        if not (role.on_path and len(graph.paths[role.reached_by[0]]) > hops):
            nodes.append(node)
    return None if missing else graph


def _allowed_parents(graph: Graph, role: _Role, nodes: list[int]) -> list[int]:
    """The nodes that may be parents of a new concept: they make nobody else reach it, and nobody
    reach the next node of a path too soon.
    """
    allowed = [node for node in nodes if graph.reached_by(node) <= set(role.reached_by)]
    if not role.on_path:
        return allowed
    (entity,) = role.reached_by
    before = len(graph.paths[entity]) - 1
    return [node for node in allowed if graph.hops[entity].get(node, before) >= before]


def _pick(rng: random.Random, graph: Graph, nodes: list[int], count: int) -> list[int]:
    """Some of the nodes, rarely entities: then questions have as many facts about entities as
    ProsQA's.
    """

    def rank(node: int) -> float:
        return rng.random() * (_WEIGHT_OF_ENTITY if node < graph.entities else 1.0)

    return sorted(nodes, key=rank, reverse=True)[:count]


def _spread(rng: random.Random, concepts: int, edges: int) -> list[int]:
    """How many parents each concept wants: one each, the others at random."""
    wanted = [1] * concepts
    for _ in range(edges - concepts):
        wanted[rng.randrange(concepts)] += 1
    return wanted
