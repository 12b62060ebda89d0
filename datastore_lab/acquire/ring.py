"""The ring between devices and consumers: one contiguous buffer per array, one cursor per consumer.

Positions count what was pushed; sequence numbers are the device's own and jump where the device lost
samples, so that every loss, the device's and each consumer's, is known as exact ranges of sequence numbers.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire import columns, ranges
from datastore_lab.acquire.core import Core, local
from datastore_lab.acquire.cursor import Cursor
from datastore_lab.acquire.meter import RateMeter
from datastore_lab.acquire.policies import make_policy
from datastore_lab.acquire.stacks import unstack
from datastore_lab.errors import StreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.acquire.shared import Header
    from datastore_lab.records import Block, Stat


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
    path : path, optional
        A file in which the ring lies, best in a file system in memory such as ``/dev/shm``: other processes
        follow it with `RingReader`. It stays after `close`, so that they can read what is left; the next ring
        at this path takes its place.

    Raises
    ------
    ValueError
        Unless exactly one size is given, or if it holds no sample or more than the free memory.
    AlreadyExists
        If there is something else at `path`.
    Locked
        If a ring lies there whose process is alive.
    EngineError
        If the disk is too full for the file, or it can't be made.

    Examples
    --------
    >>> import numpy as np
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
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.spec = spec
        self.rate: float | None = rate if rate is not None else spec.meta.get("rate")
        layout = columns.layout_of(spec)
        self.sample_nbytes = columns.sample_nbytes(layout)
        sizes = {"samples": samples, "nbytes": nbytes, "seconds": seconds, "memory": memory}
        self.samples = columns.count_samples(sizes, self.sample_nbytes, self.rate)
        self._header: Header | None = None
        if path is None:
            memory_of = columns.Columns(layout, self.samples)
        else:
            from datastore_lab.acquire import shared

            self._header, memory_of = shared.create(path, spec, layout, self.samples)
        self._core: Core = local(spec, memory_of)
        self._shapes = layout
        self._producer = threading.Lock()
        self._expected = 0
        self._skipped: list[ranges.Range] = []
        self._meter = RateMeter()
        self._named = 0

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def pushed(self) -> int:
        """Samples taken in since the ring was made."""
        return self._core.head

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
        with self._core.lock:
            return ranges.copy(self._core.device_gaps)

    @property
    def device_lost(self) -> int:
        """Samples that the device lost."""
        return ranges.total(self.device_gaps)

    @property
    def skipped(self) -> list[ranges.Range]:
        """Ranges that were left out on purpose, as ``[first, last]``: see `skip`."""
        with self._core.lock:
            return ranges.copy(self._skipped)

    @property
    def closed(self) -> bool:
        """Whether the last sample has been pushed."""
        return self._core.closed

    def measured_rate(self) -> float:
        """Measure the samples per second, over the last three seconds or so."""
        return self._meter.rate()

    def stop_meter(self) -> None:
        """Say that the device has ended: the measured rate stays what it was."""
        self._meter.end()

    def stats(self) -> dict[str, Any]:
        """Give the figures of the ring and of each consumer.

        Returns
        -------
        dict
            ``{"rate": samples per second as measured, "pushed": samples, "produced": samples that the device
            numbered, "device_lost": samples, "skipped": samples, "samples": size, "nbytes": size in bytes,
            "fill": the part of the ring that waits for the slowest consumer (0 to 1), "consumers": {name:
            {"policy": text, "delivered": samples, "lag": samples behind, "fill": the part of the ring that
            waits for it, "lost": samples}}}``.
        """
        consumers: dict[str, dict[str, Any]] = {}
        for cursor in self._core.cursors:
            counts = cursor.counts
            consumers[cursor.name] = {
                "policy": cursor.policy,
                "delivered": counts.delivered,
                "lag": counts.pending,
                "fill": min(1.0, counts.pending / self.samples),
                "lost": counts.lost,
            }
        return {
            "rate": self.measured_rate(),
            "pushed": self.pushed,
            "produced": self.produced,
            "device_lost": self.device_lost,
            "skipped": ranges.total(self.skipped),
            "samples": self.samples,
            "nbytes": self.nbytes,
            "fill": max((each["fill"] for each in consumers.values()), default=0.0),
            "consumers": consumers,
        }

    def __repr__(self) -> str:
        cursors = len(self._core.cursors)
        return f"<RingBuffer {self.samples} samples, {self.nbytes / 1e6:.1f} MB, {cursors} cursors>"

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
        piece = self._core.piece
        with self._producer:
            self._follow(first, count)
            for start in range(0, count, piece):
                self._push_piece(given, start, min(start + piece, count))

    def push_many(self, stack: Block) -> None:
        """Copy many equal blocks in at once: what a card hands over as one buffer of many blocks.

        Parameters
        ----------
        stack : Block
            The arrays have the shapes (blocks, samples, ...); `Block.first` is the sequence number of the
            first sample of the first block, and the others follow without a jump. `Block.time`, and
            `Block.device_time` if the stream has one, are int64 of shape (blocks,), the moment at which each
            block began, or (blocks, samples). In the first case the samples of a block lie one period of
            the ring's rate apart.

        Raises
        ------
        StreamError
            As of `push`, and if times are given per block and no rate is known.

        Examples
        --------
        >>> import numpy as np
        >>> from datastore_lab.records import ArrayInfo, Block, Stat
        >>> spec = Stat("stream", {"x": ArrayInfo("<i2", (0,), ("time",), 0, None)}, {"rate": 1000.0})
        >>> ring = RingBuffer(spec, samples=100)
        >>> ring.push_many(Block(0, np.array([0, 3_000_000]), {"x": np.arange(6, dtype="i2").reshape(2, 3)}))
        >>> ring.latest(4).time, ring.latest(4).data["x"]
        (array([2000000, 3000000, 4000000, 5000000]), array([2, 3, 4, 5], dtype=int16))
        """
        self.push(unstack(stack, self.rate))

    def skip(self, block: Block) -> None:
        """Leave a block out on purpose (a pause): its range goes into `skipped`, not into a loss."""
        self._check(block)
        first = _number(block)
        with self._producer, self._core.lock:
            self._note_jump(first)
            self._expected = first + len(block.time)
            ranges.add(self._skipped, first, self._expected - 1)
            self._meter.note(self._expected)

    def close(self) -> None:
        """Say that nothing more will come; whoever waits is woken. What is in the ring can still be read."""
        with self._core.lock:
            self._core.closed = True
            self._meter.end()
            if self._header is not None:
                self._header.close()
            self._core.signals.samples_came()
            self._core.signals.room_came()

    def _push_piece(self, given: Mapping[str, NDArray[Any]], start: int, stop: int) -> None:
        core = self._core
        head = core.head
        tail = head + stop - start - self.samples
        for cursor in core.cursors:
            if cursor.position < tail:
                cursor.hold(tail)
        with core.lock:
            if core.closed:
                raise StreamError("the ring is closed: nothing more can be pushed")
            core.overrun(tail)
            if self._header is not None:
                self._header.set_tail(core.tail)
        core.columns.put(head, given, start, stop)
        with core.lock:
            core.head = head + stop - start
            if self._header is not None:
                self._header.set_head(core.head, self._expected)
            core.signals.samples_came()

    def _check(self, block: Block) -> Mapping[str, NDArray[Any]]:
        given = {columns.TIME: block.time, **block.data}
        if block.device_time is not None:
            given[columns.DEVICE_TIME] = block.device_time
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
        core = self._core
        with core.lock:
            self._note_jump(first)
            if count == 0:
                return
            self._expected = first + count
            self._meter.note(self._expected)
            if core.segments.follow(core.head, first, core.tail) and self._header is not None:
                self._header.add_segment(core.head, first)

    def _note_jump(self, first: int) -> None:
        if first < self._expected:
            raise StreamError(
                f"a block begins at sequence number {first}, but everything before {self._expected} was there"
            )
        ranges.add(self._core.device_gaps, self._expected, first - 1)
        self._expected = first

    # -- giving out ------------------------------------------------------------------------------------

    def cursor(
        self,
        policy: str = "drop_oldest",
        *,
        timeout: float | None = None,
        limit: int | None = None,
        on_full: Callable[[], None] | None = None,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> Cursor:
        """Begin to read at what is pushed next.

        Parameters
        ----------
        policy : {"drop_oldest", "block", "grow", "spill"}
            What happens when this consumer is a whole ring behind. ``drop_oldest``: it loses the oldest
            samples. ``block``: the producer waits. ``grow``: the samples move into memory of its own.
            ``spill``: they move into a file.
        timeout : float, optional
            For ``block``: seconds that the producer waits at most; then this consumer loses samples, and
            is not waited for again before it has read. None waits for ever.
        limit : int, optional
            For ``grow``: bytes of its own at most, 1 GB by default; beyond them it loses the oldest samples.
            For ``spill``: bytes of the file at most, 10 GB by default; what comes when it is full, or the
            disk is, is lost.
        on_full : callable, optional
            For ``block``: called when the producer begins to wait.
        folder : path, optional
            For ``spill``: where the file lies; the temporary folder by default. It is removed when the
            cursor is closed; after a crash `Spilled` reads it.
        name : str, optional
            In `stats`; a number by default.

        Raises
        ------
        ValueError
            For another policy, or for samples that can't lie in a file.
        """
        keeper = make_policy(self._core, policy, timeout=timeout, limit=limit, on_full=on_full, folder=folder)
        self._named += 1
        taken = {cursor.name for cursor in self._core.cursors}
        label = name if name and name not in taken else f"{name or 'consumer'} {self._named}"
        cursor = Cursor(self._core, keeper, policy, label)
        self._core.attach(cursor)
        return cursor

    def latest(self, count: int) -> Block | None:
        """Copy the newest `count` samples, or as many as there are; None if there are none.

        Samples on both sides of a jump may be in it: `Block.first` belongs to the first of them, and the
        times tell where the jump is.
        """
        return self._core.latest(count)

    def recent(self, since: int) -> list[Block]:
        """Copy what the ring still holds from a moment on.

        Parameters
        ----------
        since : int
            UTC by the host's clock, in ns since 1970.

        Returns
        -------
        list of Block
            Oldest first, without a jump within a block.
        """
        return self._core.recent(since)


def _number(block: Block) -> int:
    """Give the sequence number as Python's own integer: a driver's uint32 would wrap in the accounts."""
    try:
        return operator.index(block.first)
    except TypeError as error:
        raise StreamError(
            f"a block begins at sequence number {block.first!r}, which is no integer"
        ) from error
