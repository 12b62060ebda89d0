"""Arrays that grow: rows become chunks, which are summed and packed in threads before HDF5 sees them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5s

from datastore_lab import dtypes
from datastore_lab import packing as packs
from datastore_lab.engines.hdf5 import filters, sums, types

if TYPE_CHECKING:
    from concurrent.futures import Future

    import xxhash
    from numpy.typing import NDArray

    from datastore_lab.engines.hdf5.pages import PagedFile
    from datastore_lab.records import Packing

_NUMBERS = "biufc"
_FIRST_SPARE, _SPARE = 1.1, 1.02
"""By how much more room is kept for a chunk that is still to fill up than it should take."""

_LEAST_SPARE, _MOST_SPARE = 64, 100


class Written(NamedTuple):
    """What writing the rows of an array has changed.

    Attributes
    ----------
    sums : dict of int to int
        Of the chunks that were written.
    state : object
        What the column has to remember once this is committed.
    dead : int
        Bytes of the file that are not in use any more.
    """

    sums: dict[int, int]
    state: Any
    dead: int = 0


class _Chunk(NamedTuple):
    sum: int
    packed: Any


class Chunked:
    """One growing array that is written chunk by chunk.

    A chunk that is not full at a flush is written too. If it is compressed the room that it will take is kept
    for it, so that it can stay at its place until it is full; if not, later rows are put behind those that it
    has, where no reader looks yet, and nothing needs to be kept of what was there.

    Parameters
    ----------
    name : str
    dtype : dtype
        As declared.
    chunk : tuple of int
        Shape of a chunk, in rows and their own shape.
    packing : Packing
    values : tuple of int
        What HDF5 keeps of the compression.
    """

    def __init__(
        self,
        name: str,
        dtype: np.dtype[Any],
        chunk: tuple[int, ...],
        packing: Packing,
        values: tuple[int, ...] = (),
    ) -> None:
        self.each, self.rows, self.flushed = chunk[0], 0, 0
        self._name, self._dtype, self._native = name, dtype, types.plain(types.carrier(dtype)[0])
        self._is_plain = dtype == self._native and dtype.kind in _NUMBERS
        self._shape, self._packing, self._values = chunk, packing, values
        self._tail: NDArray[Any] | None = None
        self._ready: dict[int, Future[_Chunk]] = {}
        self._running: deque[Future[_Chunk]] = deque()
        self._buffers: deque[NDArray[Any]] = deque()
        self._slot = self._usual = 0

    def fit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Give rows as they lie in the file; they may still be the caller's."""
        own = rows if rows.dtype == self._dtype else dtypes.fit(rows, self._dtype, self._name)
        if self._is_plain:
            return own
        return types.convert(np.ascontiguousarray(own), self._dtype, self._native)

    def add(self, rows: NDArray[Any]) -> None:
        """Copy rows; chunks that are full are summed and packed from now on."""
        while len(rows):
            at = self.rows % self.each
            if self._tail is None:
                self._tail = self._buffer()
            count = min(len(rows), self.each - at)
            _copy(rows[:count], self._tail[at : at + count])
            self.rows += count
            rows = rows[count:]
            if at + count == self.each:
                self._ready[self.rows // self.each - 1] = self._begin(self._tail)
                self._tail = None

    def _begin(self, whole: NDArray[Any]) -> Future[_Chunk]:
        """Begin to pack a chunk, when not too many are waiting for that: each takes memory."""
        if len(self._running) >= packs.AHEAD:
            self._running.popleft().exception()
        self._running.append(packs.begin(self._pack, whole))
        return self._running[-1]

    def write(self, dataset: Any, paged: PagedFile) -> Written:
        """Bring the file up to date with what was added."""
        dataset.set_extent((self.rows, *self._shape[1:]))
        if self._packing.compression == "none":
            return self._write_plain(dataset, paged)
        return self._write_packed(dataset)

    def settle(self, state: Any) -> None:
        """Note that what was written is committed."""
        if self._packing.compression == "none":
            self._buffers.extend(chunk.result().packed for chunk in self._ready.values())
        self._ready.clear()
        self._running.clear()
        self._slot, self._usual = state
        self.flushed = self.rows

    def _write_plain(self, dataset: Any, paged: PagedFile) -> Written:
        found = {}
        paged.reserve(sum(chunk.result().packed.nbytes for chunk in self._ready.values()))
        for number, chunk in self._ready.items():
            found[number], whole = chunk.result()
            self._put_plain(dataset, paged, number, whole)
        if self._tail is not None and self.rows > self.flushed:
            found[self.rows // self.each] = self._sum_tail(self._tail)
            self._put_plain(dataset, paged, self.rows // self.each, self._tail)
        return Written(found, (0, 0))

    def _put_plain(self, dataset: Any, paged: PagedFile, number: int, rows: NDArray[Any]) -> None:
        """Write a chunk, or of one that is in the file the rows that are not."""
        first = number * self.each
        if self.flushed <= first:
            dataset.write_direct_chunk(self._place(first), rows)
            return
        begin, end = self.flushed - first, min(self.rows - first, self.each)
        at = dataset.get_chunk_info_by_coord(self._place(first)).byte_offset
        row = rows.nbytes // self.each
        paged.fill(packs.as_bytes(rows[begin:end]).data, at + begin * row)

    def _write_packed(self, dataset: Any) -> Written:
        found, slot, usual, dead = {}, self._slot, self._usual, 0
        for number, chunk in self._ready.items():
            found[number], packed = chunk.result()
            usual = len(packed)
            if slot and not filters.fits(packed, self._packing.compression, slot):
                dead, slot = dead + slot, 0
            self._put_packed(dataset, number, packed, slot or usual)
            slot = 0
        if self._tail is not None and self.rows > self.flushed:
            found[self.rows // self.each], packed = self._sum_tail(self._tail), self._packed(self._tail)
            if not slot or not filters.fits(packed, self._packing.compression, slot):
                dead, slot = dead + slot, self._room(len(packed), usual)
            self._put_packed(dataset, self.rows // self.each, packed, slot)
        return Written(found, (slot, usual), dead)

    def _put_packed(self, dataset: Any, number: int, packed: Any, size: int) -> None:
        raw = filters.padded(packed, self._packing.compression, size)
        dataset.write_direct_chunk(self._place(number * self.each), raw)

    def _room(self, size: int, usual: int) -> int:
        """Guess what a chunk will take when it is full."""
        share = self.each / (self.rows % self.each)
        guess = usual * _SPARE if usual >= size else size * min(share * _FIRST_SPARE, _MOST_SPARE)
        return int(guess) + _LEAST_SPARE

    def _place(self, row: int) -> tuple[int, ...]:
        return (row, *(0 for _ in self._shape[1:]))

    def _sum_tail(self, tail: NDArray[Any]) -> int:
        """Sum the rows of the chunk that is not full; the rest of it is made zeros."""
        count = self.rows % self.each
        packs.as_bytes(tail[count:])[:] = 0
        return sums.of(tail[:count])

    def _pack(self, whole: NDArray[Any]) -> _Chunk:
        chunk = _Chunk(sums.of(whole), self._packed(whole))
        if chunk.packed is not whole:
            self._buffers.append(whole)
        return chunk

    def _packed(self, chunk: NDArray[Any]) -> Any:
        return (
            chunk if self._packing.compression == "none" else filters.pack(chunk, self._packing, self._values)
        )

    def _buffer(self) -> NDArray[Any]:
        """Give room for a chunk, if possible some that was used before: new memory is slow."""
        try:
            return self._buffers.popleft()
        except IndexError:
            return np.zeros(self._shape, self._native)


def _copy(rows: NDArray[Any], to: NDArray[Any]) -> None:
    """Copy rows, with the padding of structures, which numpy's own copy leaves out."""
    if rows.dtype.kind in _NUMBERS:
        to[...] = rows
    else:
        packs.as_bytes(to)[:] = packs.as_bytes(np.ascontiguousarray(rows))


class Loose:
    """One growing array that HDF5 writes by itself: text of variable length, and rows without any bytes."""

    def __init__(self, name: str, dtype: np.dtype[Any], chunk: tuple[int, ...]) -> None:
        self.each, self.rows, self.flushed = chunk[0], 0, 0
        self._name, self._dtype, self._native = name, dtype, types.plain(types.carrier(dtype)[0])
        self._waiting: list[NDArray[Any]] = []
        self._opened: xxhash.xxh3_64 = sums.state()

    def fit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Give rows of exactly the declared type, of their own."""
        return dtypes.fit(rows, self._dtype, self._name)

    def add(self, rows: NDArray[Any]) -> None:
        """Keep rows."""
        self._waiting.append(rows)
        self.rows += len(rows)

    def write(self, dataset: Any, paged: PagedFile) -> Written:
        """Bring the file up to date with what was added."""
        data = self._joined()
        dataset.set_extent((self.rows, *data.shape[1:]))
        if data.size:
            space = dataset.get_space()
            space.select_hyperslab((self.flushed, *(0 for _ in data.shape[1:])), data.shape)
            memory = types.memory_type(self._native)
            dataset.write(h5s.create_simple(data.shape), space, data, memory)
        return self._sum(data)

    def settle(self, state: Any) -> None:
        """Note that what was written is committed."""
        self._opened, self.flushed = state, self.rows
        self._waiting.clear()

    def _joined(self) -> NDArray[Any]:
        rows = np.concatenate(self._waiting, dtype=self._dtype)  # (else native bytes)
        return np.ascontiguousarray(types.convert(rows, self._dtype, self._native))

    def _sum(self, data: NDArray[Any]) -> Written:
        start, opened = self.flushed, self._opened.copy()
        found: dict[int, int] = {}
        while len(data):
            part = data[: self.each - start % self.each]
            if start % self.each == 0:
                opened = sums.state()
            sums.add(opened, part)
            found[start // self.each] = opened.intdigest()
            start, data = start + len(part), data[len(part) :]
        return Written(found, opened)
