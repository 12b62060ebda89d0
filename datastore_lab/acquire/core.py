"""What a ring and its cursors share: the memory, what is whole in it, and who reads it.

Copies are made outside the lock, so that neither a slow reader nor a large frame holds up anybody. What
makes that safe is the order: a push first takes the room (and moves every cursor that stood there, which
is when a loss is counted) and only then overwrites it; a reader looks after its copy whether it was moved.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from datastore_lab.acquire.columns import DEVICE_TIME, TIME, Columns
from datastore_lab.acquire.segments import Segments
from datastore_lab.records import Block, Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from datastore_lab.acquire import ranges
    from datastore_lab.acquire.cursor import Cursor
    from datastore_lab.errors import StreamError


class Lock(Protocol):
    """What a core needs of its lock: that of `threading`, or one that looks at another process too."""

    def __enter__(self) -> object: ...
    def __exit__(self, *exc: Any) -> None: ...


class Signals(Protocol):
    """How readers and producers wait for each other. All is called with the core's lock held."""

    def wait_samples(self, predicate: Callable[[], object], timeout: float | None) -> None:
        """Wait for what a reader waits for, or until the time in seconds is over."""
        ...

    def wait_room(self, predicate: Callable[[], object], timeout: float | None) -> bool:
        """Wait for what a producer waits for; says whether it came."""
        ...

    def samples_came(self) -> None:
        """Wake readers."""
        ...

    def room_came(self) -> None:
        """Wake producers."""
        ...


class Core:
    """The state of a ring. All of it changes under `lock` only.

    Parameters
    ----------
    spec : Stat
    columns : Columns
    lock : Lock
    signals : Signals
    holds : bool
        Whether nothing is overwritten while the lock is held; False where the producer is another process.
    """

    def __init__(self, spec: Stat, columns: Columns, lock: Lock, signals: Signals, *, holds: bool) -> None:
        self.spec, self.columns, self.lock, self.signals, self.holds = spec, columns, lock, signals, holds
        self.head = self.tail = 0  # positions: one past the newest sample, and the oldest that is whole
        self.segments = Segments()
        self.device_gaps: list[ranges.Range] = []
        self.cursors: tuple[Cursor, ...] = ()
        self.closed = False
        self.fault: StreamError | None = None  # why nothing more can come
        self.piece = max(1, columns.samples // 4)  # a push never takes so much that readers find nothing

    def block(self, first: int, rows: Mapping[str, NDArray[Any]], skip: int = 0) -> Block:
        """Make a block of columns, less its first `skip` samples."""
        if skip:
            rows = {name: column[skip:] for name, column in rows.items()}
        data = {name: rows[name] for name in self.spec.arrays}
        return Block(first + skip, rows[TIME], data, rows.get(DEVICE_TIME))

    def number(self, position: int) -> int:
        """Give the sequence number of a position."""
        return self.segments.number(position)

    def segment_end(self, position: int) -> int:
        """Give the position up to which sequence numbers run on."""
        return self.segments.end(position, self.head)

    def overrun(self, tail: int) -> None:
        """Give up what lies before `tail`, and count it as lost where a cursor has not read it."""
        for cursor in self.cursors:
            cursor.overrun(tail)
        self.tail = max(self.tail, tail)

    def attach(self, cursor: Cursor) -> None:
        """Have a cursor begin at what comes next."""
        with self.lock:
            cursor.attach(self.head, len(self.device_gaps))
            self.cursors = (*self.cursors, cursor)

    def detach(self, cursor: Cursor) -> None:
        """Forget a cursor; the caller holds the lock."""
        self.cursors = tuple(other for other in self.cursors if other is not cursor)
        self.signals.samples_came()
        self.signals.room_came()

    def latest(self, count: int) -> Block | None:
        """Copy the newest samples."""
        for attempt in range(3):
            with self.lock:
                start, stop = max(self.head - count, self.tail, 0), self.head
                if start >= stop:
                    return None
                first = self.number(start)
                if attempt == 2 and self.holds:
                    return self.block(first, self.columns.copy(start, stop))
            rows = self.columns.copy(start, stop)
            with self.lock:
                if self.tail <= start:
                    return self.block(first, rows)
        return None

    def recent(self, since: int) -> list[Block]:
        """Copy the samples from a time in ns on, as blocks that no jump runs through."""
        with self.lock:
            start, stop = self._since(since), self.head
            spans = []
            while start < stop:
                end = min(stop, self.segment_end(start))
                spans.append((start, end, self.number(start)))
                start = end
        blocks = []
        for start, end, first in spans:
            rows = self.columns.copy(start, end)
            with self.lock:
                gone = max(0, self.tail - start)  # overwritten under the copy
            if gone < end - start:
                blocks.append(self.block(first, rows, gone))
        return blocks

    def _since(self, since: int) -> int:
        """Find the oldest whole sample that is not older than a time."""
        low, high = self.tail, self.head
        times = self.columns.arrays[TIME]
        while low < high:
            middle = (low + high) // 2
            if times[middle % self.columns.samples] < since:
                low = middle + 1
            else:
                high = middle
        return low


def local(spec: Stat, columns: Columns) -> Core:
    """Make a core whose producer is this process."""
    lock = threading.Lock()
    return Core(spec, columns, lock, _Conditions(lock), holds=True)


class _Conditions:
    """Signals between threads; to notify costs more than all the rest of a small push."""

    def __init__(self, lock: threading.Lock) -> None:
        self._samples, self._room = threading.Condition(lock), threading.Condition(lock)
        self._readers = self._producers = 0

    def wait_samples(self, predicate: Callable[[], object], timeout: float | None) -> None:
        self._readers += 1
        try:
            self._samples.wait_for(predicate, timeout)
        finally:
            self._readers -= 1

    def wait_room(self, predicate: Callable[[], object], timeout: float | None) -> bool:
        self._producers += 1
        try:
            return bool(self._room.wait_for(predicate, timeout))
        finally:
            self._producers -= 1

    def samples_came(self) -> None:
        if self._readers:
            self._samples.notify_all()

    def room_came(self) -> None:
        if self._producers:
            self._room.notify_all()
