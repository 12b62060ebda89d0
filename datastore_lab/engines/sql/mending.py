"""Mending without guessing, and giving back space."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from datastore_lab.engines.sql import care, walk
from datastore_lab.engines.sql.change import Change
from datastore_lab.engines.sql.lookup import Lookup
from datastore_lab.engines.sql.nodes import (
    Node,
    is_bound,
    is_count,
    name_hash,
    place_values,
    seal,
    store_seal,
)
from datastore_lab.engines.sql.parts import part_row, stored_bytes
from datastore_lab.engines.sql.tables import ROOT, node, part, store
from datastore_lab.errors import Corrupt
from datastore_lab.records import Repair

if TYPE_CHECKING:
    from datastore_lab.engines.sql.connect import Database
    from datastore_lab.keys import Key

Changing = Callable[[Callable[[sa.Connection], Any]], Any]


def _guarded(key: Key, steps: Iterator[Repair]) -> Iterator[Repair]:
    """Go on with what else there is, where something can't be read."""
    try:
        yield from steps
    except Corrupt as error:
        yield Repair(key, None, error.message, mended=False)


def _is_well(row: Any) -> bool:
    """Whether the counters of a store are as they were written, and numbers."""
    return store_seal(row) == row["seal"] and is_count(row["next"]) and is_count(row["revision"])


