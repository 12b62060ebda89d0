"""One consumer's place in a ring, and what happens when it falls behind.

The law, at any moment: ``pushed == delivered + lost + pending``, counted from where the cursor began.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.acquire import ranges
from datastore_lab.acquire.view import View
from datastore_lab.errors import LabError, StreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.core import Core
    from datastore_lab.acquire.policies import Policy
    from datastore_lab.records import Block

_ATTEMPTS = 3


class Counts(NamedTuple):
    """What became of the samples that were pushed since a cursor began; the first is the sum of the rest."""

    pushed: int
    delivered: int
    lost: int
    pending: int


class Cursor:
    """A consumer's place in a ring. Made by `RingBuffer.cursor`; to be read from one thread at a time.

    Attributes
    ----------
    policy : str
    name : str
        By which `RingBuffer.stats` tells it from others.
    """

    def __init__(self, core: Core, policy: Policy, kind: str, name: str) -> None:
        self.policy, self.name = kind, name
        self.position = 0
        self.overdue = False
        self.fault: LabError | None = None
        self._core, self._keeper, self._backlog = core, policy, policy.backlog
        self._reading = threading.Lock()
        self._begin = self._delivered = self._lost = 0
        self._device_gaps_before = 0
        self._gaps: list[ranges.Range] = []
        self._end: int | None = None
        self._view: View | None = None

    # -- accounts --------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """All four figures of the law, taken at one moment."""
        with self._core.lock:
            return self._count()

    @property
    def lag(self) -> int:
        """Samples that were pushed and not yet read."""
        return self.counts.pending

    @property
    def lost(self) -> int:
        """Samples that this consumer lost because it was too slow."""
        return self.counts.lost

    @property
    def gaps(self) -> list[ranges.Range]:
        """Ranges of sequence numbers that this consumer lost, as ``[first, last]``."""
        with self._core.lock:
            return ranges.copy(self._gaps)

    @property
    def device_gaps(self) -> list[ranges.Range]:
        """Ranges that the device lost since this cursor began: nobody has them."""
        with self._core.lock:
            return ranges.copy(self._core.device_gaps[self._device_gaps_before :])

    @property
    def closed(self) -> bool:
        """Whether the consumer has left."""
        return self._end is not None

    def __repr__(self) -> str:
        counts = self.counts
        return f"<Cursor {self.policy}: {counts.delivered} read, {counts.pending} behind, {counts.lost} lost>"

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, max_samples: int | None = None, timeout: float | None = 0.0) -> Block | None:
        """Copy the oldest samples that were not read yet.

        A block never spans a jump of the device's sequence numbers.

        Parameters
        ----------
        max_samples : int, optional
            At most so many; None takes all that are there.
        timeout : float, optional
            Seconds to wait for the first sample; 0 does not wait, None waits until one comes or the ring
            is closed.

        Returns
        -------
        Block or None
            A copy of one's own; None if there was nothing.

        Raises
        ------
        EngineError, Corrupt
            If samples that were kept aside on disk could not be written or read. They are counted as lost,
            and this is raised once: the next call goes on with those after them.
        StreamError
            While a view is open, or if the process that filled the ring has died.
        """
        with self._reading:
            self._raise_fault()
            with self._core.lock:
                ready = self._ready(max_samples, timeout)
            return self._take(max_samples) if ready else None

    def view(self, max_samples: int | None = None, timeout: float | None = 0.0) -> View:
        """Look at the oldest samples that were not read yet where they lie, without a copy.

        Parameters
        ----------
        max_samples : int, optional
            At most so many. It may be fewer than there are: a view ends at a jump and at the ring's end.
        timeout : float, optional
            As of `read`.

        Returns
        -------
        View
            A context manager. At its end the samples count as read, unless they were overwritten meanwhile:
            then `Overrun` is raised, whatever was computed from them is to be thrown away, and what is
            still whole stays to be read. It is empty, and false, if there was nothing.

        Raises
        ------
        EngineError, Corrupt, StreamError
            As of `read`.
        """
        with self._reading:
            self._raise_fault()
            with self._core.lock:
                if not self._ready(max_samples, timeout):
                    return View(None, None, 0)
                if not self._keeps():
                    return self._look(max_samples)
            return View(None, self._take_kept(max_samples), 0)  # a copy already: nobody overwrites it

    def close(self) -> None:
        """Leave the ring, so that nobody waits for this consumer; the accounts stay."""
        with self._core.lock:
            if self._end is not None:
                return
            self._end = self._core.head
            self._core.detach(self)
        if self._backlog is not None:
            self._backlog.close()

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- for the ring ----------------------------------------------------------------------------------

    def hold(self, tail: int) -> None:
        """Do what the policy says before everything before `tail` is overwritten."""
        self._keeper.hold(self, tail)

    def attach(self, head: int, device_gaps: int) -> None:
        """Begin at a position; the caller holds the lock."""
        self._begin = self.position = head
        self._device_gaps_before = device_gaps

    def overrun(self, tail: int) -> None:
        """Move on to `tail`, counting what was not read as lost; the caller holds the lock."""
        while self.position < tail:
            stop = min(tail, self._core.segment_end(self.position))
            self.lose(self._core.number(self.position), stop - self.position)
            self.position = stop

    def lose(self, first: int, count: int) -> None:
        """Count samples as lost; the caller holds the lock."""
        self._lost += count
        ranges.add(self._gaps, first, first + count - 1)

    def lose_until(self, position: int, first: int) -> None:
        """Go on at a position and number, where it is unknown what lay before; the caller holds the lock."""
        begin = self._core.number(self.position) if self._core.segments.starts else first
        self._lost += position - self.position
        ranges.add(self._gaps, begin, first - 1)
        self.position = position

    def enter(self, view: View) -> None:
        """Let nothing else be read before this view is left."""
        if self._view is not None:
            raise _view_is_open()
        self._view = view

    def leave(self, view: View, stop: int) -> bool:
        """Count the samples of a view as read; says whether they were whole to the end."""
        with self._core.lock:
            self._view = None
            if self.position != view.position:
                return False
            self._pass(view.position, stop)
            return True

    def stands(self, position: int) -> bool:
        """Say whether the samples from a position on are neither overwritten nor read."""
        with self._core.lock:
            return self.position == position

    # -- inside ----------------------------------------------------------------------------------------

    def _count(self) -> Counts:
        head = self._core.head if self._end is None else self._end
        return Counts(head - self._begin, self._delivered, self._lost, self._pending())

    def _pending(self) -> int:
        head = self._core.head if self._end is None else self._end
        return head - self.position + (0 if self._backlog is None else self._backlog.samples)

    def _keeps(self) -> bool:
        return self._backlog is not None and self._backlog.samples > 0

    def _ready(self, max_samples: int | None, timeout: float | None) -> bool:
        """Wait for samples; says whether there are any. The caller holds the lock."""
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, not {max_samples}")
        if self._view is not None:
            raise _view_is_open()
        core, pending = self._core, self._pending()
        if not pending and timeout != 0 and not self.closed:
            core.signals.wait_samples(lambda: self._pending() or core.closed or self.closed, timeout)
            pending = self._pending()
        if core.fault is not None and not pending and not self.closed:
            raise core.fault
        return not self.closed and pending > 0

    def _raise_fault(self) -> None:
        if self.fault is None:
            return
        with self._core.lock:
            fault, self.fault = self.fault, None
        if fault is not None:
            raise fault

    def _span(self, max_samples: int | None) -> tuple[int, int, int]:
        """Give the positions of the next samples, and the sequence number of the first."""
        start = self.position
        stop = min(self._core.head, self._core.segment_end(start))
        if max_samples is not None:
            stop = min(stop, start + max_samples)
        return start, stop, self._core.number(start)

    def _look(self, max_samples: int | None) -> View:
        start, stop, first = self._span(max_samples)
        if start >= stop:
            return View(None, None, 0)
        stop = self._core.columns.contiguous(start, stop)
        return View(self, self._core.block(first, self._core.columns.look(start, stop)), start)

    def _take(self, max_samples: int | None) -> Block | None:
        core = self._core
        for attempt in range(_ATTEMPTS):
            with core.lock:
                if self._keeps():
                    break
                start, stop, first = self._span(max_samples)
                if start >= stop:  # a producer in another process lapped us
                    return None
                if attempt == _ATTEMPTS - 1 and core.holds:  # nothing moves while we hold the lock
                    return self._deliver(first, core.columns.copy(start, stop), start, stop)
            rows = core.columns.copy(start, stop)
            with core.lock:
                if self.position == start or (self._backlog is None and self.position < stop):
                    return self._deliver(first, rows, start, stop)
        return self._take_kept(max_samples) if self._keeps() else None

    def _deliver(self, first: int, rows: dict[str, NDArray[Any]], start: int, stop: int) -> Block:
        """Count samples as read, less those that were overwritten under the copy (counted as lost)."""
        torn = self.position - start
        self._pass(self.position, stop)
        return self._core.block(first, rows, torn)

    def _pass(self, start: int, stop: int) -> None:
        self.position = stop
        self._delivered += stop - start
        self.overdue = False
        self._core.signals.room_came()

    def _take_kept(self, max_samples: int | None) -> Block:
        assert self._backlog is not None
        with self._core.lock:
            (first, count), load = self._backlog.pop(max_samples)
            self._delivered += count
        try:
            return load()
        except LabError:
            with self._core.lock:
                self._delivered -= count
                self.lose(first, count)
            raise


def _view_is_open() -> StreamError:
    return StreamError("a view of this cursor is open: leave it before more is read")
