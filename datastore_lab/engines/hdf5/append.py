"""Records that grow along axis 0, a commit at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from h5py import h5d, h5o, h5p, h5s, h5t

from datastore_lab import dtypes, media
from datastore_lab.engines.hdf5 import attrs, dims, layout, links, types
from datastore_lab.errors import AlreadyExists, EngineError, NotFound
from datastore_lab.keys import Key, show
from datastore_lab.records import GROUP, Record, Stat, check_record, check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.engine import HDF5Engine

_CHUNK = 1 << 20
_SMALLEST = 64 << 10
_WAITING = 16 << 20
"""Rows are written and committed without being asked once they take this many bytes."""


def begin(engine: HDF5Engine, root: Any, key: Key, spec: Stat) -> None:
    """Make the record, without rows."""
    empty = {
        name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype)) for name, info in spec.arrays.items()
    }
    named = {name: info.dims for name, info in spec.arrays.items()}
    check_record(Record(spec.kind, empty, spec.meta, named))
    media.check_json(spec.meta)
    node = links.find(root, key)
    if node is not None and layout.stat(node).kind != GROUP:
        raise AlreadyExists(f"there is a record at {show(key)!r} already", key=key)
    layout.check_free(root, key, {*empty, *(dim for own in named.values() for dim in own)})
    with engine._atomic():
        _put(layout.make(root, key), spec, empty, named)


def _put(
    group: Any, spec: Stat, empty: Mapping[str, NDArray[Any]], named: Mapping[str, tuple[str, ...]]
) -> None:
    for name, array in empty.items():
        dataset = _create(group, array, spec.meta.get("rate"))
        h5o.link(dataset, group, media.escape_link(name).encode(), lcpl=links.LINK)
    attrs.put(group, layout.KIND, spec.kind)
    layout.put_meta(group, spec.meta, empty)
    dims.put_dims(group, named, {name: array.shape for name, array in empty.items()}, growing=True)


def _create(group: Any, array: NDArray[Any], rate: Any) -> Any:
    native, attributes = types.carrier(array.dtype)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk(chunk_shape(array.shape, native.itemsize, rate))
    space = h5s.create_simple(array.shape, (h5s.UNLIMITED, *array.shape[1:]))
    dataset = h5d.create(group, None, h5t.py_create(native, logical=True), space, plist)
    attrs.put_all(dataset, attributes)
    return dataset


def chunk_shape(shape: tuple[int, ...], itemsize: int, rate: Any) -> tuple[int, ...]:
    """Choose how many rows lie together: 1 MB, or one second if that is less, but 64 kB at least.

    Examples
    --------
    >>> chunk_shape((0, 16), 8, 1000.0)
    (1000, 16)
    """
    inner = tuple(max(1, size) for size in shape[1:])
    row = max(1, itemsize)
    for size in inner:
        row *= size
    rows = max(1, _CHUNK // row)
    if isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < rows:
        rows = max(int(rate), _SMALLEST // row, 1)
    return (rows, *inner)


class HDF5Appender:
    """Rows wait in memory and are written, all arrays equally long, at each flush.

    Once 16 MB wait, they are flushed without being asked. A flush that fails leaves the file as it was and
    keeps the rows, so that it can be tried again.
    """

    def __init__(self, engine: HDF5Engine, key: Key, spec: Stat) -> None:
        self._engine, self._key = engine, key
        self._spec = {name: (dtypes.parse(info.dtype), info) for name, info in spec.arrays.items()}
        self._like = dict(spec.arrays)
        self._waiting: list[Mapping[str, NDArray[Any]]] = []
        self._bytes = 0
        self._hashed = 0
        self._hashes = {name: xxhash.xxh3_128() for name in self._spec}
        self._closed = False

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Take rows; they are copied."""
        if self._closed:
            raise EngineError(f"the stream {show(self._key)!r} is closed", key=self._key)
        check_rows(self._key, block, self._like)
        own = {name: dtypes.fit(rows, self._spec[name][0], name) for name, rows in block.items()}
        with self._engine._lock:
            self._waiting.append(own)
            self._bytes += sum(rows.nbytes for rows in own.values())
            if self._bytes > _WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what waits and commit it: durable on return."""
        with self._engine._changing(self._key) as root:
            if not self._waiting:
                return
            node = links.find(root, self._key)
            if node is None:
                raise NotFound(f"the stream {show(self._key)!r} is gone from the store", key=self._key)
            if self._engine._streams.get(self._key) is not self:
                raise EngineError(
                    f"{show(self._key)!r} was replaced under the open stream; append to another key",
                    key=self._key,
                )
            joined = {
                name: np.concatenate(
                    [block[name] for block in self._waiting], dtype=dtype
                )  # else native bytes
                for name, (dtype, _) in self._spec.items()
            }
            with self._engine._atomic():
                start = self._write(node, joined)
            self._hash(start, joined)
            self._waiting.clear()
            self._bytes = 0

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush, add final attributes and checksums. May be called twice."""
        if self._closed:
            return
        media.check_json(meta)
        self.flush()
        with self._engine._changing(self._key) as root:
            node = links.find(root, self._key)
            if node is not None:
                with self._engine._atomic():
                    layout.put_meta(node, meta, self._spec)
                    self._seal(node)
        self._closed = True

    def _write(self, node: Any, joined: Mapping[str, NDArray[Any]]) -> int:
        count = len(next(iter(joined.values()), ()))
        start = 0
        for name, rows in joined.items():
            dataset = h5d.open(node, links.link_of(node, name))
            start = int(dataset.shape[0])
            dataset.set_extent((start + count, *rows.shape[1:]))
            data = np.ascontiguousarray(types.convert(rows, self._spec[name][0], types.plain(dataset.dtype)))
            if data.size:
                space = dataset.get_space()
                space.select_hyperslab((start, *(0 for _ in rows.shape[1:])), rows.shape)
                dataset.write(h5s.create_simple(rows.shape), space, data, types.memory_type(dataset.dtype))
        dims.grow(node, [info.dims for info in self._like.values()], start + count)
        return start

    def _hash(self, start: int, joined: Mapping[str, NDArray[Any]]) -> None:
        if start != self._hashed:  # a transaction around an earlier flush was undone
            return
        for name, rows in joined.items():
            media.add_checksum(self._hashes[name], rows)
        self._hashed += len(next(iter(joined.values()), ()))

    def _seal(self, node: Any) -> None:
        for name in self._spec:
            dataset = h5d.open(node, links.link_of(node, name))
            if dataset.shape[0] == self._hashed:
                attrs.put(dataset, layout.CHECKSUM, self._hashes[name].hexdigest())