class Mender:
    """Goes over a store, and mends.

    Parameters
    ----------
    database : Database
    number : int
        Of the store.
    reading : callable
        Gives a context for reading.
    changing : callable
        Runs a function of a connection inside a transaction.
    accept : bool
        Take what is readable as it is.
    """

    def __init__(
        self, database: Database, number: int, reading: walk.Reading, changing: Changing, *, accept: bool
    ) -> None:
        self._database, self._number = database, number
        self._reading, self._changing, self._accept = reading, changing, accept

    def run(self, key: Key) -> Iterator[Repair]:
        """Mend everything at or below a node."""
        if key == () and self._database.is_sqlite and not (yield from self._file()):
            yield from _guarded(key, self._report())  # a change may hit pages that belong to others
            return
        yield from _guarded((), self._counters()) if key == () else ()
        nodes: list[tuple[Key, Any]] = []
        yield from _guarded(key, self._collect(key, nodes))
        for path, child in nodes:
            yield from _guarded(path, self._node(path, child))
        for path, child in nodes:  # only now, as a name that was taken as it is changes the tally above it
            yield from _guarded(path, self._tally(path, child.id))

    def _collect(self, key: Key, nodes: list[tuple[Key, Any]]) -> Iterator[Repair]:
        """Find the nodes; what can't be listed raises."""
        with self._reading() as lookup:
            row = lookup.row(key)
        nodes.extend(walk.below(self._reading, row, key, []))
        yield from ()

    def _node(self, key: Key, child: Any) -> Iterator[Repair]:
        yield from self._place(key, child)
        yield from self._description(key, child.id)
        yield from self._payload(key, child.id)

    def _file(self) -> Generator[Repair, None, bool]:
        """Rebuild indexes, or a file in which all can be read; gives whether it is sound then."""
        if not (found := self._integrity()):
            return True
        indexes = all("index" in line for line in found)
        if not indexes and self._is_damaged():
            yield Repair((), None, f"{found[0]}; what can be read is to be copied", mended=False)
            return False
        what = "the indexes were" if indexes else "the file was"
        with self._database.outside() as connection:
            try:
                if not indexes:
                    connection.exec_driver_sql("VACUUM")  # copies indexes as they are
                connection.exec_driver_sql("REINDEX")
            except sa.exc.DatabaseError as error:
                yield Repair((), None, f"{found[0]}; it can't be rebuilt: {error.orig}", mended=False)
                return False
        left = self._integrity()
        yield Repair((), None, f"{found[0]}; {what} rebuilt", mended=not left)
        return not left

    def _integrity(self) -> list[str]:
        with self._reading() as lookup:
            return care.integrity(lookup.connection)

    def _is_damaged(self) -> bool:
        """Whether there is an item that can't be read."""
        return any(care.verify(self._database, self._reading, (), deep=False))

    def _report(self) -> Iterator[Repair]:
        for problem in care.verify(self._database, self._reading, (), deep=False):
            yield Repair(problem.key, problem.name, problem.what, mended=False)

    def _counters(self) -> Iterator[Repair]:
        def mend(connection: sa.Connection) -> bool:
            row = dict(
                connection.execute(sa.select(store).where(store.c.id == self._number)).mappings().one()
            )
            if _is_well(row):
                return False
            row.update({name: row[name] if is_count(row[name]) else 0 for name in ("next", "revision")})
            numbers = [node.c.id, node.c.position, node.c.spill, part.c.array]
            seen = [self._largest(connection, column) for column in numbers]
            row["next"] = max([*seen, min(row["next"], 1 << 48)]) + (1 << 20)  # beyond all that may be lost
            row["revision"] = max(0, min(row["revision"], 1 << 48)) + (1 << 20)
            values = {"next": row["next"], "revision": row["revision"], "seal": store_seal(row)}
            connection.execute(sa.update(store).where(store.c.id == self._number).values(values))
            return True

        with self._reading() as lookup:
            own = sa.select(store).where(store.c.id == self._number)
            row = lookup.connection.execute(own).mappings().one()
        if not _is_well(row) and self._changing(mend):
            yield Repair((), None, "the counters of the store were set anew", mended=True)

    def _largest(self, connection: sa.Connection, column: Any) -> int:
        where = (column.table.c.store == self._number) & (column < 1 << 62)  # text is greater
        return int(connection.execute(sa.select(sa.func.max(column)).where(where)).scalar() or 0)

    def _place(self, key: Key, child: Any) -> Iterator[Repair]:
        with self._reading() as lookup:
            row = lookup.numbered(child.id, key)
            if lookup.is_in_place(row):
                return
        if row.id == ROOT and is_bound(self._number, (ROOT, 0, 0), b"", row.kind, row.mark):
            self._set(ROOT, {"parent": 0, "position": 0, "name": b"", "hash": 0})
            yield Repair(key, None, "the root was put back in its place", mended=True)
            return
        bound = is_bound(self._number, (row.id, row.parent, row.position), row.name, row.kind, row.mark)
        try:
            name = row.name.decode()
        except UnicodeDecodeError:
            name = ""
        if bound and name and row.id != ROOT:
            self._set(row.id, {"hash": name_hash(name)})
            yield Repair(key, None, "what its name is looked up by was made anew", mended=True)
            return
        numbers = all(type(value) is int for value in (row.id, row.parent, row.position))
        if not name or not numbers or not self._accept:
            yield Repair(key, None, "its name or place is not as it was written", mended=False)
            return

        def take(connection: sa.Connection) -> None:
            own = Node(row.id, row.parent, row.position, name)
            own.kind = bytes(row.kind).decode("utf-8", "replace")
            values = place_values(self._number, own)
            connection.execute(sa.update(node).where(self._is(row.id)).values(values))

        self._changing(take)
        yield Repair(key, None, f"its name and place were taken as they are ({name!r})", mended=True)

    def _description(self, key: Key, number: int) -> Iterator[Repair]:
        with self._reading() as lookup:
            row = lookup.numbered(number, key)
            try:
                lookup.load(row, key)
            except Corrupt as error:
                problem = error.message
            else:
                return
            readable = self._is_readable(lookup, row, key)
        if not readable or not self._accept:
            yield Repair(key, None, problem, mended=False)
            return
        values = {"seal": seal(self._number, number, bytes(row.kind), row.record, row.spill)}
        self._set(number, values)
        yield Repair(key, None, "its description was taken as it is", mended=True)

    def _is_readable(self, lookup: Lookup, row: Any, key: Key) -> bool:
        try:
            lookup.load(row, key, sealed=False)
        except Corrupt:
            return False
        else:
            return True

    def _payload(self, key: Key, number: int) -> Iterator[Repair]:
        with self._reading() as lookup:
            row = lookup.numbered(number, key)
            if not self._is_readable(lookup, row, key):
                return
            own = lookup.load(row, key, sealed=False)
        for name, array in own.arrays.items():
            for block in array.blocks:
                for where in care.bad_parts(self._reading, block):
                    mended = self._accept and self._try(partial(self._take_part, block, where))
                    what = "was taken as it is" if mended else "is not as it was written (checksum)"
                    yield Repair(key, name, f"part {where} {what}", mended=bool(mended))

    def _try(self, action: Callable[[sa.Connection], bool]) -> bool:
        """Change rows, if the page that they lie in can be read at all."""
        try:
            return bool(self._changing(action))
        except Corrupt:
            return False

    def _take_part(self, block: Any, number: int, connection: sa.Connection) -> bool:
        where = (part.c.store == self._number) & (part.c.array == block.id) & (part.c.number == number)
        row = connection.execute(sa.select(part).where(where)).first()
        size = block.part_size(number)
        try:
            raw = b"" if row is None else stored_bytes(row, size)
        except Corrupt:
            return False
        if row is None or len(raw) != size:
            return False
        connection.execute(sa.delete(part).where(where))
        connection.execute(sa.insert(part), [part_row(self._number, block.id, number, raw)])
        return True

    def _tally(self, key: Key, number: int) -> Iterator[Repair]:
        """Mend a count or a tally, where the other one of the two agrees with what is there."""
        with self._reading() as lookup:
            row = lookup.numbered(number, key)
        listing = walk.Listing(self._reading, row, key)
        found = [(child.hash, lookup.is_in_place(child)) for child in listing]
        now = len(found), sum(hashed for hashed, _ in found)
        if now == (row.children, row.tally):
            return
        well = all(good for _, good in found) and (now[0] == row.children or now[1] == row.tally)
        if not well and not self._accept:
            yield Repair(key, None, "nodes below it may be lost or renamed", mended=False)
            return
        values = {"children": now[0], "tally": now[1]}
        self._set(number, values)
        yield Repair(key, None, f"the tally of its {now[0]} nodes was made anew", mended=True)

    def _set(self, number: int, values: dict[str, Any]) -> None:
        statement = sa.update(node).where(self._is(number)).values(values)
        self._changing(lambda connection: connection.execute(statement))

    def _is(self, number: int) -> Any:
        return (node.c.store == self._number) & (node.c.id == number)


