"""A ring that another process fills, looked at from this one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datastore_lab.acquire import ranges, shared
from datastore_lab.acquire.core import Core
from datastore_lab.acquire.cursor import Cursor
from datastore_lab.acquire.policies import DropOldest
from datastore_lab.errors import Corrupt, LabError, RunAborted
from datastore_lab.locks import same_file

if TYPE_CHECKING:
    from datastore_lab.records import Block

_POLL = 0.001
_LIFE = 0.2
"""Seconds between two looks whether the producer is alive."""


class RingReader:
    """Follows a `RingBuffer` that was made with a path, from another process.

    The producer knows nothing of its readers and waits for none: whoever is too slow loses the oldest
    samples, with an exact account as everywhere. Once the producer has died, what is left can be read, and
    then each attempt to read raises `RunAborted`.

    Parameters
    ----------
    path : path
        As given to the ring.

    Attributes
    ----------
    spec : Stat
        What the device described.
    samples : int
        Size of the ring.
    pid : int
        Process that fills it.

    Raises
    ------
    Foreign, Newer
        For another kind of file, or a ring of another version of this package.
    Corrupt
        If the file is damaged, cut short, or has another size than it should.
    EngineError
        If it can't be opened.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from datastore_lab import RingBuffer
    >>> from datastore_lab.records import ArrayInfo, Block, Stat
    >>> path = Path(tempfile.mkdtemp()) / "ring"
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 10.0})
    >>> ring = RingBuffer(spec, samples=100, path=path)
    >>> with RingReader(path) as reader, reader.cursor() as cursor:
    ...     ring.push(Block(0, np.arange(3), {"x": np.arange(3.0)}))
    ...     cursor.read().data["x"]
    array([0., 1., 2.])
    >>> ring.close()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.spec, self._header, memory, self._handle = shared.attach(path)
        self._path = os.fspath(path)
        self._size = os.fstat(self._handle).st_size
        self._lock = threading.Lock()
        self._jumps = 0
        self._looked = 0.0
        self._left = False
        self.samples, self.pid = memory.samples, self._header.owner.pid
        self._core = Core(self.spec, memory, _Following(self), _Polling(self), holds=False)

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def pushed(self) -> int:
        """Samples that the ring took in since it was made."""
        with self._core.lock:
            return self._core.head

    @property
    def produced(self) -> int:
        """Samples that the device numbered so far: pushed, lost by the device, or skipped."""
        with self._core.lock:
            return self._header.expected

    @property
    def closed(self) -> bool:
        """Whether nothing more will come: the producer said so, or it has died."""
        with self._core.lock:
            return self._core.closed

    @property
    def alive(self) -> bool:
        """Whether the process that fills the ring still runs, and this is still its ring."""
        return not self._left and self._header.owner.alive and same_file(self._handle, self._path)

    @property
    def device_gaps(self) -> list[ranges.Range]:
        """Jumps that this reader has seen: what the device lost, or what was left out in a pause."""
        with self._core.lock:
            return ranges.copy(self._core.device_gaps)

    def __repr__(self) -> str:
        return f"<RingReader {self.samples} samples, filled by process {self.pid}>"

    # -- reading ---------------------------------------------------------------------------------------

    def cursor(self, name: str = "reader") -> Cursor:
        """Begin to read at what is pushed next."""
        cursor = Cursor(self._core, DropOldest(), "drop_oldest", name)
        self._core.attach(cursor)
        return cursor

    def latest(self, count: int) -> Block | None:
        """Copy the newest samples, as `RingBuffer.latest`; None also if the producer lapped it."""
        return self._core.latest(count)

    def recent(self, since: int) -> list[Block]:
        """Copy what the ring still holds from a moment in ns on, as `RingBuffer.recent`."""
        return self._core.recent(since)

    def close(self) -> None:
        """Let go of the file; views and cursors are of no use from then on."""
        with self._lock:
            if not self._left:
                self._left = True
                os.close(self._handle)

    def __enter__(self) -> RingReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Take over what the producer did since; the caller holds the lock."""
        if self._left:
            raise RunAborted(f"the reader of the ring {self._path!r} was closed", key=self._path)
        core = self._core
        shared.check_size(self._handle, self._size, self._path)
        head, tail, closed = self._header.read()
        if head < core.head or tail > head:
            raise Corrupt(f"the ring {self._path!r} is damaged: its positions go back", key=self._path)
        self._follow_jumps()
        core.head = head
        core.overrun(max(tail, head - self.samples))  # it was read before the head, and may be behind
        core.segments.forget(core.tail)
        core.closed = closed or core.closed
        self._look_after(moved=head)

    def _follow_jumps(self) -> None:
        core = self._core
        known = self._jumps
        self._jumps, jumps = self._header.jumps_from(known)
        if jumps and self._jumps - len(jumps) > known:
            self._lose_track(*jumps[0])
        for position, first in jumps:
            if core.segments.starts:
                expected = core.segments.number(position)
                ranges.add(core.device_gaps, expected, first - 1)
            core.segments.add(position, first)

    def _lose_track(self, position: int, first: int) -> None:
        """Go on at a jump: of those before there are too many, so what they number is lost to this reader."""
        core = self._core
        for cursor in core.cursors:
            if cursor.position < position:
                cursor.lose_until(position, first)
        core.tail = max(core.tail, position)
        core.segments.starts.clear()
        core.segments.firsts.clear()

    def _look_after(self, moved: int) -> None:
        """Look from time to time whether the producer is alive, where nothing comes."""
        core, now = self._core, time.monotonic()
        if core.closed or core.fault is not None or now - self._looked < _LIFE:
            return
        self._looked = now
        if not self.alive and self._header.read()[0] == moved and not self._header.read()[2]:
            core.closed = True
            core.fault = RunAborted(
                f"the process {self.pid}, which filled the ring {self._path!r}, ended without closing it; "
                "everything that was in it has been read",
                key=self._path,
            )


class _Following:
    """A lock under which what the other process did is taken over first."""

    def __init__(self, reader: RingReader) -> None:
        self._reader, self._lock = reader, reader._lock

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._reader._sync()
        except LabError:
            self._lock.release()
            raise

    def __exit__(self, *_exc: Any) -> None:
        self._lock.release()


class _Polling:
    """Waiting for another process: to look again costs less than to have it tell us."""

    def __init__(self, reader: RingReader) -> None:
        self._reader = reader

    def wait_samples(self, predicate: Callable[[], object], timeout: float | None) -> None:
        ends = None if timeout is None else time.monotonic() + timeout
        while not predicate() and (ends is None or time.monotonic() < ends):
            self._reader._lock.release()
            try:
                time.sleep(_POLL)
            finally:
                self._reader._lock.acquire()
            self._reader._sync()

    def wait_room(self, predicate: Callable[[], object], timeout: float | None) -> bool:
        """No producer of this process waits for this ring."""
        raise NotImplementedError

    def samples_came(self) -> None:
        """Nobody of this process waits."""

    def room_came(self) -> None:
        """Nobody of this process waits."""
