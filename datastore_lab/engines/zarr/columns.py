"""Arrays that grow: their rows become chunks, in files of their own or several in a shard."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from datastore_lab import dtypes
from datastore_lab import packing as packs
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr import shards
from datastore_lab.engines.zarr.seals import pack_sums
from datastore_lab.engines.zarr.types import to_stored

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.meta import ArrayDoc
    from datastore_lab.engines.zarr.shards import Shard

Put: TypeAlias = Callable[..., None]
"""Called as ``put(name, *buffers)`` for each file."""


class Taken(NamedTuple):
    """What waited in a column, and how the column was before: its sums, and what it held of the last file."""

    sums: str
    waiting: list[Any]
    rest: Any


class Plain:
    """A growing array whose chunks are files.

    Attributes
    ----------
    dtype, shape
        As declared.
    sums : str
        Of all its files, as they stand in its metadata.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape, self.sums = name, dtype, (0, *shape), ""
        self._waiting: list[NDArray[Any]] = []
        self._tail: NDArray[Any] | None = None  # the rows of the last, partial chunk

    def fit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Give rows of exactly the declared type, of their own."""
        return dtypes.fit(rows, self.dtype, self.name)

    def add(self, rows: NDArray[Any]) -> None:
        """Keep rows."""
        self._waiting.append(rows)

    def stage(self, taken: Taken, doc: ArrayDoc, length: int, put: Put) -> ArrayDoc:
        """Write the files that change when the rows that were taken follow the first `length` ones."""
        # with the type named: else numpy turns big-endian rows into native ones
        rows = np.concatenate(taken.waiting, dtype=self.dtype)
        stored = to_stored(rows, doc)
        block = stored if self._tail is None else np.concatenate([self._tail, stored], dtype=stored.dtype)
        size = doc.chunks[0]
        sums = _unchanged(doc, length)
        for chunk, piece in chunking.pieces(block, doc, first=length // size):
            buffers = chunking.pack(piece, doc.packing)
            sums.append(chunking.sum_of(doc.packing, buffers))
            put(chunk, *buffers)
        self._tail = block[len(block) // size * size :].copy()
        self.sums = pack_sums(sums)
        return doc._replace(shape=(length + len(rows), *doc.shape[1:])).with_sums(sums)

    def take(self) -> Taken:
        """Give what waits, and what is to be put back if it can't be written."""
        waiting, self._waiting = self._waiting, []
        return Taken(self.sums, waiting, self._tail)

    def restore(self, taken: Taken) -> None:
        """Go back to what was before something was taken; rows that came since still wait."""
        self.sums, self._tail = taken.sums, taken.rest
        self._waiting = [*taken.waiting, *self._waiting]


class Sharded:
    """A growing array whose chunks are packed in threads, as soon as they are full, and share files.

    Of a shard that is not full its packed chunks are kept, as its file is written again at every flush.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], doc: ArrayDoc) -> None:
        self.name, self.dtype, self.shape, self.sums = name, dtype, (0, *shape), ""
        self._doc, self._shard = doc, _shard_of(doc)
        self._count = doc.chunks[0] // self._shard.rows
        self._rows = 0
        self._tail: NDArray[Any] | None = None
        self._begun: list[Future[bytes]] = []
        self._kept: list[bytes] = []
        self._buffers: deque[NDArray[Any]] = deque()

    def fit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Give rows of the declared type; they may still be the caller's."""
        return rows if rows.dtype == self.dtype else dtypes.fit(rows, self.dtype, self.name)

    def add(self, rows: NDArray[Any]) -> None:
        """Copy rows; chunks that are full are packed from now on."""
        rows = to_stored(rows, self._doc)
        while len(rows):
            at = self._rows % self._shard.rows
            if self._tail is None:
                self._tail = self._buffer()
            count = min(len(rows), self._shard.rows - at)
            packs.as_bytes(self._tail[at : at + count])[:] = packs.as_bytes(rows[:count])
            self._rows += count
            rows = rows[count:]
            if at + count == self._shard.rows:
                if len(self._begun) >= packs.AHEAD:  # each takes memory
                    self._begun[-packs.AHEAD].exception()
                self._begun.append(packs.begin(self._pack, self._tail))
                self._tail = None

    def stage(self, taken: Taken, doc: ArrayDoc, length: int, put: Put) -> ArrayDoc:
        """Write the files that change when the rows that were taken follow the first `length` ones."""
        whole = [*self._kept, *(chunk.result() for chunk in taken.waiting)]
        chunks = [*whole, *self._packed_tail()]
        sums = _unchanged(doc, length)
        first = length // doc.chunks[0]
        for number, at in enumerate(range(0, len(chunks), self._count)):
            buffers = shards.joined(chunks[at : at + self._count], self._count)
            sums.append(shards.sum_of(buffers))
            put(doc.chunk_name((first + number, *(0 for _ in doc.chunks[1:]))), *buffers)
        self._kept = whole[len(whole) // self._count * self._count :]
        self.sums = pack_sums(sums)
        return doc._replace(shape=(self._rows, *doc.shape[1:])).with_sums(sums)

    def take(self) -> Taken:
        """Give what waits, and what is to be put back if it can't be written."""
        begun, self._begun = self._begun, []
        return Taken(self.sums, begun, self._kept)

    def restore(self, taken: Taken) -> None:
        """Go back to what was before something was taken; rows that came since still wait."""
        self.sums, self._kept = taken.sums, taken.rest
        self._begun = [*taken.waiting, *self._begun]

    def _packed_tail(self) -> list[bytes]:
        """Pack the chunk that is not full; the rest of it is made zeros."""
        if self._tail is None:
            return []
        packs.as_bytes(self._tail[self._rows % self._shard.rows :])[:] = 0
        return [shards.pack(self._tail, self._shard.packing)]

    def _pack(self, chunk: NDArray[Any]) -> bytes:
        packed = shards.pack(chunk, self._shard.packing)
        self._buffers.append(chunk)
        return packed

    def _buffer(self) -> NDArray[Any]:
        """Give room for a chunk, if possible some that was used before: new memory is slow."""
        try:
            return self._buffers.popleft()
        except IndexError:
            return np.zeros((self._shard.rows, *self._doc.chunks[1:]), self._doc.stored)


Column: TypeAlias = Plain | Sharded


def _shard_of(doc: ArrayDoc) -> Shard:
    if doc.shard is None:
        raise ValueError(f"{doc.dims} has no shards")
    return doc.shard


def _unchanged(doc: ArrayDoc, length: int) -> list[int]:
    """Give the sums of the files that stay as they are."""
    sums: list[int] = doc.sums()[: length // doc.chunks[0] * math.prod(doc.grid[1:])].tolist()
    return sums
