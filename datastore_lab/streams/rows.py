"""What every growing stream does with rows before its own format takes them."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.errors import EngineError, NotStorable
from datastore_lab.keys import Key, show
from datastore_lab.records import Stat, check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows = Mapping[str, "NDArray[Any]"]


class StreamAppender(ABC):
    """Rows wait until a few MB are together or a flush is asked for; then the format writes them.

    A failed write ends the stream with everything that was flushed before.

    Parameters
    ----------
    path : str
        The file, for messages.
    key : Key
    spec : Stat
        What the stream was declared to hold.
    release : callable
        Called when the stream ends, in whatever way.
    """

    piece_bytes: ClassVar[int] = 4_000_000

    def __init__(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> None:
        self.key, self.spec = key, spec
        self._path, self._release = path, release
        self._types = {name: dtypes.parse(info.dtype) for name, info in spec.arrays.items()}
        self._waiting: list[Rows] = []
        self._bytes = 0
        self._lock = threading.RLock()
        self.closed = False

    def extend(self, block: Rows) -> None:
        with self._lock:
            if self.closed:
                raise EngineError(f"the stream {show(self.key)!r} is closed", key=self.key)
            check_rows(self.key, block, self.spec.arrays)
            own = {name: dtypes.fit(rows, self._types[name], name) for name, rows in block.items()}
            for name, rows in own.items():
                check_text(name, rows)
            self._waiting.append({name: own[name] for name in self._types})
            self._bytes += sum(rows.nbytes for rows in own.values())
            if self._bytes >= self.piece_bytes:
                self._guarded(self._put_waiting)

    def flush(self) -> None:
        with self._lock:
            if not self.closed:
                self._guarded(self._put_waiting, self._sync)

    def close(self, meta: Mapping[str, Any]) -> None:
        media.check_json(meta)
        with self._lock:
            if self.closed:
                return
            self._guarded(self._put_waiting, lambda: self._end(meta))
            self.closed = True
            self._release()

    def _put_waiting(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        joined = waiting[0] if len(waiting) == 1 else _joined(waiting)
        for piece in _pieces(joined, self.piece_bytes):
            self._put(piece)

    def _guarded(self, *steps: Callable[[], None]) -> None:
        try:
            for step in steps:
                step()
        except OSError as error:
            self.closed = True
            self._waiting.clear()
            self._abandon()
            self._release()
            raise EngineError(
                f"{self._path!r} can't be written any further: {error}; what was flushed before stays "
                "readable",
                key=self._path,
            ) from error

    @abstractmethod
    def _put(self, rows: Rows) -> None:
        """Write rows; they need not be durable yet."""

    @abstractmethod
    def _sync(self) -> None:
        """Make all rows that were put durable, and visible."""

    @abstractmethod
    def _end(self, meta: Mapping[str, Any]) -> None:
        """Sync, say the last attributes, and let go of the files."""

    @abstractmethod
    def _abandon(self) -> None:
        """Let go of the files after a failure."""


def check_text(name: str, rows: NDArray[Any]) -> None:
    """Refuse text with a lone surrogate, which has no UTF-8."""
    if rows.dtype.kind != "U":
        return
    points = np.ascontiguousarray(rows).reshape(-1).view(np.dtype("u4").newbyteorder(rows.dtype.byteorder))
    if np.any((points >= 0xD800) & (points < 0xE000)):
        raise NotStorable(f"rows of {name!r} hold text with a lone surrogate", key=name)


def _joined(waiting: list[Rows]) -> Rows:
    joined = {}
    for name, first in waiting[0].items():
        lengths = [len(block[name]) for block in waiting]
        # (concatenate would pack the fields of a structured type)
        out = joined[name] = np.empty((sum(lengths), *first.shape[1:]), first.dtype)
        for block, stop in zip(waiting, itertools.accumulate(lengths), strict=True):
            out[stop - len(block[name]) : stop] = block[name]
    return joined


def _pieces(rows: Rows, nbytes: int) -> Iterator[Rows]:
    """Cut rows into pieces of about so many bytes."""
    count = len(next(iter(rows.values())))
    each = max(1, sum(array.nbytes for array in rows.values()) // max(1, count))
    step = max(1, nbytes // each)
    if count <= step + step // 2:
        yield rows
        return
    for start in range(0, count, step):
        yield {name: array[start : start + step] for name, array in rows.items()}
