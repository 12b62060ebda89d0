"""What Arrow writes, before it goes to disk: sums are put into it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from datastore_lab.integrity import RunningSums, block_sum
from datastore_lab.streams.ipc import head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

_LARGE = 1 << 16


class Sink(io.RawIOBase):
    """Gathers what Arrow writes, without a copy of large columns: these are rows that nobody else has."""

    def __init__(self) -> None:
        self._parts: list[Buffer] = []
        self._gap: bytearray | None = None
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._size += len(view)
        if isinstance(data, pa.Buffer) and len(view) >= _LARGE:
            self._parts.append(view)
            self._gap = None
            return len(view)
        if self._gap is None:
            self._gap = bytearray()
            self._parts.append(self._gap)
        self._gap += view
        return len(view)

    def take(self) -> list[Buffer]:
        """Give what was written since, and forget it; all of a message but its body is in the first part."""
        parts, self._parts, self._gap = self._parts, [], None
        return parts


def sign(parts: Sequence[Any], at: int) -> int:
    """Put the sums into a batch.

    Parameters
    ----------
    parts : sequence of buffers
        As `Sink.take` gives them; the first is changed.
    at : int
        Where in the first part the batch begins.

    Returns
    -------
    int
        Where it ends.
    """
    raw: bytearray = parts[0]
    batch = head.parse(memoryview(raw)[at:])
    if batch is None:  # (Arrow writes what it reads)
        raise OSError("Arrow has written no record batch")
    start, end = at + batch.size, at + batch.size + batch.body
    sums = b"".join(b"%016x" % one for one in _sums(parts, start, end))
    _put_in(raw, at, batch.extra[head.SUMS], sums)
    if head.TAIL in batch.extra:  # (a batch without rows: all of it is in the first part)
        tail = b"%016x%016x" % (len(raw) - end, block_sum(memoryview(raw)[end:]))
        _put_in(raw, at, batch.extra[head.TAIL], tail)
    own = head.own_sum(memoryview(raw)[at:], bytes(raw[:at]), batch)
    _put_in(raw, at, batch.extra[head.SUM], own.encode())
    return end


def _sums(parts: Sequence[Any], start: int, end: int) -> list[int]:
    """Give the sums of the blocks between two places of the parts."""
    running, first = RunningSums(), 0
    for part in parts:
        view = memoryview(part)
        running.add(view[max(0, start - first) : max(0, end - first)])
        first += len(view)
    return running.sums()


def _put_in(raw: bytearray, at: int, place: tuple[int, int], text: bytes) -> None:
    raw[at + place[0] : at + place[0] + len(text)] = text
