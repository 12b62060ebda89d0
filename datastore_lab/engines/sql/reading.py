"""What is read of one node: an array or a part of it, or all of its record at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from datastore_lab.engines.sql import arrays
from datastore_lab.engines.sql.nodes import is_count
from datastore_lab.engines.sql.parts import Reader
from datastore_lab.engines.sql.queries import Query
from datastore_lab.engines.sql.tables import store
from datastore_lab.errors import Corrupt
from datastore_lab.integrity import damaged, known_layout
from datastore_lab.records import Record, Selection, default_dims, refusals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.sql.lookup import Described, Lookup
    from datastore_lab.keys import Key

_REVISION = Query(sa.select(store.c.revision).where(store.c.id == sa.bindparam("store", type_=sa.Integer)))


def revision(lookup: Lookup) -> int:
    """Give the number of the last commit."""
    found = _REVISION.rows(lookup.connection, {"store": lookup.store})
    return found[0][0] if found and is_count(found[0][0]) else 0


def layout(lookup: Lookup) -> int | None:
    """Give the version of the layout of the store."""
    statement = sa.select(store.c.lab_layout).where(store.c.id == lookup.store)
    return known_layout(lookup.connection.execute(statement).scalar())


def one(lookup: Lookup, key: Key, name: str, selection: Selection, described: Described) -> NDArray[Any]:
    """Read an array of a record, or a part of it."""
    declared = lookup.arrays(key, described)
    if name not in declared:
        raise refusals.no_array(key, name, declared, lookup.url)
    try:
        return arrays.read(Reader(lookup.connection, lookup.store), declared[name], selection)
    except Corrupt as error:
        raise damaged(key, name, error.message, lookup.url) from error


def whole(lookup: Lookup, key: Key) -> Record:
    """Read a record, its small arrays in one statement, and a single one together with its node."""
    row, reader = lookup.row(key, ahead=True), Reader(lookup.connection, lookup.store)
    own = lookup.load(row, key)
    if (first := getattr(row, "ahead", None)) is not None:
        reader.hold(first)
    if len(own.arrays) > 1 or any(array.text for array in own.arrays.values()):
        reader.ahead(block for array in own.arrays.values() for block in array.blocks)
    data = {}
    for name, array in own.arrays.items():
        try:
            data[name] = arrays.read(reader, array, ())
        except Corrupt as error:
            raise damaged(key, name, error.message, lookup.url) from error
    dims = {name: array.dims or default_dims(name, len(array.shape)) for name, array in own.arrays.items()}
    return Record(own.kind, data, own.shown, dims)
