"""Generated tasks, one file each. A new one is a file here, its line below, and its settings in
`rim.config.data` (a `GeneratorConfig`, and its name in `DataFormat` and `DataSource`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rim.data.examples import Example
from rim.data.tasks.arithmetic import generate_arithmetic
from rim.data.tasks.graph_search import generate_graph_search
from rim.data.tasks.multiplication import generate_multiplication
from rim.data.tasks.relations import generate_relations
from rim.data.tasks.word_problems import generate_word_problems

#: By format; each takes the settings of that name and the questions to leave out.
GENERATORS: dict[str, Callable[[Any, Collection[str]], list[Example]]] = {
    "arithmetic": generate_arithmetic,
    "graph_search": generate_graph_search,
    "multiplication": generate_multiplication,
    "relations": generate_relations,
    "word_problems": generate_word_problems,
}
