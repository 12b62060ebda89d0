"""Reading array data block by block, each held against its sum.

Where the bytes of an array lie in one piece they are read from the file itself, past HDF5, in whole blocks;
chunks and text of variable length are read through HDF5, in whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5d, h5s

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import direct, filters, sums, texts, types
from datastore_lab.errors import Corrupt, Foreign
from datastore_lab.keys import Key, show
from datastore_lab.records import ArrayInfo, Selection, normalise_selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUSPICIOUS = 256 << 20
_BATCH = 8 << 20
"""How much is read at a time where a selection is spread over far more than it takes, in bytes."""


class Source(NamedTuple):
    """The file around a dataset: its address for messages, its length, and its bytes."""

    url: str
    size: int
    read_at: Callable[[memoryview, int], int]


class Array(NamedTuple):
    """A dataset that is an array of a node, with what reading it takes.

    Attributes
    ----------
    dataset : h5py.h5d.DatasetID
    info : ArrayInfo
    native : dtype
        As h5py gives it.
    layout : int
        That of HDF5.
    declared : dict
        The attributes by which the original type is restored.
    sum : str or None
        The sum of an array of one block, where the seal holds it.
    own : bool
        Whether sums have to be there.
    place : bytes or int or None
        The data itself, or where it lies in the file, where that is known without a dataset.
    """

    dataset: Any
    info: ArrayInfo
    native: np.dtype[Any]
    layout: int
    declared: dict[str, Any]
    sum: str | None = None
    own: bool = False
    place: bytes | int | None = None


class Box(NamedTuple):
    """A selection as the start, count and step of a forward read, and how to flip and reshape it."""

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    steps: tuple[int, ...]
    flips: tuple[slice, ...]
    final: tuple[int, ...]


def read(array: Array, name: str, selection: Selection, key: Key, source: Source) -> NDArray[Any]:
    """Read a part of an array, as a new array of its original type.

    Raises
    ------
    Corrupt
        If a block that the part touches is not as it was written.
    Foreign
        If a small file declares a huge array.
    """
    if isinstance(array.place, bytes) and _is_whole(selection, array.info.shape):
        return _whole(array, array.place, name, key, source)
    box = _box(normalise_selection(selection, array.info.shape))
    data = _Reading(array, name, key, source).box(box) if array.own else _plain(array, box, key, source)
    turned: Any = (*box.flips, ...)
    return types.restore(_compact(data[turned]).reshape(box.final), array.declared)


def _is_whole(selection: Selection, shape: tuple[int, ...]) -> bool:
    return len(selection) <= len(shape) and all(
        isinstance(one, slice) and one.step is None and not one.start and one.stop in {None, size}
        for one, size in zip(selection, shape, strict=False)
    )


def _whole(array: Array, place: bytes, name: str, key: Key, source: Source) -> NDArray[Any]:
    """Give all of a small array that lay in its header."""
    native, shape = types.plain(array.native), array.info.shape
    if not array.sum or integrity.block_sum(place) != int(array.sum, 16):
        raise integrity.damaged(key, name, "all of it", source.url)
    data = np.frombuffer(bytearray(place), native).reshape(shape)
    return types.restore(data, array.declared)


def damage(array: Array, name: str, key: Key, source: Source) -> Iterator[str]:
    """Read all of an array and yield what is wrong with it, block by block."""
    if not array.own:
        yield from _unreadable(array, key, source)
        return
    reading = _Reading(array, name, key, source)
    try:
        reading.check_whole()
    except Foreign as error:
        yield str(error)
        return
    if reading.missing():
        yield "it has no checksums"
        return
    for block in range(reading.blocks.total):
        try:
            reading.load(block, block + 1)
        except (Corrupt, OSError, RuntimeError, ValueError) as error:
            yield f"{reading.where(block)} is not as it was written ({error})"


def make_sums(array: Array, name: str, key: Key, source: Source) -> list[int]:
    """Read all of an array and give the sums of its blocks as they are."""
    reading = _Reading(array, name, key, source)
    reading.check_whole()
    return [sums.of(reading.load_unchecked(block, block + 1)) for block in range(reading.blocks.total)]


def stored(array: Array, name: str, block: int, key: Key, source: Source) -> NDArray[Any]:
    """Read one block as it is stored, checked."""
    return _Reading(array, name, key, source).load(block, block + 1)


def _unreadable(array: Array, key: Key, source: Source) -> Iterator[str]:
    """Try to read what has no sums, a few rows at a time."""
    rows = array.info.shape[0] if array.info.shape else 1
    step = max(1, _BATCH * rows // max(1, array.info.nbytes)) if rows else 1
    for start in range(0, rows, step):
        part = (slice(start, start + step),) if array.info.shape else ()
        try:
            _plain(array, _box(normalise_selection(part, array.info.shape)), key, source)
        except (Corrupt, Foreign, OSError, RuntimeError, ValueError, TypeError) as error:
            yield f"can't be read: {error}"
            return


class _Reading:
    """An array of this package, to be read in whole blocks."""

    def __init__(self, array: Array, name: str, key: Key, source: Source) -> None:
        self._array, self._name, self._key, self._source = array, name, key, source
        self._native = types.plain(array.native)
        self._shape = array.info.shape
        self.blocks = sums.cut(self._shape, self._native, array.info.chunks)
        self._offset = _offset(array)
        _check_size(array, self._stored(self.blocks.units), key, source)

    def check_whole(self) -> None:
        """Refuse to go over chunks that a small file only declares, block by block."""
        if self._array.layout == h5d.CHUNKED:
            _check_declared(self._array.dataset, self._stored(self.blocks.units), self._key)

    def missing(self) -> bool:
        """Whether any sum is missing."""
        return len(self._sums(0, self.blocks.total)) < self.blocks.total

    def where(self, block: int) -> str:
        """Name a block."""
        first, last = block * self.blocks.each, min((block + 1) * self.blocks.each, self.blocks.units) - 1
        return f"{'row' if self.blocks.rows else 'item'}s {first} to {last}"

    def box(self, box: Box) -> NDArray[Any]:
        """Read a box by way of the blocks that it touches."""
        if 0 in box.counts or not self.blocks.total:
            return np.empty(box.counts, self._native)
        first, last = self._hull(box)
        wanted = math.prod(box.counts) * self._native.itemsize
        spread = (last - first) * self._unit() > max(_BATCH, 4 * wanted)
        axis = next((axis for axis, count in enumerate(box.counts) if count > 1), None)
        if spread and axis is not None and (axis == 0 or not self.blocks.rows):
            return self._in_parts(box, axis)
        begin, end = first // self.blocks.each, (last - 1) // self.blocks.each + 1
        return self._extract(self.load(begin, end), begin * self.blocks.each, box)

    def load(self, begin: int, end: int) -> NDArray[Any]:
        """Read blocks and check them."""
        return self._load(begin, end, self._sums(begin, end))

    def load_unchecked(self, begin: int, end: int) -> NDArray[Any]:
        """Read blocks as they are."""
        return self._load(begin, end, None)

    def _load(self, begin: int, end: int, expected: dict[int, int] | None) -> NDArray[Any]:
        first, last = begin * self.blocks.each, min(end * self.blocks.each, self.blocks.units)
        shape = (last - first, *self._shape[1:]) if self.blocks.rows and self._shape else (last - first,)
        if self._array.layout == h5d.CHUNKED:
            _check_declared(self._array.dataset, self._stored(last - first), self._key)
        data: NDArray[Any] = np.empty(shape, self._native)
        starts = {block: block * self.blocks.each - first for block in range(begin, end)}
        parts = {block: data[at : at + self.blocks.each] for block, at in starts.items()}
        for block, found in self._filled(parts):
            if found is None or (expected is not None and found != expected.get(block)):
                raise integrity.damaged(self._key, self._name, self.where(block), self._source.url)
        return data

    def _filled(self, parts: Mapping[int, NDArray[Any]]) -> Iterator[tuple[int, int | None]]:
        """Fill blocks and yield the sum of each, None where it can't be read; of chunks several at a time."""
        chunks = direct.chunks_of(self._array.dataset, self._array.info, self._native, self._source.read_at)
        if chunks is not None:
            yield from chunks.load(parts)
            return
        for block, part in parts.items():
            self._fill(part, block * self.blocks.each)
            yield block, sums.of(part)

    def _fill(self, part: NDArray[Any], first: int) -> None:
        if isinstance(self._array.place, bytes):
            part.view(np.uint8)[:] = np.frombuffer(self._array.place, np.uint8)
            return
        if self._offset is not None and not self.blocks.rows:
            view = part.view(np.uint8).data
            if self._source.read_at(view, self._offset + first * self._native.itemsize) < len(view):
                raise integrity.damaged(
                    self._key, self._name, f"what begins at item {first}", self._source.url
                )
            return
        space, dataset = h5s.ALL, self._array.dataset
        ends = (first + len(part), *self._shape[1:]) if self._shape else ()
        texts.check(self._array, (first, *(0 for _ in self._shape[1:])), ends, self._key, self._source)
        memory = h5s.ALL
        if self.blocks.rows and self._shape:
            space = dataset.get_space()
            space.select_hyperslab((first, *(0 for _ in self._shape[1:])), part.shape)
            memory = h5s.create_simple(part.shape)
        dataset.read(memory, space, part, types.memory_type(self._array.native))

    def _sums(self, begin: int, end: int) -> dict[int, int]:
        if self._array.sum is None:
            return sums.get(self._array.dataset, range(begin, end))
        return {0: int(self._array.sum, 16)} if self._array.sum else {}

    def _unit(self) -> int:
        return self._stored(1)

    def _stored(self, units: int) -> int:
        inner = math.prod(self._shape[1:]) if self.blocks.rows else 1
        return units * inner * self._native.itemsize

    def _hull(self, box: Box) -> tuple[int, int]:
        """Give the first unit that a box touches, and the one after the last."""
        ends = [start + (count - 1) * step for start, count, step in zip(*box[:3], strict=True)]
        if self.blocks.rows:
            return (box.starts[0], ends[0] + 1) if self._shape else (0, 1)
        return self._index(box.starts), self._index(ends) + 1

    def _index(self, at: Any) -> int:
        index = 0
        for position, size in zip(at, self._shape, strict=True):
            index = index * size + position
        return index

    def _in_parts(self, box: Box, axis: int) -> NDArray[Any]:
        """Read a box that is spread over much more than it takes, so that blocks are few at a time."""
        data: NDArray[Any] = np.empty(box.counts, self._native)
        apart = (
            box.steps[axis] * self._unit() * (1 if self.blocks.rows else math.prod(self._shape[axis + 1 :]))
        )
        most = 1 if apart > integrity.BLOCK else max(1, _BATCH // apart)
        many = min(most, box.counts[axis] - 1)
        for at in range(0, box.counts[axis], many):
            count = min(many, box.counts[axis] - at)
            part = box._replace(
                starts=_with(box.starts, axis, box.starts[axis] + at * box.steps[axis]),
                counts=_with(box.counts, axis, count),
            )
            data[(*(slice(None),) * axis, slice(at, at + count))] = self.box(part)
        return data

    def _extract(self, data: NDArray[Any], first: int, box: Box) -> NDArray[Any]:
        """Take a box out of consecutive units that begin with number `first`."""
        if not self._shape:
            return data.reshape(())
        if self.blocks.rows:
            inside = (box.starts[0] - first, *box.starts[1:])
            ends = [
                start + (count - 1) * step + 1 for start, count, step in zip(inside, *box[1:3], strict=True)
            ]
            return _own(data[tuple(map(slice, inside, ends, box.steps))])
        if data.size == math.prod(self._shape):
            ends = [start + (count - 1) * step + 1 for start, count, step in zip(*box[:3], strict=True)]
            return _own(data.reshape(self._shape)[tuple(map(slice, box.starts, ends, box.steps))])
        inner = np.cumprod((1, *self._shape[:0:-1]))[::-1] * self._native.itemsize
        strides = tuple(int(size) * step for size, step in zip(inner, box.steps, strict=True))
        start = data[self._index(box.starts) - first :]
        return _own(np.lib.stride_tricks.as_strided(start, box.counts, strides))


def _offset(array: Array) -> int | None:
    if array.layout != h5d.CONTIGUOUS:
        return None
    return array.place if isinstance(array.place, int) else array.dataset.get_offset()


def _with(values: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return (*values[:axis], value, *values[axis + 1 :])


def _own(part: NDArray[Any]) -> NDArray[Any]:
    """Copy a part out of what was read for it, unless that is little more."""
    base = part.base
    if base is None or (
        part.flags.c_contiguous and isinstance(base, np.ndarray) and base.nbytes <= 1.25 * part.nbytes
    ):
        return part
    return _copy(part)


def _plain(array: Array, box: Box, key: Key, source: Source) -> NDArray[Any]:
    """Read a box of another program's array, and nothing but that."""
    native = types.plain(array.native)
    _check_declared(array.dataset, math.prod(box.counts) * native.itemsize, key)
    data: NDArray[Any] = np.empty(box.counts, native)
    if data.size:
        ends = [s + (n - 1) * step + 1 for s, n, step in zip(*box[:3], strict=True)]
        texts.check(array, box.starts, tuple(ends), key, source)
        space = array.dataset.get_space()
        if box.counts:
            space.select_hyperslab(*box[:3])
        memory = h5s.create_simple(box.counts) if box.counts else h5s.create(h5s.SCALAR)
        array.dataset.read(memory, space, data, types.memory_type(array.native))
    return data


def _compact(data: NDArray[Any]) -> NDArray[Any]:
    return data if data.flags.c_contiguous else _copy(data)


def _copy(data: NDArray[Any]) -> NDArray[Any]:
    """Copy byte by byte: numpy's own copy leaves out the padding of structures."""
    if data.dtype.hasobject:
        return data.copy()
    return data.view(f"V{data.dtype.itemsize}").copy().view(data.dtype)


def _box(wanted: Selection) -> Box:
    """Turn a selection into a forward read."""
    starts, counts, steps, flips, final = [], [], [], [], []
    for index in wanted:
        if not isinstance(index, slice):
            starts.append(index)
            counts.append(1)
            steps.append(1)
            flips.append(slice(None))
            continue
        stop = -1 if index.stop is None else index.stop
        covered = range(index.start, stop, index.step)
        starts.append(min(covered[0], covered[-1]) if covered else 0)
        counts.append(len(covered))
        steps.append(abs(index.step))
        flips.append(slice(None, None, -1 if index.step < 0 else 1))
        final.append(len(covered))
    return Box(tuple(starts), tuple(counts), tuple(steps), tuple(flips), tuple(final))


def _check_size(array: Array, stored: int, key: Key, source: Source) -> None:
    """Hold what one of our arrays declares against the file, before memory is asked for."""
    if array.layout != h5d.CHUNKED and stored > source.size:
        raise Corrupt(
            f"an array of {show(key)!r} would take {stored} bytes, but {source.url} has {source.size}; "
            "restore it from a copy",
            key=key,
        )


def _check_declared(dataset: Any, nbytes: int, key: Key) -> None:
    """Refuse a small file that declares a huge array, before memory is asked for."""
    if nbytes > _SUSPICIOUS and nbytes > filters.most(dataset.get_create_plist()) * (
        dataset.get_storage_size() + 1
    ):
        raise Foreign(
            f"an array of {show(key)!r} would take {nbytes} bytes, of which the file holds "
            f"{dataset.get_storage_size()}; read it in parts",
            key=key,
        )
