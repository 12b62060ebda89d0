"""One transaction that changes a store: what is to be written waits, and goes to the database in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from datastore_lab import dtypes
from datastore_lab.engines.sql import arrays as _arrays
from datastore_lab.engines.sql.arrays import Array
from datastore_lab.engines.sql.lookup import Lookup
from datastore_lab.engines.sql.nodes import Node, attributes_text, is_count, row_of, spill_block, store_seal
from datastore_lab.engines.sql.outgoing import Outgoing
from datastore_lab.engines.sql.parts import GROWING, PART, Block
from datastore_lab.engines.sql.removing import below, readable, remove_nodes
from datastore_lab.engines.sql.tables import ROOT, node, part, store
from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.integrity import BIRTH, birth
from datastore_lab.records import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Record

_UNSENT = 4 << 20
_ROWS = 1000
_KEPT = 20_000
_HELD = 16 << 20
_FEW = 10_000


class Change:
    """Changes of one store, from the lock on it to the commit.

    Nodes are kept once they were seen: nobody else can change them meanwhile.

    Parameters
    ----------
    connection : sqlalchemy.Connection
    number : int
        Of the store.
    url : str
        For messages.
    sound : dict of int to (int, int), optional
        Count and tally of nodes that were found to have all children, from one change to the next.

    Attributes
    ----------
    failed : BaseException or None
        What left the transaction half-changed, so that it can only be undone.
    undo : list of callable
        To be called if it is.
    """

    def __init__(
        self,
        connection: sa.Connection,
        number: int,
        url: str,
        sound: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        self._connection, self._number, self._url = connection, number, url
        self._lookup = Lookup(connection, number, url)
        self._nodes: dict[Key, Node | None] = {}
        self._dirty: dict[int, Node] = {}
        self._counted: dict[int, Node] = {}
        self._out = Outgoing(connection, number)
        self._unsent = self._held = 0
        self._sound = {} if sound is None else sound
        self._looked_at: set[int] = set()
        self._steps = 0
        self.undo: list[Callable[[], None]] = []
        self.failed: BaseException | None = None
        self._row = self._locked()

    def _locked(self) -> dict[str, Any]:
        """Wait until no other writer is at work, and see the store as the last one left it."""
        where = store.c.id == self._number
        row = self._connection.execute(sa.select(store).where(where).with_for_update()).mappings().first()
        if row is None:
            raise EngineError(f"the store {self._url} was removed from its database", key=self._url)
        if store_seal(row) != row["seal"] or not all(is_count(row[name]) for name in ("revision", "next")):
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
    def steps(self) -> int:
        """How many times something was changed so far."""
        return self._steps + self._out.steps

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
        self._held += sum(own.size for own in found.values())

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
        self._refuse_hidden(above, key)
        number = self.number()
        made = Node(number, above.id, number, key[-1])
        made.new = made.complete = True
        self._nodes[key] = self._changed(made)
        self._count(above, key[-1], 1)
        return made

    def _refuse_hidden(self, above: Node, key: Key) -> None:
        """Make sure that damage hides no node by the name of a new one: there would be two once it is mended.

        To look at all children takes long where they are many, so it is done once, and not again before
        somebody else has changed them.
        """
        if above.id in self._looked_at:
            return
        if not above.complete and self._sound.get(above.id) != (above.children, above.tally):
            self.flush()
            if not self._lookup.has_all_children(above):
                self._lookup.refuse_hidden(above.id, key)
                return
        self._looked_at.add(above.id)

    def number(self) -> int:
        """Give a number that no node or array of this store ever had."""
        self._row["next"] += 1
        return int(self._row["next"]) - 1

    def _count(self, above: Node, name: str, sign: int) -> None:
        if not type(above.children) is type(above.tally) is int:
            raise self._lookup.incomplete((above.name,) if above.name else ())
        above.count(name, sign)
        self._counted[above.id] = above
        self._steps += 1

    def _changed(self, own: Node) -> Node:
        self._dirty[own.id] = own
        self._unsent += own.size
        self._steps += 1
        if len(self._dirty) >= _ROWS or self._unsent >= _UNSENT:
            self.flush()
        return own

    # -- what the engine does -----------------------------------------------------------------------

    def put(self, key: Key, record: Record, data: Mapping[str, NDArray[Any]]) -> Node:
        """Write a record, or replace one."""
        meta = dict(record.meta)
        text = attributes_text(meta, key, self._url)
        self._held += len(text)
        if len(self._nodes) > _KEPT or self._held > _HELD:
            self._forget()
        own = self.make(key)
        self._drop(own)
        own.say(meta, text)
        own.kind, own.arrays = record.kind, {}
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
        merged = {**own.meta, **meta} if not drop else {**_without(own.meta, drop), **meta}
        text = attributes_text(merged, key, self._url)
        self._held += len(text)
        own.say(merged, text)
        self._changed(own)
        if self._held > _HELD:
            self._forget()

    def put_part(self, array: int, number: int, raw: bytes) -> None:
        """Add a part of an array."""
        self._out.put(array, number, raw)

    def replace_part(self, array: int, number: int, raw: bytes) -> None:
        """Write a part again."""
        self._out.replace(array, number, raw)

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
        self._refuse_hidden(above, new)
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
            for each in readable(self._lookup, level):
                self._drop(each)
            self._out.send_gone()
            beneath = list(below(self._lookup, key, level))
            remove_nodes(self._connection, self._number, level)
            self._steps += 1
            level = beneath

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
        """Write everything out, and look at it afresh: keys have changed, or what is known takes too much."""
        self.flush()
        self._nodes.clear()
        self._held = 0

    def _drop(self, own: Node) -> None:
        blocks = [block.id for array in own.arrays.values() for block in array.blocks]
        self._out.drop(blocks if own.spill is None else [own.spill, *blocks])
        own.spill = None

    # -- to the database ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that waits; if that fails, what waited is lost, and all can only be undone."""
        try:
            self._flush()
        except BaseException as error:
            self.failed = error
            raise

    def _flush(self) -> None:
        self._out.send_gone()
        self._unsent = 0
        changed, self._dirty = list(self._dirty.values()), {}
        rows = [(own, row_of(self._number, own, self._text(own))) for own in changed]
        new = [row for own, row in rows if own.new]
        if new:
            self._connection.execute(sa.insert(node), new)
        for own, row in rows:
            if not own.new:
                self._update(row)
            own.new = False
            self._counted[own.id] = own
        self._flush_counts({own.id for own in changed})
        self._out.send()

    def _flush_counts(self, sent: set[int]) -> None:
        counted, self._counted = self._counted, {}
        for own in counted.values():
            values = {"children": own.children, "tally": own.tally}
            if own.id not in sent:
                self._update({"store": self._number, "id": own.id, **values})
            if own.id in self._looked_at:
                self._sound[own.id] = own.children, own.tally

    def _update(self, row: dict[str, Any]) -> None:
        where = (node.c.store == row.pop("store")) & (node.c.id == row.pop("id"))
        self._connection.execute(sa.update(node).where(where).values(row))

    def _text(self, own: Node) -> str:
        """Give what the row holds of a record: its JSON, or the length of that where it lies in parts."""
        text = own.text()
        raw = text.encode("utf-8", "surrogatepass") if len(text) > PART // 4 else b""
        if own.spill is not None:
            self._out.drop([own.spill])
            self._out.send_gone()
            own.spill = None
        if len(raw) <= PART:
            return text
        own.spill = self.number()
        block: Block = spill_block(own.spill, len(raw))
        for number, piece in block.numbered(np.frombuffer(raw, np.uint8).reshape(-1, 1)):
            self.put_part(own.spill, number, piece.tobytes())
        return str(len(raw))

    def finish(self) -> None:
        """Count the commit; what follows is the database's own."""
        if self.failed is not None:
            raise EngineError(
                f"{self._url}: a change in this transaction failed, all of it is undone: {self.failed!r}",
                key=self._url,
            ) from self.failed
        self.flush()
        if not self.steps:
            return
        if len(self._sound) > _FEW:
            self._sound.clear()
        row = {**self._row, "revision": self._row["revision"] + 1}
        values = {"revision": row["revision"], "next": row["next"], "seal": store_seal(row)}
        self._connection.execute(sa.update(store).where(store.c.id == self._number).values(values))


def _without(meta: Mapping[str, Any], drop: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name not in drop}
