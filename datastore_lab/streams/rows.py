"""What every growing stream does with rows before its own format takes them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.errors import Corrupt, EngineError, NotStorable
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from datastore_lab.records import Stat

Rows = Mapping[str, "NDArray[Any]"]


class Memory:
    """Arrays whose rows are on the disk, for rows to come: to touch new memory costs more than to copy.

    Examples
    --------
    >>> memory = Memory()
    >>> first = memory.take((1_000_000,), np.dtype("f8"))
    >>> memory.give([{"x": first}])
    >>> memory.take((1_000_000,), np.dtype("f8")) is first
    True
    """

    least, most = 1 << 18, 1 << 25

    def __init__(self) -> None:
        self._free: list[NDArray[Any]] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give an array of any content."""
        for index, array in enumerate(self._free):
            if array.shape == shape and array.dtype == dtype:
                return self._free.pop(index)
        return np.empty(shape, dtype)

    def give(self, rows: Sequence[Rows]) -> None:
        """Take back arrays that nobody looks at any more; the oldest go where it is too much."""
        given = [array for block in rows for array in block.values()]
        self._free += [array for array in given if self._fits(array)]
        while sum(array.nbytes for array in self._free) > self.most:
            self._free.pop(0)

    def _fits(self, array: NDArray[Any]) -> bool:
        return array.dtype.kind != "T" and self.least <= array.nbytes <= self.most


