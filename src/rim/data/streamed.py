"""A training set that is read from its file whenever it is gone through, and never held in memory.

What training needs many times is known after the first reading: how many examples there are, and
the hash of their content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from rim.data.examples import DataError, Example


class StreamedExamples(Sequence[Example]):
    """Examples in the order of their file, read anew by every loop over them.

    Looking one up by its number reads the file up to there.
    """

    def __init__(self, read: Callable[[], Iterator[Example]], what: str):
        """
        Args:
            read: begins again at the first example.
            what: the file's name, for messages.
        """
        self._read, self._what = read, what
        digest, self._count = hashlib.sha256(), 0
        for example in read():
            add_to_hash(digest, example)
            self._count += 1
        self.content_hash = name_of_hash(digest)
        if not self._count:
            raise DataError(f"{what} holds no examples to train on")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        digest, count = hashlib.sha256(), 0
        for example in self._read():
            add_to_hash(digest, example)
            count += 1
            yield example
        if (count, name_of_hash(digest)) != (self._count, self.content_hash):
            raise DataError(f"{self._what} was changed while it was read; start again")

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            assert step > 0, "a file is not read backwards"
            return list(itertools.islice(self._read(), start, stop, step))
        number = range(self._count)[index]
        return next(itertools.islice(self._read(), number, None))


def data_hash(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples' content, for results files: the same data gives the same hash
    anywhere.
    """
    if isinstance(examples, StreamedExamples):
        return examples.content_hash
    digest = hashlib.sha256()
    for example in examples:
        add_to_hash(digest, example)
    return name_of_hash(digest)


def add_to_hash(digest: Any, e: Example) -> None:
    digest.update(json.dumps([e.question, list(e.steps), e.answer]).encode() + b"\n")


def name_of_hash(digest: Any) -> str:
    return digest.hexdigest()[:16]
