"""The ring between devices and consumers: one contiguous buffer per array, one cursor per consumer.

Positions count what was pushed; sequence numbers are the device's own and jump where the device lost
samples. The ring keeps the few places where the two part (its segments), so that every loss, the device's
and each consumer's, is known as exact ranges of sequence numbers.

Copies are made outside the lock, so that neither a slow reader nor a large frame holds up anybody. What
makes that safe is the order: a push first takes the room (and moves every cursor that stood there, which
is when a loss is counted) and only then overwrites it; a reader looks after its copy whether it was moved.
"""

from __future__ import annotations

import bisect
import math
import operator
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, units
from datastore_lab.acquire import ranges
from datastore_lab.acquire.cursor import Cursor, make_policy
from datastore_lab.errors import StreamError
from datastore_lab.records import Block, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME, DEVICE_TIME, SEQUENCE = "time", "device_time", "sequence"
"""Names that a stream's own columns take in files; a device can't use them for its arrays."""

_MOST_SEGMENTS = 256


class RingBuffer:
    """A ring of samples, from one device to any number of consumers.

    Parameters
    ----------
    spec : Stat
        What the device describes: arrays with 0 on axis 0, ``meta["rate"]`` in samples per second. With
        ``meta["device_time"]`` true every block must carry the device's own clock.
    samples : int, optional
        Size in samples.
    nbytes : int or str, optional
        Size in bytes, time stamps included; or text such as ``"500 MB"``.
    seconds : float or str, optional
        Size in seconds, or text such as ``"2 min"``; needs a rate.
    memory : float, optional
        Size as a share of the memory that is free now, between 0 and 1.
    rate : float, optional
        Samples per second, in place of the one in `spec`.

    Raises
    ------
    ValueError
        Unless exactly one size is given, or if it holds no sample or more than the free memory.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo, Block, Stat
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 10.0})
    >>> ring = RingBuffer(spec, seconds=1)
    >>> cursor = ring.cursor()
    >>> ring.push(Block(0, np.arange(12), {"x": np.arange(12.0)}))
    >>> cursor.lost, cursor.gaps, cursor.read().data["x"][:3]
    (2, [[0, 1]], array([2., 3., 4.]))
    """

    def __init__(
        self,
        spec: Stat,
        *,
        samples: int | None = None,
        nbytes: int | str | None = None,
        seconds: float | str | None = None,
        memory: float | None = None,
        rate: float | None = None,
    ) -> None:
        self.spec = spec
        self.rate: float | None = rate if rate is not None else spec.meta.get("rate")
        columns = _columns(spec)
        self.sample_nbytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in columns.values())
        sizes = {
            "samples": samples,
            "nbytes": None if nbytes is None else units.parse_size(nbytes),
            "seconds": None if seconds is None else units.parse_duration(seconds),
            "memory": memory,
        }
        self.samples = _size(sizes, self.sample_nbytes, self.rate)
        self._columns = {
            name: np.empty((self.samples, *shape), dtype) for name, (dtype, shape) in columns.items()
        }
        self._shapes = columns
        self._piece = max(1, self.samples // 4)  # a push never takes so much that readers find nothing
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._producer = threading.Lock()
        self._waiting_readers = self._waiting_producers = 0
        self._head = self._tail = 0  # positions: one past the newest sample, and the oldest that is whole
        self._starts: list[int] = []  # segments: position and sequence number where each begins
        self._firsts: list[int] = []
        self._expected = 0
        self._device_gaps: list[ranges.Range] = []
        self._skipped: list[ranges.Range] = []
        self._cursors: tuple[Cursor, ...] = ()
        self._closed = False

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def pushed(self) -> int:
        """Samples taken in since the ring was made."""
        return self._head

    @property
    def produced(self) -> int:
        """Samples that the device numbered so far: pushed, lost by the device, or skipped."""
        return self._expected

    @property
    def nbytes(self) -> int:
        """Memory that the ring takes, in bytes."""
        return self.samples * self.sample_nbytes

    @property
    def device_gaps(self) -> list[ranges.Range]:
        """Ranges that the device lost, as ``[first, last]``: jumps between its blocks."""
        with self._lock:
            return ranges.copy(self._device_gaps)

    @property
    def device_lost(self) -> int:
        """Samples that the device lost."""
        return ranges.total(self.device_gaps)

    @property
    def skipped(self) -> list[ranges.Range]:
        """Ranges that were left out on purpose, as ``[first, last]``: see `skip`."""
        with self._lock:
            return ranges.copy(self._skipped)

    @property
    def closed(self) -> bool:
        """Whether the last sample has been pushed."""
        return self._closed

    def __repr__(self) -> str:
        return (
            f"<RingBuffer {self.samples} samples, {self.nbytes / 1e6:.1f} MB, {len(self._cursors)} cursors>"
        )

    # -- taking in -------------------------------------------------------------------------------------

    def push(self, block: Block) -> None:
        """Copy a block in. May be called from several threads, as long as the sequence grows.

        Waits where a cursor of the policy ``block`` asks for it.

        Raises
        ------
        StreamError
            If the ring is closed, the block is not as described, or its sequence numbers were there before.
        """
        given = self._check(block)
        first, count = _number(block), len(block.time)
        with self._producer:
            self._follow(first, count)
            for start in range(0, count, self._piece):
                self._push_piece(given, start, min(start + self._piece, count))

    def skip(self, block: Block) -> None:
        """Leave a block out on purpose (a pause): its range goes into `skipped`, not into a loss."""
        self._check(block)
        first = _number(block)
        with self._producer, self._lock:
            self._note_jump(first)
            self._expected = first + len(block.time)
            ranges.add(self._skipped, first, self._expected - 1)

    def close(self) -> None:
        """Say that nothing more will come; whoever waits is woken. What is in the ring can still be read."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()

    def _push_piece(self, given: Mapping[str, NDArray[Any]], start: int, stop: int) -> None:
        head = self._head
        tail = head + stop - start - self.samples
        for cursor in self._cursors:
            if cursor._position < tail:
                cursor._policy.hold(cursor, tail)
        with self._lock:
            if self._closed:
                raise StreamError("the ring is closed: nothing more can be pushed")
            for cursor in self._cursors:
                cursor._overrun(tail)
            self._tail = max(self._tail, tail)
        at = head % self.samples
        until = at + stop - start
        for name, rows in given.items():
            column = self._columns[name]
            if until <= self.samples:
                column[at:until] = rows[start:stop]
            else:
                split = start + self.samples - at
                column[at:] = rows[start:split]
                column[: stop - split] = rows[split:stop]
        with self._lock:
            self._head += stop - start
            if self._waiting_readers:  # to notify costs more than all the rest of a small push
                self._arrived.notify_all()

    def _check(self, block: Block) -> Mapping[str, NDArray[Any]]:
        given = {TIME: block.time, **block.data}
        if block.device_time is not None:
            given[DEVICE_TIME] = block.device_time
        if given.keys() != self._shapes.keys():
            raise StreamError(f"a block holds {sorted(given)}, but {sorted(self._shapes)} were described")
        count = len(block.time)
        for name, rows in given.items():
            dtype, shape = self._shapes[name]
            if rows.dtype != dtype or rows.shape != (count, *shape):
                raise StreamError(
                    f"{name!r} of a block is {rows.dtype} {rows.shape}, "
                    f"but {dtype} {(count, *shape)} was described"
                )
        return given

    def _follow(self, first: int, count: int) -> None:
        """Note where positions and sequence numbers part, before samples from `first` on are pushed."""
        with self._lock:
            self._note_jump(first)
            if count == 0:
                return
            self._expected = first + count
            if self._starts and self._firsts[-1] + self._head - self._starts[-1] == first:
                return
            if self._starts and self._starts[-1] == self._head:
                self._firsts[-1] = first
                return
            self._starts.append(self._head)
            self._firsts.append(first)
            if len(self._starts) > _MOST_SEGMENTS:
                done = bisect.bisect_right(self._starts, self._tail) - 1
                del self._starts[:done], self._firsts[:done]

    def _note_jump(self, first: int) -> None:
        if first < self._expected:
            raise StreamError(
                f"a block begins at sequence number {first}, but everything before {self._expected} was there"
            )
        ranges.add(self._device_gaps, self._expected, first - 1)
        self._expected = first

    # -- giving out ------------------------------------------------------------------------------------

    def cursor(
        self,
        policy: str = "drop_oldest",
        *,
        timeout: float | None = None,
        limit: int = 1_000_000_000,
        on_full: Callable[[], None] | None = None,
    ) -> Cursor:
        """Begin to read at what is pushed next.

        Parameters
        ----------
        policy : {"drop_oldest", "block", "grow"}
            What happens when this consumer is a whole ring behind. ``drop_oldest``: it loses the oldest
            samples. ``block``: the producer waits. ``grow``: the samples move into memory of its own.
        timeout : float, optional
            For ``block``: seconds that the producer waits at most; then this consumer loses samples, and
            is not waited for again before it has read. None waits for ever.
        limit : int
            For ``grow``: bytes of its own at most; beyond them it loses the oldest samples.
        on_full : callable, optional
            For ``block``: called when the producer begins to wait.

        Raises
        ------
        ValueError
            For another policy.
        """
        cursor = Cursor(self, make_policy(policy, timeout, limit, on_full), policy)
        with self._lock:
            cursor._attach(self._head, len(self._device_gaps))
            self._cursors = (*self._cursors, cursor)
        return cursor

    def latest(self, count: int) -> Block | None:
        """Copy the newest `count` samples, or as many as there are; None if there are none.

        Samples on both sides of a jump may be in it: `Block.first` belongs to the first of them, and the
        times tell where the jump is.
        """
        for locked in (False, True):
            with self._lock:
                start, stop = max(self._head - count, self._tail, 0), self._head
                if start >= stop:
                    return None
                first = self._sequence_at(start)
                if locked:
                    return self._block(first, self._copy(start, stop))
            columns = self._copy(start, stop)
            if self._tail <= start:
                return self._block(first, columns)
        raise AssertionError("the second attempt returns")

    def _copy(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Copy the samples of these positions; the caller sees to it that they are whole."""
        at = start % self.samples
        until = at + stop - start
        if until <= self.samples:
            return {name: column[at:until].copy() for name, column in self._columns.items()}
        rest = until - self.samples
        return {name: np.concatenate((column[at:], column[:rest])) for name, column in self._columns.items()}

    def _block(self, first: int, columns: Mapping[str, NDArray[Any]], torn: int = 0) -> Block:
        data = {name: columns[name][torn:] for name in self.spec.arrays}
        clock = columns.get(DEVICE_TIME)
        return Block(first + torn, columns[TIME][torn:], data, None if clock is None else clock[torn:])

    def _sequence_at(self, position: int) -> int:
        segment = bisect.bisect_right(self._starts, position) - 1
        return self._firsts[segment] + position - self._starts[segment]

    def _segment_end(self, position: int) -> int:
        """Give the position up to which sequence numbers run on from `position`."""
        segment = bisect.bisect_right(self._starts, position)
        return self._starts[segment] if segment < len(self._starts) else self._head

    def _detach(self, cursor: Cursor) -> None:
        self._cursors = tuple(other for other in self._cursors if other is not cursor)
        self._arrived.notify_all()
        self._room.notify_all()


def _number(block: Block) -> int:
    """Give the sequence number as Python's own integer: a driver's uint32 would wrap in the accounts."""
    try:
        return operator.index(block.first)
    except TypeError as error:
        raise StreamError(
            f"a block begins at sequence number {block.first!r}, which is no integer"
        ) from error


def _columns(spec: Stat) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    if taken := {TIME, DEVICE_TIME, SEQUENCE} & spec.arrays.keys():
        raise ValueError(
            f"a device can't name an array {sorted(taken)[0]!r}: every stream has one of its own"
        )
    columns: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {TIME: (np.dtype(np.int64), ())}
    if spec.meta.get("device_time"):
        columns[DEVICE_TIME] = (np.dtype(np.int64), ())
    for name, info in spec.arrays.items():
        columns[name] = (dtypes.parse(info.dtype), tuple(info.shape[1:]))
    return columns


def _size(sizes: Mapping[str, float | None], sample_nbytes: int, rate: float | None) -> int:
    import psutil

    given = {name: value for name, value in sizes.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(sizes)}, not {', '.join(given) or 'none'}")
    [(name, value)] = given.items()
    free = psutil.virtual_memory().available
    size = _samples(name, value, sample_nbytes, rate, free)
    if size < 1:
        raise ValueError(f"a ring of {name}={value} holds no sample of {sample_nbytes} bytes")
    if size * sample_nbytes > free:
        raise ValueError(
            f"a ring of {size} samples takes {size * sample_nbytes / 1e9:.1f} GB, "
            f"but {free / 1e9:.1f} GB are free"
        )
    return size


def _samples(name: str, value: float, sample_nbytes: int, rate: float | None, free: int) -> int:
    if name == "seconds":
        if not rate:
            raise ValueError("a ring in seconds needs a rate, and none is stated: give rate= or samples=")
        return math.ceil(value * rate)
    if name == "memory":
        if not 0 < value <= 1:
            raise ValueError(f"memory is a share of the free memory, between 0 and 1, not {value}")
        return int(value * free) // sample_nbytes
    return int(value) if name == "samples" else int(value) // sample_nbytes
