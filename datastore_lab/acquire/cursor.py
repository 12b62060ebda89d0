"""One consumer's place in a ring, and what happens when it falls behind.

The law, at any moment: ``pushed == delivered + lost + pending``, counted from where the cursor began.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from datastore_lab.acquire import ranges
from datastore_lab.records import Block

if TYPE_CHECKING:
    from datastore_lab.acquire.ring import RingBuffer


class Counts(NamedTuple):
    """What became of the samples that were pushed since a cursor began; the first is the sum of the rest."""

    pushed: int
    delivered: int
    lost: int
    pending: int


class Policy(Protocol):
    """What a consumer wants to happen before samples that it has not read are overwritten."""

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Be called by the producer, without the ring's lock, when `cursor` stands before `tail`."""
        ...


class Cursor:
    """A consumer's place in a ring. Made by `RingBuffer.cursor`; to be read from one thread at a time."""

    def __init__(self, ring: RingBuffer, policy: Policy, name: str) -> None:
        self.policy = name
        self._ring = ring
        self._policy = policy
        self._reading = threading.Lock()
        self._begin = self._position = self._delivered = self._lost = 0
        self._device_gaps_before = 0
        self._gaps: list[ranges.Range] = []
        self._kept: deque[Block] = deque()  # what the policy "grow" saved: older than `_position`
        self._kept_samples = 0
        self._overdue = False
        self._end: int | None = None

    # -- accounts --------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """All four figures of the law, taken at one moment."""
        with self._ring._lock:
            return self._count()

    @property
    def lag(self) -> int:
        """Samples that were pushed and not yet read."""
        return self.counts.pending

    @property
    def lost(self) -> int:
        """Samples that this consumer lost because it was too slow."""
        return self._lost

    @property
    def gaps(self) -> list[ranges.Range]:
        """Ranges of sequence numbers that this consumer lost, as ``[first, last]``."""
        with self._ring._lock:
            return ranges.copy(self._gaps)

    @property
    def device_gaps(self) -> list[ranges.Range]:
        """Ranges that the device lost since this cursor began: nobody has them."""
        with self._ring._lock:
            return ranges.copy(self._ring._device_gaps[self._device_gaps_before :])

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
        """
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, not {max_samples}")
        with self._reading:
            if not self._wait(timeout):
                return None
            block = self._take_kept(max_samples) if self._kept else self._take(max_samples)
            self._overdue = False
            return block

    def close(self) -> None:
        """Leave the ring, so that nobody waits for this consumer; the accounts stay."""
        with self._ring._lock:
            if self._end is None:
                self._end = self._ring._head
                self._ring._detach(self)

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------

    def _attach(self, head: int, device_gaps: int) -> None:
        self._begin = self._position = head
        self._device_gaps_before = device_gaps

    def _count(self) -> Counts:
        head = self._ring._head if self._end is None else self._end
        pending = head - self._position + self._kept_samples
        return Counts(head - self._begin, self._delivered, self._lost, pending)

    def _wait(self, timeout: float | None) -> bool:
        """Wait for samples; says whether there are any."""
        ring = self._ring
        with ring._lock:
            if self._count().pending == 0 and timeout != 0 and not self.closed:
                ring._waiting_readers += 1
                try:
                    ring._arrived.wait_for(
                        lambda: self._count().pending or ring._closed or self.closed, timeout
                    )
                finally:
                    ring._waiting_readers -= 1
            return not self.closed and self._count().pending > 0

    def _take(self, max_samples: int | None) -> Block:
        ring = self._ring
        for attempt in range(3):
            with ring._lock:
                start = self._position
                stop = min(ring._head, ring._segment_end(start))
                if max_samples is not None:
                    stop = min(stop, start + max_samples)
                first = ring._sequence_at(start)
                if attempt == 2:  # a producer laps us each time: nothing moves while we hold the lock
                    return self._deliver(first, ring._copy(start, stop), start, stop)
            columns = ring._copy(start, stop)
            with ring._lock:
                if self._position < stop:
                    return self._deliver(first, columns, start, stop)
        raise AssertionError("the third attempt returns")

    def _deliver(self, first: int, columns: dict[str, Any], start: int, stop: int) -> Block:
        """Count samples as read, less those that were overwritten under the copy (counted as lost)."""
        torn = self._position - start
        self._position = stop
        self._delivered += stop - start - torn
        if self._ring._waiting_producers:
            self._ring._room.notify_all()
        return self._ring._block(first, columns, torn)

    def _take_kept(self, max_samples: int | None) -> Block:
        with self._ring._lock:
            block = self._kept.popleft()
            count = len(block.time)
            if max_samples is not None and count > max_samples:
                self._kept.appendleft(_part(block, max_samples, count))
                block, count = _part(block, 0, max_samples), max_samples
            self._kept_samples -= count
            self._delivered += count
            return block

    def _overrun(self, tail: int) -> None:
        """Move on to `tail`, counting what was not read as lost; the caller holds the ring's lock."""
        while self._position < tail:
            stop = min(tail, self._ring._segment_end(self._position))
            first = self._ring._sequence_at(self._position)
            self._lose(first, stop - self._position)
            self._position = stop

    def _lose(self, first: int, count: int) -> None:
        self._lost += count
        ranges.add(self._gaps, first, first + count - 1)


