"""Parts on their way to the database: a few megabytes of them wait, and go out in bulk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from datastore_lab.engines.sql.parts import part_row
from datastore_lab.engines.sql.removing import in_batches
from datastore_lab.engines.sql.tables import part

_WAITING = 4 << 20


class Outgoing:
    """Parts to be inserted, and arrays to be deleted, of one store.

    Attributes
    ----------
    steps : int
        How many times something was put here or deleted.
    """

    def __init__(self, connection: sa.Connection, store: int) -> None:
        self._connection, self._store = connection, store
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}
        self._size = 0
        self._gone: list[int] = []
        self.steps = 0

    def put(self, array: int, number: int, raw: bytes) -> None:
        """Add a part of an array."""
        row = part_row(self._store, array, number, raw)
        self._parts[array, number] = row
        self.steps += 1
        self._size += len(row["bytes"])
        if self._size >= _WAITING:
            self._send_parts()

    def replace(self, array: int, number: int, raw: bytes) -> None:
        """Write a part again."""
        if (array, number) not in self._parts:  # else the one before has not left yet
            where = (part.c.store == self._store) & (part.c.array == array) & (part.c.number == number)
            self._connection.execute(sa.delete(part).where(where))
        self.put(array, number, raw)

    def drop(self, arrays: Iterable[int]) -> None:
        """Have all parts of arrays deleted."""
        self._gone.extend(arrays)
        self.steps += 1

    def send_gone(self) -> None:
        """Delete what is to be deleted, also of what was still waiting."""
        gone, self._gone = self._gone, []
        if gone:
            self._send_parts()
        for some in in_batches(gone):
            where = (part.c.store == self._store) & part.c.array.in_(some)
            self._connection.execute(sa.delete(part).where(where))

    def send(self) -> None:
        """Send everything."""
        self.send_gone()
        self._send_parts()

    def _send_parts(self) -> None:
        rows, self._parts, self._size = list(self._parts.values()), {}, 0
        if rows:
            self._connection.execute(sa.insert(part), rows)
