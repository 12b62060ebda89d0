"""Reading chunks of whole rows past HDF5: several are unpacked and summed at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5d

from datastore_lab import packing as packs
from datastore_lab.engines.hdf5 import filters, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from datastore_lab.records import ArrayInfo

AHEAD = 8
"""So many chunks are read before the first of them has to be unpacked."""

_LITTLE = 64 << 10
_SPARE = 1 << 20


class Chunks(NamedTuple):
    """The chunks of an array, each of which is some of its rows.

    Attributes
    ----------
    dataset : h5py.h5d.DatasetID
    filters : Filters
    each : int
        Rows in a chunk.
    read_at : callable
        Fills a buffer with the bytes of the file from an offset on; gives how many there were.
    """

    dataset: Any
    filters: filters.Filters
    each: int
    read_at: Callable[[memoryview, int], int]

    def load(self, parts: Mapping[int, NDArray[Any]]) -> Iterator[tuple[int, int | None]]:
        """Read chunks into arrays, by their numbers, and yield the sum of each; None if it can't be read."""
        begun: deque[tuple[int, Future[int] | None]] = deque()
        for number, rows in parts.items():
            if len(begun) == AHEAD:
                yield _ended(*begun.popleft())
            begun.append((number, self._begin(number * self.each, rows)))
        while begun:
            yield _ended(*begun.popleft())

    def _begin(self, first: int, rows: NDArray[Any]) -> Future[int] | None:
        """Begin to read the chunk whose first row is number `first`; None if the file has not got it."""
        found = self.dataset.get_chunk_info_by_coord((first, *(0 for _ in rows.shape[1:])))
        plain = found.filter_mask & self.filters.every == self.filters.every
        whole = rows.nbytes // len(rows) * self.each
        if not found.size:  # nothing but fill values, which the sum will tell
            packs.as_bytes(rows)[:] = 0
            return _summed(rows)
        if found.size > 2 * whole + _SPARE or (plain and found.size < rows.nbytes):
            return None
        raw = packs.as_bytes(rows).data if plain else memoryview(bytearray(found.size))
        if self.read_at(raw, found.byte_offset) < len(raw):
            return None
        return _summed(rows) if plain else packs.begin(self._unpack, raw, found.filter_mask, rows)

    def _unpack(self, raw: memoryview, mask: int, rows: NDArray[Any]) -> int:
        if len(rows) == self.each:
            filters.unpack(raw, self.filters, mask, rows)
        else:
            whole = np.empty((self.each, *rows.shape[1:]), rows.dtype)
            filters.unpack(raw, self.filters, mask, whole)
            packs.as_bytes(rows)[:] = packs.as_bytes(whole[: len(rows)])
        return sums.of(rows)


def chunks_of(
    dataset: Any, info: ArrayInfo, native: Any, read_at: Callable[[memoryview, int], int]
) -> Chunks | None:
    """Give the chunks of an array; None where HDF5 has to read them."""
    if info.chunks is None or native.hasobject or 0 in info.shape or info.chunks[1:] != info.shape[1:]:
        return None
    plist = dataset.get_create_plist()
    known = filters.known(plist) if plist.get_layout() == h5d.CHUNKED else None
    return None if known is None else Chunks(dataset, known, info.chunks[0], read_at)


def _summed(rows: NDArray[Any]) -> Future[int]:
    return packs.begin(sums.of, rows) if rows.nbytes > _LITTLE else packs.now(sums.of, rows)


def _ended(number: int, begun: Future[int] | None) -> tuple[int, int | None]:
    try:
        return number, None if begun is None else begun.result()
    except ValueError:  # what was packed is no more what it was
        return number, None
