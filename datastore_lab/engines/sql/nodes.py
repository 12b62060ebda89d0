"""Nodes: what is known of each, its row, and what binds a row to its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import xxhash

from datastore_lab import media
from datastore_lab.engines.sql.parts import PART, Block, signed
from datastore_lab.engines.sql.tables import ROOT
from datastore_lab.integrity import BIRTH
from datastore_lab.records import GROUP, Stat

if TYPE_CHECKING:
    from datastore_lab.engines.sql.arrays import Array


class Node:
    """One node, as its row says it.

    Attributes
    ----------
    new : bool
        Whether the row has still to be inserted.
    complete : bool
        Whether there are no children but those that this transaction made.
    """

    def __init__(self, number: int, parent: int, position: int, name: str) -> None:
        self.id, self.parent, self.position, self.name = number, parent, position, name
        self.kind = GROUP
        self.arrays: dict[str, Array] = {}
        self.meta: dict[str, Any] = {}
        self.spill: int | None = None
        self.children = 0
        self.tally = 0
        self.new = False
        self.complete = False

    @property
    def stat(self) -> Stat:
        """Describe it to the user."""
        meta = {name: value for name, value in self.meta.items() if name != BIRTH}
        return Stat(self.kind, {name: array.info(name) for name, array in self.arrays.items()}, meta)

    def names(self) -> set[str]:
        """Give the names of arrays and dimensions, which no child may have."""
        dims = {dim for name, array in self.arrays.items() for dim in array.dims or ()}
        return {*self.arrays, *dims}

    def text(self) -> str:
        """Give arrays and attributes as JSON."""
        arrays = [array.to_json(name) for name, array in self.arrays.items()]
        return media.to_json({"arrays": arrays, "meta": self.meta})

    def count(self, name: str, sign: int) -> None:
        """Note that a child has come or gone."""
        self.children += sign
        self.tally += sign * name_hash(name)


def name_hash(name: str) -> int:
    """Give what a name is looked up by: 32 bits, never 0, so that a sum of them fits and tells of each."""
    return xxhash.xxh32_intdigest(name.encode()) or 1


def mark(store: int, number: int, parent: int, position: int, name: bytes, *, kind: bytes) -> int:
    """Give the sum that binds a node's name to its place, and says whether a record is there."""
    head = b"%d %d %d %d %d " % (store, number, parent, position, kind == GROUP.encode())
    return signed(xxhash.xxh3_64_intdigest(head + name))


def is_bound(store: int, way: tuple[Any, Any, Any], name: bytes, kind: bytes, written: Any) -> bool:
    """Say whether number, parent and position of a row are those that its mark was made for."""
    if not all(type(value) is int for value in way):
        return False
    return bool(written == mark(store, *way, name, kind=kind))


def seal(store: int, number: int, kind: bytes, text: str, spill: int | None) -> str:
    """Give the sum over a node's record, as 32 hexadecimal digits."""
    head = json.dumps([store, number, kind.decode("latin-1"), spill])
    return xxhash.xxh3_128_hexdigest(head.encode() + text.encode("utf-8", "surrogatepass"))


def place_values(store: int, own: Node) -> dict[str, Any]:
    """Give the columns that say where a node is."""
    name = own.name.encode()
    return {
        "parent": own.parent,
        "position": own.position,
        "hash": name_hash(own.name) if own.id != ROOT else 0,
        "name": name,
        "mark": mark(store, own.id, own.parent, own.position, name, kind=own.kind.encode()),
    }


def row_of(store: int, own: Node, text: str) -> dict[str, Any]:
    """Give all columns; `text` is the record, or its length where it is spilled."""
    kind = own.kind.encode()
    return {
        "store": store,
        "id": own.id,
        **place_values(store, own),
        "kind": kind,
        "record": text,
        "spill": own.spill,
        "seal": seal(store, own.id, kind, text, own.spill),
        "children": own.children,
        "tally": own.tally,
    }


def spill_block(number: int, size: int) -> Block:
    """Give the block of a record that is too long for its row."""
    return Block(number, (size, 1), PART)
