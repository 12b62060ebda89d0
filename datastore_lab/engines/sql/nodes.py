"""Nodes: what is known of each, its row, and what binds a row to its place."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

import xxhash

from datastore_lab import media
from datastore_lab.engines.sql.parts import PART, Block, signed
from datastore_lab.engines.sql.tables import ROOT
from datastore_lab.errors import NotStorable
from datastore_lab.integrity import BIRTH
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, Stat

if TYPE_CHECKING:
    from datastore_lab.engines.sql.arrays import Array

LONGEST = 1 << 28
"""Most bytes of a record's JSON that are read; its attributes may take half of them."""


class Node:
    """One node, as its row says it.

    Attributes
    ----------
    new : bool
        Whether the row has still to be inserted.
    complete : bool
        Whether there are no children but those that this transaction made.
    attributes : str or None
        The attributes as JSON, where somebody had to know how long that is.
    size : int
        About how many characters its JSON takes.
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
        self.attributes: str | None = None
        self.size = 0

    @property
    def stat(self) -> Stat:
        """Describe it to the user."""
        return Stat(self.kind, {name: array.info(name) for name, array in self.arrays.items()}, self.shown)

    @property
    def shown(self) -> dict[str, Any]:
        """The attributes that are the user's."""
        if BIRTH not in self.meta:
            return self.meta
        return {name: value for name, value in self.meta.items() if name != BIRTH}

    def names(self) -> set[str]:
        """Give the names of arrays and dimensions, which no child may have."""
        dims = {dim for name, array in self.arrays.items() for dim in array.dims or ()}
        return {*self.arrays, *dims}

    def text(self) -> str:
        """Give arrays and attributes as JSON."""
        arrays = [array.to_json(name) for name, array in self.arrays.items()]
        meta = self.attributes if self.attributes is not None else _json(self.meta)
        return f'{{"arrays": {_json(arrays)}, "meta": {meta}}}'

    def say(self, meta: dict[str, Any], text: str) -> None:
        """Take other attributes, with their JSON."""
        self.meta, self.attributes, self.size = meta, text, len(text)

    def count(self, name: str, sign: int) -> None:
        """Note that a child has come or gone."""
        self.children += sign
        self.tally += sign * name_hash(name)


def attributes_text(meta: dict[str, Any], key: Key, url: str) -> str:
    """Give attributes as JSON, unless that is longer than what would be read.

    Raises
    ------
    NotStorable
    """
    text = _json(meta)
    if 4 * len(text) > LONGEST // 2 and len(text.encode()) > LONGEST // 2:
        raise NotStorable(
            f"{show(key)!r} in {url}: its attributes take more than {LONGEST >> 21} MB as JSON; keep what is "
            "so large as an array",
            key=key,
        )
    return text


def _json(value: Any) -> str:
    """Write what was found to be JSON when it came in: within a record it lies deeper than on its own."""
    return json.dumps(media.tag_floats(value), ensure_ascii=False, allow_nan=False)


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
    written = encode_basestring_ascii(kind.decode("latin-1"))
    head = f"[{store}, {number}, {written}, {'null' if spill is None else spill}]"
    return xxhash.xxh3_128_hexdigest(head.encode() + text.encode("utf-8", "surrogatepass"))


def is_count(value: Any) -> bool:
    """Say whether this is a number as the store counts them, and can be counted on."""
    return type(value) is int and 0 <= value < 1 << 62


def store_seal(row: Any) -> str:
    """Give the sum over the row of a store."""
    text = "|".join(str(row[name]) for name in ("id", "name", "lab_layout", "revision", "next"))
    return xxhash.xxh3_128_hexdigest(text.encode())


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
