"""Records that grow: rows wait in memory and become visible, all together, at a flush."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr.meta import CHECKSUM, METADATA, ArrayDoc, changed
from datastore_lab.engines.zarr.types import to_stored
from datastore_lab.errors import EngineError
from datastore_lab.keys import Key, show
from datastore_lab.records import Stat, check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.engine import ZarrEngine


class _Column:
    """One growing array: the rows of its last, partial chunk, and the hash of all rows."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        import xxhash

        self.dtype, self.shape = dtype, (0, *shape)
        self.tail: NDArray[Any] | None = None
        self.digest = xxhash.xxh3_128()

    def copy(self) -> _Column:
        twin = _Column(self.dtype, self.shape[1:])
        twin.tail, twin.digest = self.tail, self.digest.copy()
        return twin


class ZarrAppender:
    """A record of a Zarr store that grows along axis 0 of all its arrays.

    Made by `ZarrEngine.append`. A flush writes new chunks and, once more, the last partial one; older chunks
    are never touched.
    """

    def __init__(self, engine: ZarrEngine, key: Key, spec: Stat) -> None:
        self._engine, self._key = engine, key
        self._columns = {
            name: _Column(dtypes.parse(info.dtype), tuple(info.shape[1:]))
            for name, info in spec.arrays.items()
        }
        self._waiting: list[dict[str, NDArray[Any]]] = []
        self._length = 0
        self._closed = False

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        with self._engine._lock:
            if self._closed:
                raise EngineError(f"the stream {show(self._key)!r} is closed", key=self._key)
            arrays = {name: np.asarray(rows) for name, rows in block.items()}
            if check_rows(self._key, arrays, self._columns):
                self._waiting.append(
                    {name: dtypes.fit(arrays[name], c.dtype, name) for name, c in self._columns.items()}
                )

    def flush(self) -> None:
        engine = self._engine
        with engine._change():
            if not self._waiting:
                return
            if engine._streams.get(self._key) is not self:
                engine._tree.node(self._key)  # moved or deleted, if it is not there
                raise EngineError(
                    f"{show(self._key)!r} was replaced under the open stream; append to another key",
                    key=self._key,
                )
            columns, waiting, length = (
                {n: c.copy() for n, c in self._columns.items()},
                self._waiting,
                self._length,
            )
            engine._undo.append(lambda: self._restore(columns, waiting, length))
            self._waiting = []
            for name, column in self._columns.items():
                # with the type named: else numpy turns big-endian rows into native ones
                rows = np.concatenate([block[name] for block in waiting], dtype=column.dtype)
                self._grow(name, column, rows)
            self._length += sum(len(next(iter(block.values()))) for block in waiting)

    def _restore(
        self, columns: dict[str, _Column], waiting: list[dict[str, NDArray[Any]]], length: int
    ) -> None:
        self._columns, self._waiting, self._length = columns, [*waiting, *self._waiting], length
        self._closed = False

    def _grow(self, name: str, column: _Column, rows: NDArray[Any]) -> None:
        changes = self._engine._changes
        parts, raw, doc = self._own(name)
        media.add_checksum(column.digest, rows)
        stored = to_stored(rows, doc)
        block = stored if column.tail is None else np.concatenate([column.tail, stored], dtype=stored.dtype)
        size = doc.chunks[0]
        for chunk, piece in chunking.pieces(block, doc, first=self._length // size):
            changes.put_file((*parts, chunk), *chunking.pack(piece, doc.packing))
        column.tail = block[len(block) // size * size :].copy()
        shape = [self._length + len(rows), *doc.shape[1:]]
        changes.put_file((*parts, METADATA), changed(raw, shape=shape))

    def _own(self, name: str) -> tuple[tuple[str, ...], dict[str, Any], ArrayDoc]:
        """Find one of the record's arrays, and make sure that it is still the one that grows here."""
        tree = self._engine._tree
        node, folder, doc = tree.array_of(self._key, name)
        parts = (*node.parts, folder)
        if doc.shape[0] != self._length or CHECKSUM in doc.attributes:
            raise EngineError(
                f"{name!r} in {show(self._key)!r} was replaced under the open stream; append to another key",
                key=self._key,
            )
        return parts, tree.doc(parts) or {}, doc

    def close(self, meta: Mapping[str, Any]) -> None:
        engine = self._engine
        with engine._lock:
            if self._closed:
                return
            with engine._change():
                self.flush()
                engine.update(self._key, meta)
                for name, column in self._columns.items():
                    parts, raw, _ = self._own(name)
                    attributes = {**raw["attributes"], CHECKSUM: column.digest.hexdigest()}
                    engine._changes.put_file((*parts, METADATA), changed(raw, attributes=attributes))
                engine._undo.append(self._reopen)
            self._closed = True

    def _reopen(self) -> None:
        self._closed = False
