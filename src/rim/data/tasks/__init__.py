"""Generated tasks, one file each. A new one is a file here, its line below, and its settings in
`rim.config.tasks` (a `GeneratorConfig`, and its name in `TaskName` and `DataSource`): docs/tasks.md
has an example. One whose steps have values that others follow from offers a reader, too
(`rim.data.tasks.worked`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rim.data.examples import Example
from rim.data.tasks.arithmetic import generate_arithmetic, read_arithmetic
from rim.data.tasks.brackets import generate_brackets, read_brackets
from rim.data.tasks.graph_search import generate_graph_search
from rim.data.tasks.multiplication import generate_multiplication
from rim.data.tasks.pair_matching import generate_pair_matching, read_pair_matching
from rim.data.tasks.pointers import generate_pointers, read_pointers
from rim.data.tasks.prefix_counts import generate_prefix_counts, read_prefix_counts
from rim.data.tasks.relations import generate_relations, read_relations
from rim.data.tasks.word_problems import generate_word_problems
from rim.data.tasks.worked import Worked

#: By format; each takes the settings of that name and the questions to leave out.
GENERATORS: dict[str, Callable[[Any, Collection[str]], list[Example]]] = {
    "arithmetic": generate_arithmetic,
    "brackets": generate_brackets,
    "graph_search": generate_graph_search,
    "multiplication": generate_multiplication,
    "pair_matching": generate_pair_matching,
    "pointers": generate_pointers,
    "prefix_counts": generate_prefix_counts,
    "relations": generate_relations,
    "word_problems": generate_word_problems,
}

#: By format; each takes the settings of that name and a question, None where it is not the task's.
READERS: dict[str, Callable[[Any, str], Worked | None]] = {
    "arithmetic": read_arithmetic,
    "brackets": read_brackets,
    "pair_matching": read_pair_matching,
    "pointers": read_pointers,
    "prefix_counts": read_prefix_counts,
    "relations": read_relations,
}
