"""What a session knows of its cached cells: hits, misses, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datastore_lab.cache import cell_store
from datastore_lab.cache.cells import CODE
from datastore_lab.cache.key import describe
from datastore_lab.notebook.caching import words
from datastore_lab.notebook.caching.places import Places
from datastore_lab.notebook.caching.prepared import Known

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datastore_lab.cache.cell_store import Entry
    from datastore_lab.cache.cells import CellKey, Result
    from datastore_lab.notebook.caching.cell_run import CellRun


class Session:
    """The cached cells of one shell.

    Attributes
    ----------
    pending : tuple of CellRun and CellKey, optional
        The cell that was last looked at without a result: the one that ``why`` and ``accept`` are about.
    restored : set of str
        Variables that came from the cache as views that can't be changed.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.places = Places(shell)
        self.cells = Known(shell)
        self.pending: tuple[CellRun, CellKey] | None = None
        self.restored: set[str] = set()
        self.counts = {"hits": 0, "misses": 0}
        self.saved = 0.0

    def hit(self, found: Result) -> None:
        """Count a result that was restored."""
        self.counts["hits"] += 1
        self.saved += found.attrs["seconds"]

    def missed(self, cell: CellRun, key: CellKey) -> None:
        """Count a cell that ran."""
        self.counts["misses"] += 1
        self.pending = (cell, key)

    def describe(self, parts: Iterable[str]) -> dict[str, str]:
        """Write the variables among the parts of a key as short text."""
        space = self.shell.user_ns
        return {name: describe({name: space[name]}).partition("=")[2] for name in parts if name in space}

    def against(self, cell: CellRun, key: CellKey) -> list[str]:
        """Say in what a cell differs from the nearest stored result that is not its own."""
        nearest = cell_store.nearest(self.related(cell, key), key)
        return words.reasons(nearest, key, cell.prepared.body, self.describe(key.parts))

    def related(self, cell: CellRun, key: CellKey) -> list[Entry]:
        """Choose the results that may be those of an earlier version of a cell, its present one left out."""
        writes = set(cell.prepared.cell.writes) if cell.prepared.cell else set()
        return [
            entry
            for entry in cell_store.listed(cell.shelf)
            if entry.key != key.key
            and (
                entry.owner == key.owner != "cells"
                or entry.attrs["parts"].get(CODE) == key.parts[CODE]
                or writes.intersection(entry.attrs["variables"])
            )
        ]
