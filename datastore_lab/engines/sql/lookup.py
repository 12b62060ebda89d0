"""The way from a key to its node: however deep it lies, one statement finds it, and its ancestors too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
import xxhash

from datastore_lab import media
from datastore_lab.engines.sql.arrays import Array
from datastore_lab.engines.sql.nodes import LONGEST, Node, is_bound, name_hash, seal, spill_block
from datastore_lab.engines.sql.parts import Reader
from datastore_lab.engines.sql.tables import ROOT, node, part
from datastore_lab.engines.sql.ways import NUMBERED, Row, way
from datastore_lab.errors import Corrupt, LabError
from datastore_lab.integrity import BIRTH, fingerprint
from datastore_lab.keys import Key, show
from datastore_lab.records import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

_ABOVE_ROOT = 0


class Described:
    """The node that was described last: what is described is mostly read next.

    Attributes
    ----------
    last : tuple of (dict, mapping) or None
        The columns of its row, and its arrays; replaced as one, so that threads may share it.
    """

    last: tuple[dict[str, Any], Mapping[str, Array]] | None = None


class Lookup:
    """Finds nodes of one store over one connection.

    Parameters
    ----------
    connection : sqlalchemy.Connection
    store : int
        Number of the store.
    url : str
        For messages.
    brief : bool, default False
        Whether there is no snapshot: then it is not asked why something is missing.
    """

    def __init__(self, connection: sa.Connection, store: int, url: str, *, brief: bool = False) -> None:
        self.connection, self.store, self.url, self._brief = connection, store, url, brief

    # -- rows ---------------------------------------------------------------------------------------

    def row(self, key: Key, *, ahead: bool = False) -> Any:
        """Give the row of a node; with the first part of what was probably written with it, if `ahead`.

        Raises
        ------
        NotFound
            If there is none, and nothing hides one.
        Corrupt
            If a name or place on the way is not as it was written.
        """
        if not key:
            return self.root()
        rows = self.follow(ROOT, key, ahead=ahead)
        if len(rows) < len(key):
            self._why_not(key, rows)
        return rows[-1]

    def follow(
        self, parent: int, key: Key, known: int = 0, *, whole: bool = False, ahead: bool = False
    ) -> list[Any]:
        """Give the rows on the way down to a node, as far as there are any.

        Parameters
        ----------
        parent : int
            Number of the node from which the way begins.
        key : Key
        known : int, default 0
            How many parts of the key lead to that node.
        whole : bool, default False
            Read the records on the way, rather than only the last one.
        ahead : bool, default False
            Read a small part of an array with them.
        """
        values: dict[str, Any] = {"store": self.store, "parent": parent}
        for depth, name in enumerate(key[known:]):
            values[f"hash{depth}"], values[f"name{depth}"] = name_hash(name), name.encode()
        return self._along(values, parent, key, known, whole=whole, ahead=ahead)

    def follow_from_root(self, key: Key) -> list[Any]:
        """Give the rows from the root down to a node, with their records, as far as there are any."""
        values: dict[str, Any] = {"store": self.store, "parent": _ABOVE_ROOT, "hash0": 0, "name0": b""}
        for depth, name in enumerate(key, 1):
            values[f"hash{depth}"], values[f"name{depth}"] = name_hash(name), name.encode()
        rows = self._along(values, _ABOVE_ROOT, key, -1, whole=True)
        if not rows:  # an index has lost the root
            rows = [self.root(), *(self.follow(ROOT, key, whole=True) if key else ())]
        return rows

    def _along(
        self,
        values: dict[str, Any],
        parent: int,
        key: Key,
        known: int,
        *,
        whole: bool = False,
        ahead: bool = False,
    ) -> list[Any]:
        steps = len(key) - known
        values["first"] = 0 if whole else steps - 1
        found = way(steps, ahead=ahead).rows(self.connection, values)
        if steps > 1:
            found.sort(key=_depth)
        rows: list[Any] = [Row(values[1:]) for values in found]
        for depth, row in enumerate(rows, known + 1):
            if row.id is None:
                raise self._unindexed(key[:depth])
            if row.id != ROOT:
                self._check_step(row, parent, key[:depth])
            parent = row.id
        return rows

    def _check_step(self, row: Any, parent: int, key: Key) -> None:
        way = row.id, row.parent, row.position
        if (
            not key
            or row.parent != parent
            or not is_bound(self.store, way, key[-1].encode(), row.kind, row.mark)
        ):
            raise self.misplaced(key)

    def root(self) -> Any:
        """Give the row of the root."""
        row = self.by_id(ROOT)
        if row is None:
            raise Corrupt(f"{self.url}: the root of the store is missing; restore it from a copy", key=())
        return row

    def by_id(self, number: int) -> Any | None:
        """Give the row of a node by its number."""
        found = NUMBERED.rows(self.connection, {"store": self.store, "number": number})
        return Row(found[0]) if found else None

    def numbered(self, number: int, key: Key) -> Any:
        """Give the row of a node that was listed under a key."""
        row = self.by_id(number)
        if row is None:
            raise self._unindexed(key)
        return row

    def _unindexed(self, key: Key) -> Corrupt:
        return Corrupt(
            f"{show(key)!r} in {self.url}: the index that finds it is damaged; store.repair() makes it anew",
            key=key,
        )

    def _why_not(self, key: Key, rows: list[Any]) -> NoReturn:
        """Make sure that nothing is hidden by damage where a key was not found."""
        missing = refusals.nothing_at(key, self.url)
        if self._brief:
            raise missing
        above = key[: len(rows)]
        row = rows[-1] if rows else self.root()
        where = (node.c.store == self.store) & (node.c.parent == row.id)
        same = sa.select(node).where(where & (node.c.hash == name_hash(key[len(rows)])))
        others: list[Any] = [Row(other) for other in self.connection.execute(same).all()]
        if any(not self.is_in_place(other) for other in others):
            raise self.misplaced(key[: len(rows) + 1])
        if any(other.name == key[len(rows)].encode() for other in others):
            raise self._unindexed(key[: len(rows) + 1])
        if not self.has_all_children(row):
            raise self.incomplete(above)
        raise missing

    def has_all_children(self, row: Any) -> bool:
        """Compare the children that a node has with those that it should have.

        They are counted in the index in which names are looked up: another one may hold what it has lost.
        """
        where = (node.c.store == self.store) & (node.c.parent == row.id) & (node.c.hash >= 0)
        count, tally = self.connection.execute(
            sa.select(sa.func.count(), sa.func.sum(node.c.hash)).where(where)
        ).one()
        return (count, int(tally or 0)) == (row.children, row.tally)

    def refuse_hidden(self, parent: int, key: Key) -> None:
        """Refuse a new node where one of its name lies already, which the damage of an index hides.

        Raises
        ------
        Corrupt
        """
        name, hashed = key[-1].encode(), name_hash(key[-1])
        own = (_scanned(node.c.store) == self.store) & (_scanned(node.c.parent) == parent)
        columns = sa.select(node).where(own & ((node.c.name == name) | (_scanned(node.c.hash) == hashed)))
        for row in self.connection.execute(columns).all():
            if row.name == name:
                raise self._unindexed(key)
            if not self.is_in_place(row):
                raise self.misplaced(key)

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
            text = self._record_text(row)
            made.size = len(text)
            kept = media.from_json(text)
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
        if block.nbytes > LONGEST:
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


def _depth(values: Any) -> int:
    return int(values[0])


def _thousands(wanted: Mapping[int, Any]) -> Iterable[list[int]]:
    hashes = list(wanted)
    for start in range(0, len(hashes), 500):
        yield hashes[start : start + 500]


def _scanned(column: Any) -> Any:
    """Give a column so that no index is asked for it: that may be what is damaged."""
    return column + sa.literal_column("0")
