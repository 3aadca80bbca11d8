"""Rows that are expensive to make, kept in a JSON Lines file and taken from there as long as they still hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from distil.workspace.files import append_jsonl, read_jsonl, write_jsonl


class Digested(Protocol):
    """A row that says what it was made from."""

    of: str  # digest of all that the row depends on


R = TypeVar("R", bound=Digested)


class RowCache(Generic[R]):
    """Rows by key, in memory (`rows`) and in the file `path`.

    `key` says which question a row answers. `digests` holds, for each key that is wanted now, what its row must be
    `of`. A row of another digest is stale: it is removed, from the file too. Rows of other keys stay.
    """

    def __init__(
        self, path: Path, row_type: type[R], key: Callable[[R], Hashable], digests: Mapping[Hashable, str]
    ) -> None:
        self.path, self.key = path, key
        found = read_jsonl(path, row_type) if path.exists() else []
        self.rows = {key(row): row for row in found if digests.get(key(row), row.of) == row.of}
        if len(self.rows) < len(found):
            write_jsonl(path, self.rows.values())

    def discard(self, keys: Collection[Hashable]) -> None:
        """Remove the rows of these keys, where there are any."""
        there = [key for key in keys if key in self.rows]
        for key in there:
            del self.rows[key]
        if there:
            write_jsonl(self.path, self.rows.values())

    def replace(self, rows: Iterable[R]) -> None:
        """Write rows over those of the same keys, all or none."""
        self.rows |= {self.key(row): row for row in rows}
        write_jsonl(self.path, self.rows.values())

    def append(self, rows: Iterable[R]) -> None:
        """Keep new rows: all of them are in the file when this returns."""
        rows = list(rows)
        append_jsonl(self.path, rows)
        self.rows |= {self.key(row): row for row in rows}
