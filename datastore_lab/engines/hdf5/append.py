"""Records that grow along axis 0, a commit at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from h5py import h5d, h5o, h5p, h5s, h5t

from datastore_lab import dtypes, integrity, media, packing
from datastore_lab.engines.hdf5 import (
    attrs,
    describe,
    dims,
    filters,
    layout,
    links,
    names,
    seals,
    space,
    sums,
    szip,
    types,
)
from datastore_lab.engines.hdf5.columns import Chunked, Loose, Written
from datastore_lab.errors import LabError, NotStorable
from datastore_lab.records import GROUP, ArrayInfo, Growth, Packing, Record, Stat, check_record, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.engine import HDF5Engine
    from datastore_lab.engines.hdf5.pages import PagedFile
    from datastore_lab.keys import Key

Column: TypeAlias = Chunked | Loose

_CHUNK = 1 << 20
_SMALLEST = 64 << 10
_WAITING = 8 << 20
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
    packings = {name: _packing(name, empty[name], info) for name, info in spec.arrays.items()}
    with engine._atomic():
        group = layout.make(root, key, engine.url, bare=True)
        birth = _put(group, spec, empty, named, packings)
        columns = {
            name: _column(name, array, packings[name], h5d.open(group, media.escape_link(name).encode()))
            for name, array in empty.items()
        }
    return HDF5Appender(engine, key, spec, columns, birth)


def _packing(name: str, empty: NDArray[Any], info: ArrayInfo) -> Packing:
    """Give how an array is to be packed, as far as that can be done."""
    if info.packing is None:
        return packing.PLAIN
    checked = packing.check(info.packing, filters.CAN, "HDF5")
    if checked.compression != "none" and empty.dtype.kind == "T":
        raise NotStorable(
            f"{name!r} is text of variable length, which HDF5 keeps apart from its chunks, where nothing is "
            "compressed; leave its packing out",
            key=name,
        )
    native, _attributes = types.carrier(empty.dtype)
    if checked.compression == "szip" and (native.kind not in szip.TYPES or native.itemsize not in szip.SIZES):
        raise NotStorable(
            f"szip packs numbers of 1, 2, 4 or 8 bytes, and {name!r} is {empty.dtype}; choose gzip for it",
            key=name,
        )
    return checked


def _column(name: str, array: NDArray[Any], packed: Packing, dataset: Any) -> Column:
    """Give what takes the rows of an array, which HDF5 writes by itself if nothing here can."""
    plist = dataset.get_create_plist()
    known, chunk = filters.known(plist), tuple(plist.get_chunk())
    if array.dtype.kind == "T" or 0 in array.shape[1:] or known is None:
        return Loose(name, array.dtype, chunk)
    return Chunked(name, array.dtype, chunk, packed, known.values)


def _put(
    group: Any,
    spec: Stat,
    empty: Mapping[str, NDArray[Any]],
    named: Mapping[str, tuple[str, ...]],
    packings: Mapping[str, Packing],
) -> str:
    for name, array in empty.items():
        dataset = _create(group, array, spec.meta.get("rate"), packings[name])
        h5o.link(dataset, group, media.escape_link(name).encode(), lcpl=links.LINK)
    attrs.put(group, names.KIND, spec.kind)
    layout.put_meta(group, spec.meta, empty)
    dims.put_dims(group, named, {name: array.shape for name, array in empty.items()}, growing=True)
    birth = integrity.birth()
    describe.seal(group, dict.fromkeys(empty), birth=birth)
    return birth


def _create(group: Any, array: NDArray[Any], rate: Any, packed: Packing) -> Any:
    native, attributes = types.carrier(array.dtype)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk(chunk_shape(array.shape, native.itemsize, rate, packed.chunk))
    if 0 not in array.shape[1:]:
        filters.declare(plist, packed, native.itemsize)
    extent = h5s.create_simple(array.shape, (h5s.UNLIMITED, *array.shape[1:]))
    dataset = h5d.create(group, None, h5t.py_create(native, logical=True), extent, plist)
    attrs.put_all(dataset, attributes)
    return dataset


def chunk_shape(shape: tuple[int, ...], itemsize: int, rate: Any, size: int | None = None) -> tuple[int, ...]:
    """Choose how many rows lie together: 1 MB, or one second if that is less, but 64 kB at least.

    With a `size` in bytes it is that, in whole rows.

    Examples
    --------
    >>> chunk_shape((0, 16), 8, 1000.0)
    (1000, 16)
    """
    inner = tuple(max(1, length) for length in shape[1:])
    row = max(1, itemsize)
    for length in inner:
        row *= length
    rows = max(1, (size or _CHUNK) // row)
    if size is None and isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < rows:
        rows = max(int(rate), _SMALLEST // row, 1)
    return (rows, *inner)


class HDF5Appender:
    """Rows wait in memory and are written, all arrays equally long, at each flush.

    Once 8 MB wait, or 4 MB that are packed, they are flushed without being asked. A flush that fails
    leaves the file as it was and keeps the rows, so that it can be tried again.
    """

    def __init__(
        self, engine: HDF5Engine, key: Key, spec: Stat, columns: Mapping[str, Column], birth: str
    ) -> None:
        self._engine, self._key = engine, key
        self._like = dict(spec.arrays)
        self._columns = dict(columns)
        self._step = _step(spec, self._columns)
        packed = any((info.packing or packing.PLAIN).compression != "none" for info in spec.arrays.values())
        self._most = _WAITING // 2 if packed else _WAITING  # packing itself takes memory, too
        self._rows = self._flushed = self._bytes = 0
        self._known = "", spec
        self.growth = Growth(key, engine.url)
        self.growth.mark = birth
        engine._when_undone(self.growth.undo)

    def extend(self, block: Mapping[str, NDArray[Any]]) -> None:
        """Take rows; they are copied."""
        self.growth.check()
        rows, count = dtypes.as_rows(self._key, block, self._like)
        own = {name: column.fit(rows[name]) for name, column in self._columns.items()}
        failed: LabError | None = None
        with self._engine._lock:
            for start, stop in self._parts(count):
                self._add({name: array[start:stop] for name, array in own.items()}, stop - start)
                if self._bytes > self._most and failed is None:
                    failed = self._try_to_flush()
        if failed is not None:
            raise failed

    def _parts(self, count: int) -> Iterator[tuple[int, int]]:
        """Cut rows where a chunk of the largest array ends, so that a flush there finds it whole."""
        start = 0
        while start < count:
            stop = min(count, start + self._step - self._rows % self._step)
            yield start, stop
            start = stop

    def _add(self, rows: Mapping[str, NDArray[Any]], count: int) -> None:
        for name, column in self._columns.items():
            column.add(rows[name])
        self._rows += count
        self._bytes += sum(array.nbytes for array in rows.values())

    def _try_to_flush(self) -> LabError | None:
        try:
            self.flush()
        except LabError as error:
            return error
        return None

    def flush(self) -> None:
        """Write what waits and commit it: durable on return."""
        with self._engine._guarded(self._key) as root:
            self.growth.check_standing()
            if self._rows == self._flushed:
                return
            node, stat = self._standing(root)
            with self._engine._atomic():
                stat, written = self._write(node, stat, self._engine._paged())
                space.note(root, sum(one.dead for one in written.values()))
            self._engine._when_undone(self.growth.undo)
            for name, column in self._columns.items():
                column.settle(written[name].state)
            self._known = seals.digest(stat), stat
            self._flushed, self._bytes = self._rows, 0

    def close(self, meta: Mapping[str, Any]) -> None:
        """Flush and add final attributes. May be called twice."""
        self.growth.check_standing()
        if self.growth.closed:
            return
        media.check_json(meta)
        self.flush()
        with self._engine._guarded(self._key) as root:
            node, _stat = self._standing(root)
            with self._engine._atomic():
                layout.put_meta(node, meta, self._like)
                describe.seal(node)
            self.growth.closed = True
            self._engine._when_undone(self.growth.undo)

    def _standing(self, root: Any) -> tuple[Any, Stat]:
        """Give the group of the record, which has to be the one that was begun, and its description."""
        node = links.find(root, self._key)
        if node is None:
            raise self.growth.gone()
        seal = seals.get(node, self._key)
        self.growth.check_place((seal and seal.birth) or "")
        if seal is not None and seal.digest == self._known[0]:  # nothing was changed since the last flush
            return node, self._known[1]
        stat = describe.checked(node, self._key, self._engine.url).stat
        if any(info.shape[0] != self._flushed for info in stat.arrays.values()):
            raise self.growth.replaced()
        return node, stat

    def _write(self, node: Any, stat: Stat, paged: PagedFile) -> tuple[Stat, dict[str, Written]]:
        """Add rows, their sums and the new seal."""
        written, infos = {}, {}
        for name, info in stat.arrays.items():
            dataset = h5d.open(node, media.escape_link(name).encode())
            written[name] = self._columns[name].write(dataset, paged)
            sums.put_some(dataset, written[name].sums)
            infos[name] = info._replace(shape=(self._rows, *info.shape[1:]))
        dims.grow(node, [info.dims for info in self._like.values()], self._rows)
        grown = stat._replace(arrays=infos)
        seals.put(node, grown, dict.fromkeys(infos), birth=str(self.growth.mark))
        return grown, written


def _step(spec: Stat, columns: Mapping[str, Column]) -> int:
    """Give the number of rows in a chunk of the array that has the largest rows."""
    sizes = {
        name: math.prod(info.shape[1:]) * dtypes.parse(info.dtype).itemsize
        for name, info in spec.arrays.items()
    }
    return columns[max(sizes, key=sizes.__getitem__)].each if sizes else 1
