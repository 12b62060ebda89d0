"""Records that grow: rows wait in memory and become visible, all together, at a flush."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.meta import SUMS, ArrayDoc
from datastore_lab.engines.zarr.seals import pack_sums
from datastore_lab.engines.zarr.types import to_stored
from datastore_lab.errors import NotFound
from datastore_lab.records import Growth, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.engine import ZarrEngine
    from datastore_lab.engines.zarr.tree import Node
    from datastore_lab.keys import Key


class _Column:
    """One growing array: the rows of its last, partial chunk, and the sums of all its chunks."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], sums: str) -> None:
        self.dtype, self.shape, self.sums = dtype, (0, *shape), sums
        self.tail: NDArray[Any] | None = None

    def copy(self) -> _Column:
        twin = _Column(self.dtype, self.shape[1:], self.sums)
        twin.tail = self.tail
        return twin


class ZarrAppender:
    """A record of a Zarr store that grows along axis 0 of all its arrays.

    Made by `ZarrEngine.append`. A flush writes new chunks and, once more, the last partial one; older chunks
    are never touched.
    """

    def __init__(self, engine: ZarrEngine, key: Key, spec: Stat) -> None:
        self._engine, self._key = engine, key
        self._columns = {
            name: _Column(dtypes.parse(info.dtype), tuple(info.shape[1:]), "")
            for name, info in spec.arrays.items()
        }
        self._waiting: list[dict[str, NDArray[Any]]] = []
        self._length = 0
        self.growth = Growth(key, engine.url)
        self.growth.mark = self._mark()

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._engine._session.lock:
            self.growth.check()
            arrays, count = dtypes.as_rows(self._key, block, self._columns)
            if count:
                self._waiting.append(
                    {name: dtypes.fit(arrays[name], c.dtype, name) for name, c in self._columns.items()}
                )

    def flush(self) -> None:
        session = self._engine._session
        with session.lock:
            with session.change():
                self.growth.check_standing()
                self._write()
            session.when_undone(self.growth.undo)

    def _write(self) -> None:
        """Stage the rows that wait."""
        engine, waiting = self._engine, self._waiting
        if not waiting:
            return
        self.growth.check_place(self._mark())
        columns, length = {n: c.copy() for n, c in self._columns.items()}, self._length
        engine._session.undo.append(lambda: self._restore(columns, waiting, length))
        self._waiting = []
        node = engine._tree.node(self._key)
        documents = {name: self._grow(name, node, waiting) for name in self._columns}
        node = engine._changes.put_arrays(node, documents)
        engine._changes.put_doc(node, node.attributes)
        self._length += sum(len(next(iter(block.values()))) for block in waiting)

    def _restore(
        self, columns: dict[str, _Column], waiting: list[dict[str, NDArray[Any]]], length: int
    ) -> None:
        self._columns, self._waiting, self._length = columns, [*waiting, *self._waiting], length
        self.growth.closed = False

    def _grow(self, name: str, node: Node, waiting: list[dict[str, NDArray[Any]]]) -> dict[str, Any]:
        """Stage the chunks of new rows; gives the array's new metadata."""
        column, changes = self._columns[name], self._engine._changes
        folder, doc = self._own(name, node)
        # with the type named: else numpy turns big-endian rows into native ones
        rows = np.concatenate([block[name] for block in waiting], dtype=column.dtype)
        stored = to_stored(rows, doc)
        block = stored if column.tail is None else np.concatenate([column.tail, stored], dtype=stored.dtype)
        size = doc.chunks[0]
        whole = self._length // size * math.prod(doc.grid[1:])  # chunks that stay as they are
        sums = doc.sums()[:whole].tolist()
        for chunk, piece in chunking.pieces(block, doc, first=self._length // size):
            buffers = chunking.pack(piece, doc.packing)
            sums.append(chunking.sum_of(doc.packing, buffers))
            changes.put_file((*node.parts, folder, chunk), *buffers)
        column.tail = block[len(block) // size * size :].copy()
        grown = doc._replace(shape=(self._length + len(rows), *doc.shape[1:]))
        column.sums = pack_sums(sums)
        return grown.with_sums(sums).document()

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
