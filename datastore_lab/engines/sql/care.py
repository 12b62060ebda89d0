"""Looking for damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from datastore_lab.engines.sql import walk
from datastore_lab.engines.sql.change import store_seal
from datastore_lab.engines.sql.parts import Block, Reader
from datastore_lab.engines.sql.tables import store
from datastore_lab.errors import Corrupt
from datastore_lab.records import Problem

if TYPE_CHECKING:
    from datastore_lab.engines.sql.connect import Database
    from datastore_lab.engines.sql.nodes import Node
    from datastore_lab.keys import Key


def verify(database: Database, reading: walk.Reading, key: Key, *, deep: bool = True) -> Iterator[Problem]:
    """Read everything; damage that hits an item is told of that item, other damage of the store.

    Damage that no item shows is looked for if it is to be `deep`.
    """
    found = False
    with reading() as lookup:
        row = lookup.row(key)
    wrong: list[Corrupt] = []
    for path, child in walk.below(reading, row, key, wrong):
        for problem in _node_problems(reading, path, child):
            found = True
            yield problem
    for error in wrong:
        found = True
        yield Problem(error.key, None, error.message)
    if key == ():
        yield from _store_problems(database, reading, quiet=found or not deep)


def _node_problems(reading: walk.Reading, key: Key, child: Any) -> Iterator[Problem]:
    try:
        with reading() as lookup:
            row = lookup.by_id(child.id)
            if row is None:
                return  # deleted meanwhile
            own = lookup.load(row, key)
    except Corrupt as error:
        yield Problem(key, None, error.message)
        return
    for name, array in own.arrays.items():
        bad = [f"part {n} of {block.pieces}" for block in array.blocks for n in bad_parts(reading, block)]
        if bad and _is_still_there(reading, own):
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            yield Problem(key, name, f"{', '.join(bad[:3])}{more}: not as written (checksum)")


def bad_parts(reading: walk.Reading, block: Block) -> Iterator[int]:
    """Give the numbers of parts that can't be read as they were written."""
    for number in range(block.pieces):
        try:
            with reading() as lookup:
                for _ in Reader(lookup.connection, lookup.store).fetch(block, [number]):
                    pass
        except Corrupt:
            yield number


def _is_still_there(reading: walk.Reading, own: Node) -> bool:
    """Tell damage from a record that another process has replaced meanwhile."""
    with reading() as lookup:
        row = lookup.by_id(own.id)
        return row is not None and lookup.load(row, ()).arrays == own.arrays


def _store_problems(database: Database, reading: walk.Reading, *, quiet: bool) -> Iterator[Problem]:
    with reading() as lookup:
        row = lookup.connection.execute(sa.select(store).where(store.c.id == lookup.store)).mappings().one()
        if store_seal(row) != row["seal"]:
            yield Problem((), None, "the counters of the store are not as they were written")
        if database.is_sqlite and not quiet:  # else it would tell of the same once more
            yield from (Problem((), None, text) for text in integrity(lookup.connection))


def integrity(connection: sa.Connection) -> list[str]:
    """Let SQLite look at its file."""
    try:
        lines = list(connection.execute(sa.text("PRAGMA integrity_check(20)")).scalars())
    except sa.exc.DatabaseError as error:
        return [f"the file is damaged: {error.orig}"]
    return [] if lines == ["ok"] else [f"the file is damaged: {line}" for line in lines]
