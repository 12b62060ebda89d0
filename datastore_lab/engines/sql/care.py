"""Looking for damage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from datastore_lab.engines.sql import walk
from datastore_lab.engines.sql.nodes import is_count, store_seal
from datastore_lab.engines.sql.parts import Block, Reader
from datastore_lab.engines.sql.tables import part, store
from datastore_lab.errors import Corrupt
from datastore_lab.records import Problem

if TYPE_CHECKING:
    from datastore_lab.engines.sql.connect import Database
    from datastore_lab.engines.sql.nodes import Node
    from datastore_lab.keys import Key

MISSING_TOLD = 1000
_PAGE = 1000


def verify(database: Database, reading: walk.Reading, key: Key, *, deep: bool = True) -> Iterator[Problem]:
    """Read everything; damage that hits an item is told of that item, other damage of the store.

    Damage that no item shows is looked for if it is to be `deep`.
    """
    found = False
    wrong: list[Corrupt] = []
    try:
        row = _start(reading, key, wrong)
    except Corrupt as error:
        if key != ():
            raise
        yield Problem((), None, error.message)
        yield from _store_problems(database, reading, quiet=not deep)
        return
    for path, child in walk.below(reading, row, key, wrong):
        for problem in _node_problems(reading, path, child):
            found = True
            yield problem
    for other in wrong:
        found = True
        yield Problem(other.key, None, other.message)
    if key == ():
        yield from _store_problems(database, reading, quiet=found or not deep)


def _start(reading: walk.Reading, key: Key, wrong: list[Corrupt]) -> Any:
    """Give the row from which to look; every other one is checked as it is found below its parent."""
    with reading() as lookup:
        row = lookup.row(key)
        if not lookup.is_in_place(row):
            wrong.append(lookup.misplaced(key))
    return row


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
        bad = [(n, block.pieces) for block in array.blocks for n in bad_parts(reading, block)]
        if bad and _is_still_there(reading, own):
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            more = " and more" if len(bad) >= MISSING_TOLD else more
            told = ", ".join(f"part {number} of {pieces}" for number, pieces in bad[:3])
            yield Problem(key, name, f"{told}{more}: not as written (checksum)")


def bad_parts(reading: walk.Reading, block: Block) -> Iterator[int]:
    """Give the numbers of parts that can't be read as they were written.

    Of those that are missing only the first thousand: a damaged declaration may claim any number of them.
    """
    after, untold = 0, MISSING_TOLD
    for number in itertools.chain(_held(reading, block), [block.pieces]):
        missing = range(after, number)[:untold]
        yield from missing
        untold -= len(missing)
        if number < block.pieces and not _is_well(reading, block, number):
            yield number
        after = number + 1


def _held(reading: walk.Reading, block: Block) -> Iterator[int]:
    """Give the numbers of the parts that are there, in order."""
    last, left = -1, True
    while left:
        with reading() as lookup:
            where = (part.c.store == lookup.store) & (part.c.array == block.id)
            where &= (part.c.number > last) & (part.c.number < min(block.pieces, 1 << 62))
            found = sa.select(part.c.number).where(where).order_by(part.c.number).limit(_PAGE)
            numbers = list(lookup.connection.execute(found).scalars())
        yield from (number for number in numbers if type(number) is int)
        left = len(numbers) == _PAGE
        last = numbers[-1] if left else last


def _is_well(reading: walk.Reading, block: Block, number: int) -> bool:
    try:
        with reading() as lookup:
            return all(len(raw) for _, raw in Reader(lookup.connection, lookup.store).fetch(block, [number]))
    except Corrupt:
        return False


def _is_still_there(reading: walk.Reading, own: Node) -> bool:
    """Tell damage from a record that another process has replaced meanwhile."""
    with reading() as lookup:
        row = lookup.by_id(own.id)
        return row is not None and lookup.load(row, ()).arrays == own.arrays


def _store_problems(database: Database, reading: walk.Reading, *, quiet: bool) -> Iterator[Problem]:
    with reading() as lookup:
        row = lookup.connection.execute(sa.select(store).where(store.c.id == lookup.store)).mappings().one()
        if store_seal(row) != row["seal"] or not (is_count(row["revision"]) and is_count(row["next"])):
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
