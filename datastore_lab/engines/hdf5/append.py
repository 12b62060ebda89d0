"""Records that grow along axis 0, a commit at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5d, h5o, h5p, h5s, h5t

from datastore_lab import dtypes, integrity, media
from datastore_lab.engines.hdf5 import (
    attrs,
    describe,
    dims,
    layout,
    links,
    names,
    payload,
    seals,
    sums,
    types,
)
from datastore_lab.records import GROUP, ArrayInfo, Growth, Record, Stat, check_record, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xxhash
    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.engine import HDF5Engine
    from datastore_lab.engines.hdf5.payload import Array
    from datastore_lab.keys import Key

_CHUNK = 1 << 20
_SMALLEST = 64 << 10
_WAITING = 16 << 20
"""Rows are written and committed without being asked once they take this many bytes."""


def begin(engine: HDF5Engine, root: Any, key: Key, spec: Stat) -> HDF5Appender:
    """Make the record, without rows."""
    empty = {
        name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype)) for name, info in spec.arrays.items()
    }
    named = {name: info.dims for name, info in spec.arrays.items()}
    check_record(Record(spec.kind, empty, spec.meta, named))
    media.check_json(spec.meta)
    node = links.find(root, key)
    if node is not None and describe.describe(node, key).stat.kind != GROUP:
        raise refusals.record_at(key, engine.url)
    layout.check_free(root, key, {*empty, *(dim for own in named.values() for dim in own)}, engine.url)
    with engine._atomic():
        birth = _put(layout.make(root, key, engine.url, bare=True), spec, empty, named)
    return HDF5Appender(engine, key, spec, birth)


def _put(
    group: Any, spec: Stat, empty: Mapping[str, NDArray[Any]], named: Mapping[str, tuple[str, ...]]
) -> str:
    for name, array in empty.items():
        dataset = _create(group, array, spec.meta.get("rate"))
        h5o.link(dataset, group, media.escape_link(name).encode(), lcpl=links.LINK)
    attrs.put(group, names.KIND, spec.kind)
    layout.put_meta(group, spec.meta, empty)
    dims.put_dims(group, named, {name: array.shape for name, array in empty.items()}, growing=True)
    birth = integrity.birth()
    describe.seal(group, dict.fromkeys(empty), birth=birth)
    return birth


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


class _Open(NamedTuple):
    """The sum of the last chunk of an array of so many rows, which goes on with the next rows."""

    rows: int
    state: xxhash.xxh3_64


class HDF5Appender:
    """Rows wait in memory and are written, all arrays equally long, at each flush.

    Once 16 MB wait, they are flushed without being asked. A flush that fails leaves the file as it was and
    keeps the rows, so that it can be tried again.
    """

    def __init__(self, engine: HDF5Engine, key: Key, spec: Stat, birth: str) -> None:
        self._engine, self._key = engine, key
        self._spec = {name: (dtypes.parse(info.dtype), info) for name, info in spec.arrays.items()}
        self._like = dict(spec.arrays)
        self._waiting: list[Mapping[str, NDArray[Any]]] = []
        self._bytes = 0
        self._open: dict[str, _Open] = {}
        self.growth = Growth(key, engine.url)
        self.growth.mark = birth
        engine._when_undone(self.growth.undo)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Take rows; they are copied."""
        self.growth.check()
        rows, _count = dtypes.as_rows(self._key, block, self._like)
        own = {name: dtypes.fit(rows[name], dtype, name) for name, (dtype, _info) in self._spec.items()}
        with self._engine._lock:
            self._waiting.append(own)
            self._bytes += sum(rows.nbytes for rows in own.values())
            if self._bytes > _WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what waits and commit it: durable on return."""
        with self._engine._guarded(self._key) as root:
            self.growth.check_standing()
            if not self._waiting:
                return
            node, found = self._standing(root)
            joined = {
                name: np.concatenate(
                    [block[name] for block in self._waiting], dtype=dtype
                )  # else native bytes
                for name, (dtype, _) in self._spec.items()
            }
            with self._engine._atomic():
                opened = self._write(node, found, joined)
            self._engine._when_undone(self.growth.undo)
            self._open = opened
            self._waiting.clear()
            self._bytes = 0

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush and add final attributes. May be called twice."""
        self.growth.check_standing()
        if self.growth.closed:
            return
        media.check_json(meta)
        self.flush()
        with self._engine._guarded(self._key) as root:
            node, _found = self._standing(root)
            with self._engine._atomic():
                layout.put_meta(node, meta, self._spec)
                describe.seal(node)
            self.growth.closed = True
            self._engine._when_undone(self.growth.undo)

    def _standing(self, root: Any) -> tuple[Any, describe.Node]:
        """Give the group of the record, which has to be the one that was begun, and its description."""
        node = links.find(root, self._key)
        if node is None:
            raise self.growth.gone()
        found = describe.checked(node, self._key, self._engine.url)
        self.growth.check_place((found.seal and found.seal.birth) or "")
        return node, found

    def _write(self, node: Any, found: describe.Node, joined: Mapping[str, NDArray[Any]]) -> dict[str, _Open]:
        """Add rows, their sums and the new seal."""
        count = len(next(iter(joined.values()), ()))
        opened, infos = {}, dict(found.stat.arrays)
        for name, rows in joined.items():
            array = found.arrays[name]
            native = types.plain(array.native)
            data = np.ascontiguousarray(types.convert(rows, self._spec[name][0], native))
            opened[name] = self._sum(name, array, data)
            _extend(array, data)
            shape = (array.info.shape[0] + count, *rows.shape[1:])
            infos[name] = array.info._replace(shape=shape)
        dims.grow(node, [info.dims for info in self._like.values()], _longest(infos))
        birth = found.seal and found.seal.birth
        seals.put(node, found.stat._replace(arrays=infos), dict.fromkeys(found.arrays), birth=birth)
        return opened

    def _sum(self, name: str, array: Array, data: NDArray[Any]) -> _Open:
        """Set the sums of the chunks that rows go to; gives that of the last, to go on with."""
        start, each = array.info.shape[0], array.info.chunks[0]  # type: ignore[index]
        found: dict[int, int] = {}
        opened = self._opened(name, array)
        while len(data):
            part = data[: each - start % each]
            if start % each == 0:
                opened = _Open(start, sums.state())
            sums.add(opened.state, part)
            found[start // each] = opened.state.intdigest()
            start, data = start + len(part), data[len(part) :]
        sums.put_some(array.dataset, found)
        return _Open(start, opened.state)

    def _opened(self, name: str, array: Array) -> _Open:
        """Give the sum of the last chunk so far, by itself or, if a flush was undone, from the file."""
        opened, rows = self._open.get(name), array.info.shape[0]
        if opened is not None and opened.rows == rows:
            return _Open(rows, opened.state.copy())
        each = array.info.chunks[0]  # type: ignore[index]
        begin = rows - rows % each
        if begin == rows:
            return _Open(rows, sums.state())
        source = self._engine._source()
        return _Open(rows, sums.state(payload.stored(array, name, begin // each, self._key, source)))


def _extend(array: Array, data: NDArray[Any]) -> None:
    start = array.info.shape[0]
    array.dataset.set_extent((start + len(data), *data.shape[1:]))
    if data.size:
        space = array.dataset.get_space()
        space.select_hyperslab((start, *(0 for _ in data.shape[1:])), data.shape)
        array.dataset.write(h5s.create_simple(data.shape), space, data, types.memory_type(array.native))


def _longest(infos: Mapping[str, ArrayInfo]) -> int:
    return max((info.shape[0] for info in infos.values()), default=0)