def make_policy(
    name: str, timeout: float | None, limit: int, on_full: Callable[[], None] | None = None
) -> Policy:
    """Make the policy of a name.

    Raises
    ------
    ValueError
        Naming those there are.
    """
    policies: dict[str, Callable[[], Policy]] = {
        "drop_oldest": DropOldest,
        "block": lambda: BlockProducer(timeout, on_full),
        "grow": lambda: Grow(limit),
    }
    if name not in policies:
        raise ValueError(f"there is no policy {name!r}; the policies are {', '.join(map(repr, policies))}")
    return policies[name]()


class DropOldest:
    """The producer goes on: whoever is too slow loses the oldest samples."""

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Do nothing."""


class BlockProducer:
    """The producer waits until this consumer has read, for a limited time if one is given."""

    def __init__(self, timeout: float | None, on_full: Callable[[], None] | None) -> None:
        self._timeout = timeout
        self._on_full = on_full

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Wait until the cursor stands at `tail` or has left."""
        ring = cursor._ring
        if cursor._overdue:
            return
        if self._on_full is not None:
            self._on_full()
        with ring._lock:
            ring._waiting_producers += 1
            try:
                cursor._overdue = not ring._room.wait_for(
                    lambda: cursor._position >= tail or cursor.closed or ring._closed, self._timeout
                )
            finally:
                ring._waiting_producers -= 1


class Grow:
    """What is about to be overwritten moves into the consumer's own memory, up to a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def hold(self, cursor: Cursor, tail: int) -> None:
        """Save the samples before `tail`; beyond the limit the oldest are lost."""
        ring = cursor._ring
        room = self._limit // ring.sample_nbytes
        with cursor._reading:
            while not cursor.closed and cursor._position < tail:
                start = cursor._position
                # more than asked for: to keep sample by sample would take many times the limit in overhead
                wanted = max(tail, start + ring._piece)
                stop = min(wanted, ring._segment_end(start), start + max(1, room))
                block = ring._block(ring._sequence_at(start), ring._copy(start, stop))
                with ring._lock:
                    cursor._kept.append(block)
                    cursor._kept_samples += stop - start
                    cursor._position = stop
                    self._trim(cursor, room)

    def _trim(self, cursor: Cursor, room: int) -> None:
        while cursor._kept_samples > room:
            block = cursor._kept.popleft()
            excess = min(cursor._kept_samples - room, len(block.time))
            cursor._lose(block.first, excess)
            cursor._kept_samples -= excess
            if excess < len(block.time):
                cursor._kept.appendleft(_part(block, excess, len(block.time)))


def _part(block: Block, start: int, stop: int) -> Block:
    data = {name: rows[start:stop] for name, rows in block.data.items()}
    clock = None if block.device_time is None else block.device_time[start:stop]
    return Block(block.first + start, block.time[start:stop], data, clock)