class StreamAppender(ABC):
    """Rows wait until a few MB are together; they are written when more are, or a flush is asked for.

    What was taken is kept in memory until it is on the disk for certain: a refused call is tried again by
    the next `flush` or `close`, with the same bytes at the same places, so that no row comes twice. Rows of
    a flush that failed are not visible before one has succeeded.

    Parameters
    ----------
    path : str
        The file, for messages.
    key : Key
    spec : Stat
        What the stream was declared to hold.
    release : callable
        Called when the stream ends, in whatever way.

    Attributes
    ----------
    unsettled : set of StreamAppender
        Where it stands while the disk shows rows whose flush failed, because undoing that failed, too.
    """

    piece_bytes: ClassVar[int] = 4_000_000
    commit_bytes: ClassVar[int] = 16_000_000

    def __init__(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> None:
        self.key, self.spec = key, spec
        self._path, self._release = path, release
        self._types = {name: dtypes.parse(info.dtype) for name, info in spec.arrays.items()}
        self._batch = batch_rows(spec)
        self._waiting: list[Rows] = []
        self._bytes = self._count = 0
        self._memory, self._in_use = Memory(), list[Rows]()
        self._held: list[Buffer] = []
        self._held_bytes = 0
        self._last: Mapping[str, Any] | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._ahead = False
        self.unsettled: set[StreamAppender] = set()
        self.closed = False

    @property
    def mine(self) -> bool:
        """Whether this process began it; a fork of that one lets go, and leaves the file alone."""
        return self._process == os.getpid()

    def extend(self, block: Rows) -> None:
        if not self.mine:
            raise EngineError(
                f"the stream {show(self.key)!r} is written by process {self._process}, of which this is a "
                "fork; open the store and begin a stream of another name here",
                key=self.key,
            )
        with self._lock:
            if self.closed or self._last is not None:
                raise EngineError(f"the stream {show(self.key)!r} is closed", key=self.key)
            rows = self._fitting(block)
            if not len(next(iter(rows.values()))):
                return
            if self._held_bytes >= self.commit_bytes:
                self._guarded(self._sync)  # before they are taken: an error says that they were not
            self._wait_with(rows)
            if self._batch is not None and self._count >= self._batch:
                self._put_waiting(whole=True)
            elif self._batch is None and self._bytes >= self.piece_bytes:
                self._put_waiting()

    def _wait_with(self, rows: Rows) -> None:
        self._waiting.append(rows)
        self._bytes += sum(array.nbytes for array in rows.values())
        self._count += len(next(iter(rows.values())))

    def _fitting(self, block: Rows) -> Rows:
        given, _count = dtypes.as_rows(self.key, block, self.spec.arrays)
        own = {name: self._own(rows, name) for name, rows in given.items()}
        for name, rows in own.items():
            check_text(name, rows)
        return {name: own[name] for name in self._types}

    def _own(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        if rows.dtype != self._types[name]:
            return dtypes.fit(rows, self._types[name], name)
        own = self._memory.take(rows.shape, self._types[name])
        own[...] = rows
        return own

    def flush(self) -> None:
        if not self.mine:  # (before the lock, which another thread may have held at the fork)
            return
        with self._lock:
            if self.closed:
                return
            if self._last is not None:
                self._finish(self._last)
                return
            self._put_waiting()
            self._guarded(self._sync)

    def close(self, meta: Mapping[str, Any]) -> None:
        media.check_json(meta)
        if not self.mine:
            self.closed = True
            return
        with self._lock:
            if self.closed:
                return
            self._put_waiting()
            if self._last is None:  # (whoever tries again means the same end)
                self._last = dict(meta)
            self._finish(self._last)

    def _finish(self, meta: Mapping[str, Any]) -> None:
        self._guarded(lambda: self._end(meta))
        self.closed = True
        self._release()

    def abandon(self) -> None:
        """End the stream with what was flushed, and drop the rest."""
        if not self.mine:
            self.closed = True
            return
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._waiting, self._bytes, self._count = [], 0, 0
            self._let_out()
            self.unsettled.discard(self)
            try:
                self._let_go()
            finally:
                self._release()

    def settle(self) -> None:
        """Try to hide rows of a failed flush that the disk still shows."""
        if not self.mine:
            return
        with self._lock:
            if self._ahead and not self.closed:
                with contextlib.suppress(OSError):  # (it is tried again, and said by the next flush)
                    self._undo()
                    self._ahead = False
            if not self._ahead or self.closed:
                self.unsettled.discard(self)

    def _put_waiting(self, *, whole: bool = False) -> None:
        """Put what waits; with `whole` the rows that fill no batch go on waiting."""
        waiting, self._waiting, self._bytes, self._count = self._waiting, [], 0, 0
        if not waiting:
            return
        joined = waiting[0]
        if len(waiting) > 1:
            joined = _joined(waiting, self._memory)
            self._memory.give(waiting)
        self._in_use.append(joined)  # (what is held may refer to them)
        for piece in _pieces(joined, self.piece_bytes, self._batch):
            if whole and len(next(iter(piece.values()))) < (self._batch or 0):
                self._wait_with({name: rows.copy() for name, rows in piece.items()})
            else:
                self._put(piece)

    def _hold(self, raw: Buffer) -> None:
        """Keep bytes until they are on the disk for certain."""
        self._held.append(raw)
        self._held_bytes += memoryview(raw).nbytes

    def _let_out(self) -> None:
        self._held, self._held_bytes = [], 0
        self._memory.give(self._in_use)
        self._in_use = []

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            self.unsettled.add(self)
            self.settle()
            if isinstance(error, Corrupt):
                raise
            raise EngineError(
                f"{self._path!r} can't be written now: {error}; what was flushed before stays readable, and "
                "the rows since then are kept in memory: flush again when the disk takes them",
                key=self._path,
            ) from error
        self._ahead = False
        self.unsettled.discard(self)

    @abstractmethod
    def _put(self, rows: Rows) -> None:
        """Bring rows into the form of the file, and hold them."""

    @abstractmethod
    def _sync(self) -> None:
        """Write all that is held, make it durable, and only then visible; may be tried again."""

    @abstractmethod
    def _end(self, meta: Mapping[str, Any]) -> None:
        """Sync, say the last attributes, and let go of the files; may be tried again."""

    @abstractmethod
    def _undo(self) -> None:
        """Hide what a failed `_sync` has made visible."""

    @abstractmethod
    def _let_go(self) -> None:
        """Let go of the files as they are."""


def check_text(name: str, rows: NDArray[Any]) -> None:
    """Refuse text with a lone surrogate, which has no UTF-8."""
    if rows.dtype.kind != "U":
        return
    points = np.ascontiguousarray(rows).reshape(-1).view(np.dtype("u4").newbyteorder(rows.dtype.byteorder))
    if np.any((points >= 0xD800) & (points < 0xE000)):
        raise NotStorable(f"rows of {name!r} hold text with a lone surrogate", key=name)


def _joined(waiting: list[Rows], memory: Memory) -> Rows:
    joined = {}
    for name, first in waiting[0].items():
        lengths = [len(block[name]) for block in waiting]
        # (concatenate would pack the fields of a structured type)
        out = joined[name] = memory.take((sum(lengths), *first.shape[1:]), first.dtype)
        for block, stop in zip(waiting, itertools.accumulate(lengths), strict=True):
            out[stop - len(block[name]) : stop] = block[name]
    return joined


def batch_rows(spec: Stat) -> int | None:
    """Give how many rows are to lie together, where whoever declared a stream has said so."""
    return next((info.chunks[0] for info in spec.arrays.values() if info.chunks), None)


def _pieces(rows: Rows, nbytes: int, batch: int | None) -> Iterator[Rows]:
    """Cut rows into pieces of about so many bytes, or of so many rows."""
    count = len(next(iter(rows.values())))
    each = max(1, sum(array.nbytes for array in rows.values()) // max(1, count))
    step = batch or max(1, nbytes // each)
    if count <= (batch or step + step // 2):
        yield rows
        return
    for start in range(0, count, step):
        yield {name: array[start : start + step] for name, array in rows.items()}
