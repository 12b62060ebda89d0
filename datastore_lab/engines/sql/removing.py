"""Removing nodes, a batch at a time, and only those that were put where they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from datastore_lab.engines.sql.nodes import Node, is_bound
from datastore_lab.engines.sql.tables import node
from datastore_lab.errors import Corrupt

if TYPE_CHECKING:
    from datastore_lab.engines.sql.lookup import Lookup
    from datastore_lab.keys import Key

_BATCH = 500
_COLUMNS = [node.c[name] for name in ("id", "parent", "position", "name", "mark", "kind")]


def in_batches(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Give numbers as lists that fit into a statement."""
    left = iter(numbers)
    while some := list(itertools.islice(left, _BATCH)):
        yield some


def readable(lookup: Lookup, numbers: list[int]) -> Iterator[Node]:
    """Give the nodes of these numbers; those that can't be read leave their parts to `compact`."""
    for some in in_batches(numbers):
        where = (node.c.store == lookup.store) & node.c.id.in_(some)
        for row in lookup.connection.execute(sa.select(node).where(where)).all():
            with suppress(Corrupt):
                yield lookup.load(row, ())


def below(lookup: Lookup, key: Key, numbers: list[int]) -> Iterator[int]:
    """Give the children of nodes at or below a key.

    Raises
    ------
    Corrupt
        If one was not written there: damage may have bent the tree, and what belongs elsewhere would be lost.
    """
    for some in in_batches(numbers):
        where = (node.c.store == lookup.store) & node.c.parent.in_(some)
        for row in lookup.connection.execute(sa.select(*_COLUMNS).where(where)).all():
            way = row.id, row.parent, row.position
            if not is_bound(lookup.store, way, row.name, row.kind, row.mark):
                raise lookup.misplaced((*key, row.name.decode("utf-8", "replace")))
            yield row.id


def remove_nodes(connection: sa.Connection, store: int, numbers: list[int]) -> None:
    """Delete the rows of nodes."""
    for some in in_batches(numbers):
        where = (node.c.store == store) & node.c.id.in_(some)
        connection.execute(sa.delete(node).where(where))
