"""Graph search in made-up words, in the sentences of ProsQA (Hao et al. 2024, "Coconut").

"Every rompus is a wumpus. ... Tom is a rompus. Is Tom a wumpus or tumpus?" Sentences are the edges
of an acyclic graph of entities (Tom) and concepts (wumpus). One of the two concepts asked for can
be reached from the entity, the other cannot; the steps are a shortest path. The construction is
ours, its default sizes are those of ProsQA's validation file.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

from rim.config import GraphSearchConfig
from rim.data.examples import DataError, Example
from rim.data.generators import PEOPLE, Draft, Task, generate, sentences_key

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
# Share of concepts beside the path that can be reached from the entity asked about, so that it
# reaches as many as in ProsQA.
_SHARE_REACHABLE = 0.55
_ASIDE = ("unreachable", "alternative")  # concepts that the entity asked about never reaches


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
    gold, wrong = names[graph.path[-1]], names[graph.alternative]
    first, second = rng.sample([gold, wrong], 2)
    ask = f"Is {people[0]} a {first} or {second}?"
    path = [sentence(*edge) for edge in zip(graph.path, graph.path[1:], strict=False)]
    return Draft(
        " ".join([*facts, ask]),
        lambda: (path, f"{people[0]} is a {gold}."),
        key=sentences_key([*facts, *sorted([gold, wrong])]),
    )


@dataclass
class Graph:
    """Nodes are numbers: first the entities, 0 being the one asked about, then the concepts.

    `hops_from_0` has the nodes that entity 0 reaches, and no others.
    """

    entities: int
    edges: list[tuple[int, int]] = field(default_factory=list)
    hops_from_0: dict[int, int] = field(default_factory=lambda: {0: 0})
    path: list[int] = field(default_factory=lambda: [0])
    alternative: int = -1


def draw_graph(
    rng: random.Random, hops: int, concepts: int, entities: int, edges: int
) -> Graph | None:
    """A random acyclic graph in which node 0 reaches the path's end in `hops` and not in fewer.

    Concepts are added one by one and get their edges from nodes before them, which decides all
    distances at once: none has to be drawn again. The path's end and the alternative have no
    children, as in ProsQA.

    Returns:
        The graph; None if this try could not place exactly so many edges.
    """
    roles = ["path"] * hops + rng.choices(
        ["reachable", "unreachable"],
        [_SHARE_REACHABLE, 1 - _SHARE_REACHABLE],
        k=concepts - hops - 1,
    )
    rng.shuffle(roles)
    roles.append("alternative")  # last, so that it may lie deep in the graph
    aside = [i for i, role in enumerate(roles) if role in _ASIDE]
    promised = {entity: rng.choice(aside) for entity in range(1, entities)}  # their first child
    parents_wanted = _spread(rng, concepts, edges)
    graph = Graph(entities)
    nodes = list(range(entities))  # those that may have children
    missing = 0
    for i, role in enumerate(roles):
        node = entities + i
        allowed, needed = _parents(graph, role, nodes)
        chosen = {entity for entity, child in promised.items() if child == i}
        if not chosen:
            chosen.update(_pick(rng, graph, role, needed, 1))
        free = [parent for parent in allowed if parent not in chosen]
        wanted = max(0, parents_wanted[i] + missing - len(chosen))
        chosen.update(_pick(rng, graph, role, free, wanted))
        missing += parents_wanted[i] - len(chosen)
        graph.edges += [(parent, node) for parent in sorted(chosen)]
        distances = [graph.hops_from_0[p] for p in chosen if p in graph.hops_from_0]
        if distances:
            graph.hops_from_0[node] = 1 + min(distances)
        if role == "path":
            graph.path.append(node)
        elif role == "alternative":
            graph.alternative = node
        if role in ("reachable", "unreachable") or (role == "path" and len(graph.path) <= hops):
            nodes.append(node)
    return None if missing else graph


def _parents(graph: Graph, role: str, nodes: list[int]) -> tuple[list[int], list[int]]:
    """The nodes that may be parents of a new concept, and those of which it needs at least one."""
    reached = graph.hops_from_0
    if role in _ASIDE:
        off = [node for node in nodes if node not in reached]
        return off, off
    if role == "reachable":
        return nodes, [node for node in nodes if node in reached]
    before = len(graph.path) - 1
    allowed = [node for node in nodes if reached.get(node, before) >= before]
    return allowed, [graph.path[-1]]


def _pick(rng: random.Random, graph: Graph, role: str, nodes: list[int], count: int) -> list[int]:
    """Some of the nodes, rarely entities or, for nodes that entity 0 reaches, ones it does not:
    then questions have as many facts about entities as ProsQA's.
    """

    def rank(node: int) -> float:
        across = role not in _ASIDE and node not in graph.hops_from_0
        weight = (0.6 if node < graph.entities else 1.0) * (0.6 if across else 1.0)
        return rng.random() * weight

    return sorted(nodes, key=rank, reverse=True)[:count]


def _spread(rng: random.Random, concepts: int, edges: int) -> list[int]:
    """How many parents each concept wants: one each, the others at random."""
    wanted = [1] * concepts
    for _ in range(edges - concepts):
        wanted[rng.randrange(concepts)] += 1
    return wanted
