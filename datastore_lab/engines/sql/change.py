"""One transaction that changes a store: what is to be written waits, and goes to the database in bulk."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
import xxhash

from datastore_lab import dtypes
from datastore_lab.engines.sql import arrays as _arrays
from datastore_lab.engines.sql.arrays import Array
from datastore_lab.engines.sql.lookup import Lookup
from datastore_lab.engines.sql.nodes import Node, row_of, spill_block
from datastore_lab.engines.sql.parts import GROWING, PART, Block, part_row
from datastore_lab.engines.sql.tables import ROOT, node, part, store
from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.integrity import BIRTH, birth
from datastore_lab.records import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Record

_WAITING = 4 << 20
_ROWS = 1000
_BATCH = 500
_KEPT = 20_000


def store_seal(row: Any) -> str:
    """Give the sum over the row of a store."""
    text = "|".join(str(row[name]) for name in ("id", "name", "lab_layout", "revision", "next"))
    return xxhash.xxh3_128_hexdigest(text.encode())


class Change:
    """Changes of one store, from the lock on it to the commit.

    Nodes are kept once they were seen: nobody else can change them meanwhile.
    """

    def __init__(self, connection: sa.Connection, number: int, url: str) -> None:
        self._connection, self._number, self._url = connection, number, url
        self._lookup = Lookup(connection, number, url)
        self._nodes: dict[Key, Node | None] = {}
        self._dirty: dict[int, Node] = {}
        self._counted: dict[int, Node] = {}
        self._parts: list[dict[str, Any]] = []
        self._waiting = 0
        self._gone: list[int] = []
        self._touched = False
        self.undo: list[Callable[[], None]] = []
        self.failed: BaseException | None = None
        self._row = self._locked()

    def _locked(self) -> dict[str, Any]:
        """Wait until no other writer is at work, and see the store as the last one left it."""
        where = store.c.id == self._number
        row = self._connection.execute(sa.select(store).where(where).with_for_update()).mappings().first()
        if row is None:
            raise EngineError(f"the store {self._url} was removed from its database", key=self._url)
        if store_seal(row) != row["seal"]:
            raise Corrupt(
                f"{self._url}: the counters of the store are not as they were written; store.repair() sets "
                "them anew, reading goes on",
                key=(),
            )
        return dict(row)

    @property
    def connection(self) -> sa.Connection:
        """The connection, with everything that was changed so far in it."""
        self.flush()
        return self._connection

    @property
    def revision(self) -> int:
        """Number of the commit before this one."""
        return int(self._row["revision"])

    # -- nodes --------------------------------------------------------------------------------------

    def find(self, key: Key) -> Node | None:
        """Give a node, or None if there is none."""
        if key in self._nodes:
            return self._nodes[key]
        known = next((depth for depth in reversed(range(len(key))) if key[:depth] in self._nodes), -1)
        above = self._nodes[key[:known]] if known >= 0 else None
        if known >= 0 and (above is None or above.complete):
            return None
        self._learn(key, known, above)
        return self._nodes[key]

    def _learn(self, key: Key, known: int, above: Node | None) -> None:
        """Take down the nodes on the way to a key, below the last one that is known."""
        if above is None:
            rows = self._lookup.follow_from_root(key)
        else:
            rows = self._lookup.follow(above.id, key, known, whole=True)
        way = [key[:depth] for depth in range(known + 1, len(key) + 1)]
        found = {at: self._lookup.load(row, at) for at, row in zip(way, rows, strict=False)}
        self._nodes.update({**dict.fromkeys(way), **found})

    def node(self, key: Key) -> Node:
        """Give a node that must be there."""
        found = self.find(key)
        if found is None:
            self.flush()
            return self._lookup.node(key)  # says why not
        return found

    def check_names(self, key: Key, names: Iterable[str] = ()) -> None:
        """Keep the names of a node's arrays, dimensions and children distinct."""
        refusals.refuse_root(key, self._url)
        own, wanted = self.find(key), list(names)  # first, as it takes down all that are above it
        for depth, name in enumerate(key):
            above = self.find(key[:depth])
            if above is not None and name in above.names():
                raise refusals.array_above(key, depth, self._url)
        if own is not None and own.children and wanted:
            self.flush()
            if taken := self._lookup.taken(own, wanted):
                raise refusals.child_named(key, taken, self._url)

    def make(self, key: Key) -> Node:
        """Give a node, made with those above it where they are missing."""
        found = self.find(key)
        if found is not None:
            return found
        above = self.make(key[:-1])
        number = self.number()
        made = Node(number, above.id, number, key[-1])
        made.new = made.complete = True
        self._nodes[key] = self._changed(made)
        self._count(above, key[-1], 1)
        return made

    def number(self) -> int:
        """Give a number that no node or array of this store ever had."""
        self._row["next"] += 1
        return int(self._row["next"]) - 1

    def _count(self, above: Node, name: str, sign: int) -> None:
        if not type(above.children) is type(above.tally) is int:
            raise self._lookup.incomplete((above.name,) if above.name else ())
        above.count(name, sign)
        self._counted[above.id] = above
        self._touched = True

    def _changed(self, own: Node) -> Node:
        self._dirty[own.id] = own
        self._touched = True
        if len(self._dirty) >= _ROWS:
            self.flush()
        return own

    # -- what the engine does -----------------------------------------------------------------------

    def put(self, key: Key, record: Record, data: Mapping[str, NDArray[Any]]) -> Node:
        """Write a record, or replace one."""
        if len(self._nodes) > _KEPT:
            self._forget()
        own = self.make(key)
        self._drop(own)
        own.kind, own.meta, own.arrays = record.kind, dict(record.meta), {}
        ids = iter(self.number, None)
        for name, array in data.items():
            dims = record.dims.get(name)
            declared, blocks = _arrays.cut(array, ids, tuple(dims) if dims else None)
            own.arrays[name] = declared
            for block, content in blocks:
                for number, piece in block.numbered(content):
                    self.put_part(block.id, number, piece.tobytes())
        self._changed(own)
        return own

    def begin(self, key: Key, record: Record) -> Mapping[str, Array]:
        """Put a record whose arrays have no rows yet, and will grow."""
        own = self.put(key, record._replace(meta={BIRTH: birth(), **record.meta}), {})
        for name, array in record.arrays.items():
            dtype, dims = dtypes.name(array.dtype), tuple(record.dims[name])
            text = (self.number(), 0) if dtype == dtypes.STRING else None
            own.arrays[name] = Array(dtype, array.shape, dims, GROWING, self.number(), text)
        self._changed(own)
        return dict(own.arrays)

    def describe(self, own: Node, arrays: Mapping[str, Array]) -> None:
        """Change what is declared about the arrays of a node, which keep their numbers."""
        own.arrays = dict(arrays)
        self._changed(own)

    def merge(self, key: Key, meta: Mapping[str, Any], drop: tuple[str, ...] = ()) -> None:
        """Merge into the attributes of a node, and remove those in `drop`."""
        own = self.node(key)
        for name in drop:
            own.meta.pop(name, None)
        own.meta.update(meta)
        self._changed(own)

    def put_part(self, array: int, number: int, raw: bytes) -> None:
        """Add a part of an array."""
        row = part_row(self._number, array, number, raw)
        self._parts.append(row)
        self._touched = True
        self._waiting += len(row["bytes"])
        if self._waiting >= _WAITING:
            self._flush_parts()

    def replace_part(self, array: int, number: int, raw: bytes) -> None:
        """Write a part again."""
        where = (part.c.store == self._number) & (part.c.array == array) & (part.c.number == number)
        self._connection.execute(sa.delete(part).where(where))
        self.put_part(array, number, raw)

    def move(self, old: Key, new: Key) -> None:
        """Put a node, with everything below it, elsewhere."""
        own = self.node(old)
        if new[: len(old)] == old:
            raise refusals.into_itself(old, new, self._url)
        if self.find(new) is not None:
            raise refusals.something_at(new, self._url)
        self.check_names(new)
        self._take_away(own, old)
        above = self.make(new[:-1])
        self._count(above, new[-1], 1)
        own.parent, own.position, own.name = above.id, self.number(), new[-1]
        self._changed(own)
        self._forget()

    def delete(self, key: Key) -> None:
        """Delete a node with everything below it."""
        own = self.node(key)
        self._take_away(own, key)
        self._forget()
        level = [own.id]
        while level:
            self._delete_level(level)
            level = list(self._below(level))

    def clear(self) -> None:
        """Empty the store."""
        self.flush()
        for table in (part, node):
            self._connection.execute(sa.delete(table).where(table.c.store == self._number))
        self._nodes.clear()
        root = Node(ROOT, 0, 0, "")
        root.new = root.complete = True
        self._nodes[()] = self._changed(root)
        self.flush()

    def _take_away(self, own: Node, key: Key) -> None:
        above = self.node(key[:-1])
        self._count(above, key[-1], -1)

    def _forget(self) -> None:
        """Write everything out, and look at it afresh: keys have changed."""
        self.flush()
        self._nodes.clear()

    # -- deleting, a batch at a time ----------------------------------------------------------------

    def _delete_level(self, numbers: list[int]) -> None:
        """Delete the arrays of nodes; those that can't be read leave their parts to `compact`."""
        for some in _batches(numbers):
            where = (node.c.store == self._number) & node.c.id.in_(some)
            for row in self._connection.execute(sa.select(node).where(where)).all():
                try:
                    own = self._lookup.load(row, ())
                except Corrupt:
                    continue
                self._drop(own)
            self._flush_gone()

    def _below(self, numbers: list[int]) -> Iterator[int]:
        """Give the nodes below some, and unhook them once they are known."""
        for some in _batches(numbers):
            where = (node.c.store == self._number) & node.c.parent.in_(some)
            found = list(self._connection.execute(sa.select(node.c.id).where(where)).scalars())
            yield from found
        if numbers:
            self._delete_nodes(numbers)

    def _delete_nodes(self, numbers: list[int]) -> None:
        for some in _batches(numbers):
            where = (node.c.store == self._number) & node.c.id.in_(some)
            self._connection.execute(sa.delete(node).where(where))
        self._touched = True

    def _drop(self, own: Node) -> None:
        if own.spill is not None:
            self._gone.append(own.spill)
            own.spill = None
        for array in own.arrays.values():
            self._gone.extend(block.id for block in array.blocks)

    # -- to the database ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that waits."""
        self._flush_gone()
        changed, self._dirty = list(self._dirty.values()), {}
        rows = [(own, row_of(self._number, own, self._text(own))) for own in changed]
        new = [row for own, row in rows if own.new]
        if new:
            self._connection.execute(sa.insert(node), new)
        for own, row in rows:
            if not own.new:
                self._update(row)
            own.new = False
            self._counted.pop(own.id, None)
        self._flush_counts()
        self._flush_parts()

    def _flush_counts(self) -> None:
        counted, self._counted = self._counted, {}
        for own in counted.values():
            self._update({"store": self._number, "id": own.id, "children": own.children, "tally": own.tally})

    def _update(self, row: dict[str, Any]) -> None:
        where = (node.c.store == row.pop("store")) & (node.c.id == row.pop("id"))
        self._connection.execute(sa.update(node).where(where).values(row))

    def _text(self, own: Node) -> str:
        """Give what the row holds of a record: its JSON, or the length of that where it lies in parts."""
        text = own.text()
        raw = text.encode("utf-8", "surrogatepass") if len(text) > PART // 4 else b""
        if own.spill is not None:
            self._gone.append(own.spill)
            self._flush_gone()
            own.spill = None
        if len(raw) <= PART:
            return text
        own.spill = self.number()
        block: Block = spill_block(own.spill, len(raw))
        for number, piece in block.numbered(np.frombuffer(raw, np.uint8).reshape(-1, 1)):
            self.put_part(own.spill, number, piece.tobytes())
        return str(len(raw))

    def _flush_parts(self) -> None:
        rows, self._parts, self._waiting = self._parts, [], 0
        if rows:
            self._connection.execute(sa.insert(part), rows)

    def _flush_gone(self) -> None:
        gone, self._gone = self._gone, []
        if gone:
            self._flush_parts()
        for some in _batches(gone):
            where = (part.c.store == self._number) & part.c.array.in_(some)
            self._connection.execute(sa.delete(part).where(where))
            self._touched = True

    def finish(self) -> None:
        """Count the commit; what follows is the database's own."""
        if self.failed is not None:
            raise EngineError(
                f"{self._url}: a change in this transaction failed, all of it is undone: {self.failed}",
                key=self._url,
            ) from self.failed
        self.flush()
        if not self._touched:
            return
        row = {**self._row, "revision": self._row["revision"] + 1}
        values = {"revision": row["revision"], "next": row["next"], "seal": store_seal(row)}
        self._connection.execute(sa.update(store).where(store.c.id == self._number).values(values))


def _batches(numbers: Iterable[int]) -> Iterator[list[int]]:
    left = iter(numbers)
    while some := list(itertools.islice(left, _BATCH)):
        yield some
