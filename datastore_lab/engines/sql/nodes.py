"""Nodes: their rows, what binds a row to its place, and the way from a key to its row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import xxhash

from datastore_lab import media
from datastore_lab.engines.sql.arrays import Array
from datastore_lab.engines.sql.parts import PART, Block, Reader, signed
from datastore_lab.engines.sql.queries import Query
from datastore_lab.engines.sql.tables import ROOT, node, part
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.integrity import BIRTH, fingerprint
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, Stat

if TYPE_CHECKING:
    import numpy as np

_JOINED = 12
_LONGEST = 1 << 28


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


class Described:
    """The node that was described last: what is described is mostly read next.

    Attributes
    ----------
    last : tuple of (dict, mapping) or None
        The columns of its row, and its arrays; replaced as one, so that threads may share it.
    """

    last: tuple[dict[str, Any], Mapping[str, Array]] | None = None


class Lookup:
    """Finds nodes of one store over one connection."""

    def __init__(self, connection: sa.Connection, store: int, url: str) -> None:
        self.connection, self.store, self.url = connection, store, url

    # -- rows ---------------------------------------------------------------------------------------

    def row(self, key: Key) -> Any:
        """Give the row of a node.

        Raises
        ------
        NotFound
            If there is none, and nothing hides one.
        Corrupt
            If a name or place on the way is not as it was written.
        """
        found = self.below(ROOT, (), key)
        return found if found is not None else self._why_not(key)

    def below(self, parent: int, above: Key, path: Key) -> Any | None:
        """Follow names down from a node; None where there is no such path."""
        if not path:
            return self.root() if parent == ROOT else self.by_id(parent)
        for start in range(0, len(path), _JOINED):
            steps = path[start : start + _JOINED]
            rows = self._follow(parent, steps, last=start + _JOINED >= len(path))
            if rows is None:
                return None
            self._check_way(rows, parent, steps, (*above, *path[:start]))
            parent = rows[-1]["id"]
        return rows[-1]["row"] if rows else None

    def root(self) -> Any:
        """Give the row of the root."""
        row = self.by_id(ROOT)
        if row is None:
            raise Corrupt(f"{self.url}: the root of the store is missing; restore it from a copy", key=())
        return row

    def by_id(self, number: int) -> Any | None:
        """Give the row of a node by its number."""
        found = _NUMBERED.rows(self.connection, {"store": self.store, "number": number})
        return _Row(found[0]) if found else None

    def numbered(self, number: int, key: Key) -> Any:
        """Give the row of a node that was listed under a key."""
        row = self.by_id(number)
        if row is None:
            raise Corrupt(f"{show(key)!r} in {self.url}: the index that finds it is damaged", key=key)
        return row

    def _follow(self, parent: int, steps: Key, *, last: bool) -> list[dict[str, Any]] | None:
        statement, width = _path(len(steps), last=last)
        values: dict[str, Any] = {"store": self.store, "parent": parent}
        for depth, name in enumerate(steps):
            values[f"hash{depth}"], values[f"name{depth}"] = name_hash(name), name.encode()
        found = statement.rows(self.connection, values)
        if not found:
            return None
        row = found[0]
        ways = [row[5 * depth : 5 * depth + 5] for depth in range(len(steps))]
        rows = [dict(zip(("id", "parent", "position", "mark", "kind"), way, strict=True)) for way in ways]
        rows[-1]["row"] = _Row(row[width:]) if last else None
        return rows

    def _check_way(self, rows: list[dict[str, Any]], parent: int, steps: Key, above: Key) -> None:
        for depth, (name, row) in enumerate(zip(steps, rows, strict=True)):
            way = row["id"], row["parent"], row["position"]
            bound = is_bound(self.store, way, name.encode(), row["kind"], row["mark"])
            if not bound or row["parent"] != parent:
                raise self.misplaced((*above, *steps[: depth + 1]))
            parent = row["id"]

    def _why_not(self, key: Key) -> Any:
        """Make sure that nothing is hidden by damage where a key was not found."""
        row: Any = self.root()
        for depth, name in enumerate(key):
            where = (node.c.store == self.store) & (node.c.parent == row.id)
            rows = self.connection.execute(sa.select(node).where(where & (node.c.hash == name_hash(name))))
            same, candidates = None, list[Any](map(_Row, rows.all()))
            for candidate in candidates:
                if not self.is_in_place(candidate):
                    raise self.misplaced(key[: depth + 1])
                same = candidate if candidate.name == name.encode() else same
            if same is None:
                self.check_tally(row, key[:depth])
                raise NotFound(f"there is nothing at {show(key)!r} in {self.url}", key=key)
            row = same
        return row

    def check_tally(self, row: Any, key: Key) -> None:
        """Compare the children that a node has with those that it should have."""
        where = (node.c.store == self.store) & (node.c.parent == row.id)
        count, tally = self.connection.execute(
            sa.select(sa.func.count(), sa.func.sum(node.c.hash)).where(where)
        ).one()
        if (count, int(tally or 0)) != (row.children, row.tally):
            raise self.incomplete(key)

    # -- checks -------------------------------------------------------------------------------------

    def is_in_place(self, row: Any) -> bool:
        """Say whether name and place of a row are as they were written."""
        hashed = 0 if row.id == ROOT else xxhash.xxh32_intdigest(row.name) or 1
        bound = is_bound(self.store, (row.id, row.parent, row.position), row.name, row.kind, row.mark)
        return bool(bound and row.hash == hashed)

    def misplaced(self, key: Key) -> Corrupt:
        """Make the error for a node whose name or place is damaged."""
        return Corrupt(
            f"{show(key)!r} in {self.url}: its name or place is not as it was written; store.verify() lists "
            "what is damaged, store.repair() mends what it can",
            key=key,
        )

    def incomplete(self, key: Key) -> Corrupt:
        """Make the error for a node some of whose children are lost or renamed."""
        return Corrupt(
            f"{show(key)!r} in {self.url}: the nodes below it are not those that were written: one may be "
            "lost or renamed by damage; store.verify() and store.repair() tell more",
            key=key,
        )

    # -- nodes --------------------------------------------------------------------------------------

    def node(self, key: Key, described: Described | None = None) -> Node:
        """Find a node and read its record; take down what it declares, if somebody wants to know."""
        row = self.row(key)
        own = self.load(row, key)
        if described is not None:
            described.last = row.__dict__, own.arrays
        return own

    def arrays(self, key: Key, described: Described) -> Mapping[str, Array]:
        """Give what is declared about arrays, read anew unless the row is the one that was described last."""
        row, last = self.row(key), described.last
        if last is None or last[0] != row.__dict__:
            last = described.last = row.__dict__, self.load(row, key).arrays
        return last[1]

    def fingerprint(self, key: Key) -> str:
        """Give what tells the data of a node from other data; see `Engine.fingerprint`.

        No two arrays of a database ever have one number; another database in its place may have the same
        ones, and is told by the sum of the first part of each array, as there is no end of parts.
        """
        own = self.node(key)
        if BIRTH in own.meta or not own.arrays:
            return fingerprint(own.stat, {}, own.meta.get(BIRTH))
        ids = {name: [block.id for block in array.blocks] for name, array in own.arrays.items()}
        found: dict[int, int] = {}
        for some in _thousands(dict.fromkeys(number for numbers in ids.values() for number in numbers)):
            where = (part.c.store == self.store) & part.c.array.in_(some) & (part.c.number == 0)
            found.update(self.connection.execute(sa.select(part.c.array, part.c.sum).where(where)).all())
        sums = {name: [(number, found.get(number)) for number in numbers] for name, numbers in ids.items()}
        return fingerprint(own.stat, sums)

    def load(self, row: Any, key: Key, *, sealed: bool = True) -> Node:
        """Read a record from its row, checked against its seal.

        Raises
        ------
        Corrupt
        """
        kind, spill = row.kind, row.spill
        typed = type(row.record) is str and (spill is None or type(spill) is int)
        if not typed or (sealed and seal(self.store, row.id, kind, row.record, spill) != row.seal):
            raise self._unsealed(key)
        made = Node(row.id, row.parent, row.position, row.name.decode("utf-8", "replace"))
        made.children, made.tally, made.spill = row.children, row.tally, spill
        made.complete = (row.children, row.tally) == (0, 0)
        try:
            kept = media.from_json(self._record_text(row))
            made.kind = kind.decode()
            made.arrays = {each["name"]: Array.from_json(each) for each in kept["arrays"]}
            made.meta = dict(kept["meta"])
        except (LabError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise self._unsealed(key) from error
        return made

    def _record_text(self, row: Any) -> str | bytes:
        if row.spill is None:
            return str(row.record)
        block = spill_block(row.spill, int(row.record))
        if block.nbytes > _LONGEST:
            raise ValueError(block.nbytes)
        reader = Reader(self.connection, self.store)
        data: np.ndarray[Any, Any] = reader.select(block, [slice(0, block.nbytes)])
        return data.tobytes()

    def _unsealed(self, key: Key) -> Corrupt:
        return Corrupt(
            f"{show(key)!r} in {self.url}: its description (type, dimensions or attributes) is not as it was "
            "written; store.record() and store[...] refuse it. If another program changed it on purpose, "
            "store.repair(key, accept=True) takes it as it is; else restore it from a copy",
            key=key,
        )

    def taken(self, own: Node, names: Iterable[str]) -> str | None:
        """Give a child of a node that has one of these names."""
        if not own.children:
            return None
        wanted = {name_hash(name): name for name in names}
        for some in _thousands(wanted):
            where = (node.c.store == self.store) & (node.c.parent == own.id) & node.c.hash.in_(some)
            for row in self.connection.execute(sa.select(node.c.name).where(where)):
                if (name := bytes(row.name).decode("utf-8", "replace")) in set(names):
                    return name
        return None


def spill_block(number: int, size: int) -> Block:
    """Give the block of a record that is too long for its row."""
    return Block(number, (size, 1), PART)


def _thousands(wanted: Mapping[int, Any]) -> Iterable[list[int]]:
    hashes = list(wanted)
    for start in range(0, len(hashes), 500):
        yield hashes[start : start + 500]


class _Row:
    """A row by the names of its columns."""

    def __init__(self, values: Any) -> None:
        self.__dict__.update(zip(node.c.keys(), values, strict=True))


_paths: dict[tuple[int, bool], tuple[Query, int]] = {}


def _path(depth: int, *, last: bool) -> tuple[Query, int]:
    """Give the statement that follows so many names, and how many columns say the way."""
    if (depth, last) not in _paths:
        _paths[depth, last] = _make_path(depth, last=last), 5 * depth
    return _paths[depth, last]


def _make_path(depth: int, *, last: bool) -> Query:
    steps = [node.alias(f"n{number}") for number in range(depth)]
    columns = [column for n in steps for column in (n.c.id, n.c.parent, n.c.position, n.c.mark, n.c.kind)]
    statement = sa.select(*columns, *(steps[-1].c if last else ()))
    above: Any = sa.bindparam("parent", type_=sa.BigInteger)
    for number, step in enumerate(steps):
        statement = statement.where(
            step.c.store == sa.bindparam("store", type_=sa.Integer),
            step.c.parent == above,
            step.c.hash == sa.bindparam(f"hash{number}", type_=sa.BigInteger),
            step.c.name == sa.bindparam(f"name{number}", type_=sa.LargeBinary),
        )
        above = step.c.id
    return Query(statement)


_NUMBERED = Query(
    sa.select(node).where(
        node.c.store == sa.bindparam("store", type_=sa.Integer),
        node.c.id == sa.bindparam("number", type_=sa.BigInteger),
    )
)
