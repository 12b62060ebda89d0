"""What every growing stream does with rows before its own format takes them."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
    """Rows wait until a few MB are together; they are written when these are, or a flush is asked for.

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
        usual = max(1, self.piece_bytes // _row_bytes(self._types, spec))
        self._batch = batch_rows(spec) or usual
        self._begin_with = min(usual, self._batch)
        self._stage: dict[str, NDArray[Any]] = {}
        self._count = 0
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
            rows, count = self._fitting(block)
            if not count:
                return
            if self._held_bytes >= self.commit_bytes:
                self._guarded(self._sync)  # before they are taken: an error says that they were not
            self._take_in(rows, count)

    def _fitting(self, block: Rows) -> tuple[Rows, int]:
        given, count = dtypes.as_rows(self.key, block, self.spec.arrays)
        rows = {
            name: given[name] if given[name].dtype == dtype else dtypes.fit(given[name], dtype, name)
            for name, dtype in self._types.items()
        }
        for name, array in rows.items():
            check_text(name, array)
        return rows, count

    def _take_in(self, rows: Rows, count: int) -> None:
        """Copy rows to where they wait; whenever there are enough, these are put."""
        done = 0
        while done < count:
            room = self._room_for(count - done)
            for name, array in rows.items():
                self._stage[name][self._count : self._count + room] = array[done : done + room]
            self._count, done = self._count + room, done + room
            if self._count == self._batch:
                self._put_waiting()

    def _room_for(self, count: int) -> int:
        """Give how many of so many rows can be copied now; where they wait may become larger."""
        length = len(next(iter(self._stage.values()), ()))
        if self._count == length:
            longer = min(self._batch, max(self._begin_with, 2 * length))
            grown = {
                name: self._memory.take((longer, *self.spec.arrays[name].shape[1:]), dtype)
                for name, dtype in self._types.items()
            }
            for name, array in self._stage.items():
                grown[name][: self._count] = array
            self._stage, length = grown, longer
        return min(count, length - self._count)

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
            self._stage, self._count = {}, 0
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

    def _put_waiting(self) -> None:
        """Put what waits."""
        stage, count = self._stage, self._count
        if not count:
            return
        self._stage, self._count = {}, 0
        self._in_use.append(stage)  # (what is held may refer to them)
        self._put({name: array[:count] for name, array in stage.items()})

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


def _row_bytes(types: Mapping[str, np.dtype[Any]], spec: Stat) -> int:
    """Give the bytes of one row of all arrays; of text of variable length what numpy keeps for it."""
    return max(1, sum(types[name].itemsize * math.prod(info.shape[1:]) for name, info in spec.arrays.items()))


def batch_rows(spec: Stat) -> int | None:
    """Give how many rows are to lie together, where whoever declared a stream has said so."""
    return next((info.chunks[0] for info in spec.arrays.values() if info.chunks), None)
