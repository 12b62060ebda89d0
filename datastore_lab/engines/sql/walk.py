"""Listing nodes a page at a time: each page is a look of its own, and holds nothing open between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from datastore_lab.engines.sql.lookup import Lookup
from datastore_lab.engines.sql.tables import node
from datastore_lab.records import GROUP

if TYPE_CHECKING:
    from datastore_lab.errors import Corrupt
    from datastore_lab.keys import Key

Reading: TypeAlias = Callable[[], AbstractContextManager[Lookup]]

_FIRST_PAGE, _PAGE = 200, 2000
_COLUMNS = [
    node.c[name] for name in ("id", "parent", "position", "hash", "name", "mark", "kind", "children", "tally")
]


def children(reading: Reading, key: Key) -> Iterator[str]:
    """Yield the names below a node; at the end `Corrupt`, if they are not those that were written."""
    with reading() as lookup:
        row = lookup.row(key)
    listing = Listing(reading, row, key)
    for child in listing:
        yield child.name.decode("utf-8", "replace")
    if listing.wrong is not None:
        raise listing.wrong


def keys(reading: Reading, prefix: Key) -> Iterator[Key]:
    """Yield the keys of records at or below a node; at the end `Corrupt`, if some may be missing."""
    with reading() as lookup:
        row = lookup.row(prefix)
    wrong: list[Corrupt] = []
    for key, found in below(reading, row, prefix, wrong):
        if bytes(found.kind) != GROUP.encode():
            yield key
    if wrong:
        raise wrong[0]


def below(reading: Reading, row: Any, key: Key, wrong: list[Corrupt]) -> Iterator[tuple[Key, Any]]:
    """Yield a node and all below it, parents first; what is found wrong with listings is added to a list."""
    yield key, row
    listings = [Listing(reading, row, key)] if has_children(row) else []
    while listings:
        listing = listings[-1]
        child = next(listing, None)
        if child is None:
            listings.pop()
            wrong.extend([listing.wrong] if listing.wrong else [])
            continue
        path = (*listing.key, child.name.decode("utf-8", "replace"))
        yield path, child
        if any(child.id == above.id for above in listings):  # damage has bent the tree into a ring
            wrong.append(_misplaced(reading, path))
        elif has_children(child):
            listings.append(Listing(reading, child, path))


def _misplaced(reading: Reading, key: Key) -> Corrupt:
    with reading() as lookup:
        return lookup.misplaced(key)


def has_children(row: Any) -> bool:
    """Whether there are or were nodes below; also where damage left something else than numbers."""
    return bool((row.children, row.tally) != (0, 0))


class _Child:
    """The columns of a child that a listing needs."""

    def __init__(self, row: Any) -> None:
        self.__dict__.update(row._mapping)
        self.name = bytes(row.name)


class Listing(Iterator[Any]):
    """The children of one node, and whether they are all there and in their places.

    Attributes
    ----------
    id : int
        Number of the node.
    wrong : Corrupt or None
        Known at the end.
    """

    def __init__(self, reading: Reading, row: Any, key: Key) -> None:
        self.key = key
        self.wrong: Corrupt | None = None
        self._reading, self.id = reading, row.id
        self._expected: tuple[int, int] | None = None
        self._count = self._tally = 0
        self._page: Iterator[Any] = iter(())
        self._last: int | None = None
        self._left = True
        self._size = _FIRST_PAGE

    def __next__(self) -> Any:
        while True:
            child = next(self._page, None)
            if child is not None:
                return child
            if not self._left:
                raise StopIteration
            self._turn()

    def _turn(self) -> None:
        with self._reading() as lookup:
            rows = lookup.connection.execute(self._statement(lookup.store)).all()
            self._left = len(rows) == self._size
            self._size = _PAGE
            for row in rows:
                self._note(lookup, row)
            self._check(lookup)
        self._page = iter([_Child(row) for row in rows])

    def _statement(self, store: int) -> Any:
        where = (node.c.store == store) & (node.c.parent == self.id)
        if self._last is not None:
            where &= node.c.position > self._last
        return sa.select(*_COLUMNS).where(where).order_by(node.c.position).limit(self._size)

    def _note(self, lookup: Lookup, row: Any) -> None:
        self._last = row.position
        self._left = self._left and type(row.position) is int  # else there may be no end of pages
        self._count += 1
        self._tally += row.hash if type(row.hash) is int else 0
        if not lookup.is_in_place(row):
            self.wrong = lookup.misplaced((*self.key, bytes(row.name).decode("utf-8", "replace")))

    def _check(self, lookup: Lookup) -> None:
        """Compare with the parent's tally, unless the node was changed while it was listed."""
        where = (node.c.store == lookup.store) & (node.c.id == self.id)
        found = lookup.connection.execute(sa.select(node.c.children, node.c.tally).where(where)).first()
        now = tuple(found) if found else None
        first, self._expected = self._expected, now
        if first is not None and first != now:
            self._count = -1 << 62  # never again equal to what is expected: not to be compared
        if not self._left and now is not None and self._count >= 0 and (self._count, self._tally) != now:
            self.wrong = self.wrong or lookup.incomplete(self.key)
