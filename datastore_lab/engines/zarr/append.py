"""Records that grow: rows wait in memory and become visible, all together, at a flush."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab import dtypes
from datastore_lab.engines.zarr.columns import Column, Plain, Sharded, Taken
from datastore_lab.engines.zarr.meta import SUMS, ArrayDoc
from datastore_lab.errors import LabError, NotFound
from datastore_lab.records import Growth, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.engine import ZarrEngine
    from datastore_lab.engines.zarr.tree import Node
    from datastore_lab.keys import Key

_WAITING = 8 << 20
"""Rows of which some go into shards are written without being asked once they take about so many bytes."""


class ZarrAppender:
    """A record of a Zarr store that grows along axis 0 of all its arrays.

    Made by `ZarrEngine.append`. A flush writes new files and, once more, the last partial one; older files
    are never touched. Where there are shards, about 8 MB of rows are flushed without being asked, at the end
    of a shard of the array with the largest rows.
    """

    def __init__(self, engine: ZarrEngine, key: Key, spec: Stat) -> None:
        self._engine, self._key = engine, key
        node = engine._tree.node(key)
        folders = engine._tree.array_names(node)
        docs = {name: engine._tree.array(node, name, folders[name]) for name in spec.arrays}
        self._columns: dict[str, Column] = {
            name: _column(name, dtypes.parse(info.dtype), tuple(info.shape[1:]), docs[name])
            for name, info in spec.arrays.items()
        }
        self._step = _step(docs)
        self._length = self._taken = self._bytes = 0
        self.growth = Growth(key, engine.url)
        self.growth.mark = self._mark()

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._engine._session.lock:
            self.growth.check()
            arrays, count = dtypes.as_rows(self._key, block, self._columns)
            own = {name: column.fit(arrays[name]) for name, column in self._columns.items()}
            failed: LabError | None = None
            for start, stop in self._parts(count):
                self._add({name: rows[start:stop] for name, rows in own.items()}, stop - start)
                if self._step and self._taken % self._step == 0 and self._bytes >= _WAITING // 2:
                    failed = failed or self._try_to_flush()
            if failed is not None:
                raise failed

    def _parts(self, count: int) -> Iterator[tuple[int, int]]:
        """Cut rows where a shard ends, so that a flush there finds it whole."""
        start = 0
        while start < count:
            left = self._step - self._taken % self._step if self._step else count
            yield start, min(count, start + left)
            start += left

    def _add(self, rows: Mapping[str, NDArray[Any]], count: int) -> None:
        for name, column in self._columns.items():
            column.add(rows[name])
        self._taken += count
        self._bytes += sum(array.nbytes for array in rows.values())

    def _try_to_flush(self) -> LabError | None:
        try:
            self.flush()
        except LabError as error:
            return error
        return None

    def flush(self) -> None:
        session = self._engine._session
        with session.lock:
            with session.change():
                self.growth.check_standing()
                self._write()
            session.when_undone(self.growth.undo)

    def _write(self) -> None:
        """Stage the rows that wait."""
        engine = self._engine
        if self._taken == self._length:
            return
        self.growth.check_place(self._mark())
        taken, length, waiting = {n: c.take() for n, c in self._columns.items()}, self._length, self._bytes
        engine._session.undo.append(lambda: self._restore(taken, length, waiting))
        node = engine._tree.node(self._key)
        documents = {name: self._grow(name, node, one) for name, one in taken.items()}
        node = engine._changes.put_arrays(node, documents)
        engine._changes.put_doc(node, node.attributes)
        self._length, self._bytes = self._taken, 0

    def _restore(self, taken: dict[str, Taken], length: int, waiting: int) -> None:
        for name, one in taken.items():
            self._columns[name].restore(one)
        self._length, self._bytes = length, self._bytes + waiting
        self.growth.closed = False

    def _grow(self, name: str, node: Node, taken: Taken) -> dict[str, Any]:
        """Stage the files of new rows; gives the array's new metadata."""
        folder, doc = self._own(name, node)

        def put(file: str, *buffers: Any) -> None:
            self._engine._changes.put_file((*node.parts, folder, file), *buffers)

        return self._columns[name].stage(taken, doc, self._length, put).document()

    def _own(self, name: str, node: Node) -> tuple[str, ArrayDoc]:
        """Find one of the record's arrays, and make sure that it is still the one that grows here."""
        tree = self._engine._tree
        folder = tree.array_names(node).get(name)
        doc = None if folder is None else tree.array(node, name, folder)
        sums = self._columns[name].sums
        if folder is None or doc is None or (doc.shape[0], doc.attributes[SUMS]) != (self._length, sums):
            raise self.growth.replaced()
        return folder, doc

    def close(self, meta: Mapping[str, Any]) -> None:
        session = self._engine._session
        with session.lock:
            self.growth.check_standing()
            if self.growth.closed:
                return
            with session.change():
                self.growth.check_place(self._mark())
                self._write()
                self._engine.update(self._key, meta)
                session.undo.append(self._reopen)
            self.growth.closed = True
            session.when_undone(self.growth.undo)

    def _mark(self) -> str | None:
        with contextlib.suppress(NotFound):
            return self._engine._tree.fingerprint(self._key)
        return None

    def _reopen(self) -> None:
        self.growth.closed = False


def _column(name: str, dtype: Any, shape: tuple[int, ...], doc: ArrayDoc) -> Column:
    if doc.shard is None or 0 in doc.shape[1:]:
        return Plain(name, dtype, shape)
    return Sharded(name, dtype, shape, doc)


def _step(docs: Mapping[str, ArrayDoc]) -> int:
    """Give the number of rows in a shard of the array that has the largest rows; 0 without any."""
    sizes = {
        name: math.prod(doc.shape[1:]) * doc.stored.itemsize
        for name, doc in docs.items()
        if doc.shard is not None
    }
    return docs[max(sizes, key=sizes.__getitem__)].chunks[0] if sizes else 0