_WORTH_REBUILDING = 16 << 20
_FREE = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
    "AND table_name IN ('lab_part', 'lab_node') AND data_free >= %s"
)


def _statements(connection: sa.Connection) -> list[str]:
    """Give what makes a database give back space: MariaDB rebuilds a table, if that is worth it."""
    if connection.dialect.name == "sqlite":
        return ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
    if connection.dialect.name == "postgresql":
        return ["VACUUM lab_part", "VACUUM lab_node"]
    tables = connection.exec_driver_sql(_FREE, (_WORTH_REBUILDING,)).scalars()
    return [f"OPTIMIZE TABLE {table}" for table in tables if table in {"lab_part", "lab_node"}]


def compact(database: Database, number: int) -> int:
    """Drop parts that belong to nothing, and let the database give back what is free; gives the bytes."""
    with database.changing() as connection:
        Change(connection, number, database.address.shown)  # waits for its turn
        _drop_orphans(connection, number, database.address.shown)
    before = _size(database)
    with database.outside() as connection:
        for statement in _statements(connection):
            connection.exec_driver_sql(statement).close()
    return max(0, before - _size(database))


def _drop_orphans(connection: sa.Connection, number: int, url: str) -> None:
    """Drop the parts of nodes that could not be read when they were deleted."""
    lookup = Lookup(connection, number, url)
    held: set[int | None] = set()
    for row in connection.execute(sa.select(node).where(node.c.store == number)).all():
        try:
            own = lookup.load(row, ())
        except Corrupt:
            return  # its parts may be among those that seem to belong to nothing
        held.update(block.id for array in own.arrays.values() for block in array.blocks)
        held.add(own.spill)
    where = part.c.store == number
    for array in list(connection.execute(sa.select(part.c.array).where(where).distinct()).scalars()):
        if array not in held:
            connection.execute(sa.delete(part).where(where & (part.c.array == array)))


def _size(database: Database) -> int:
    """Give the bytes that the tables take, with those of other stores in the same database."""
    if database.is_sqlite:
        path = str(database.address.path)
        files = [Path(path), Path(f"{path}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())
    with database.reading() as connection:
        return int(connection.execute(sa.text(_SIZES[connection.dialect.name == "postgresql"])).scalar() or 0)


_SIZES = {
    True: "SELECT pg_total_relation_size('lab_part') + pg_total_relation_size('lab_node')",
    False: (
        "SELECT SUM(data_length + index_length) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name IN ('lab_part', 'lab_node')"
    ),
}
