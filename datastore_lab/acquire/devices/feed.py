"""What arrives while a device runs: put in by a thread or a callback, taken out by `read`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.acquire.devices.layout import fit_row, join_blocks, row_nbytes
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import Block

if TYPE_CHECKING:
    from datastore_lab.records import Stat

_MOST_BYTES = 64_000_000
_MOST_SAMPLES = 100_000
"""What is kept until it is read; what is older is lost, and shows as a jump of the sequence numbers."""

_BLOCK_BYTES = 8_000_000
_GRACE = 1.0
"""Seconds that `close` waits for a thread that is busy with the device."""


class Feed:
    """The arrivals of one device from its start to its stop; what it can't keep is lost, and counted.

    Parameters
    ----------
    name : str
        Of the device, for messages.
    spec : Stat
        What was described; each arrival is held against it.
    advice : str, optional
        What a user can do when it fails.

    Attributes
    ----------
    closed : threading.Event
        Set once nothing more is wanted; sources wait on it in place of sleeping.
    """

    def __init__(self, name: str, spec: Stat, advice: str = "") -> None:
        self.closed = threading.Event()
        self._name, self._spec, self._advice = name, spec, advice
        size = max(row_nbytes(spec), 1)
        self._arrived: deque[Block] = deque()
        self._kept, self._most = 0, max(4, min(_MOST_SAMPLES, _MOST_BYTES // size))
        self._block = max(1, _BLOCK_BYTES // size)
        self._news = threading.Condition()
        self._failure: DeviceFailed | None = None
        self._next = self._last = 0
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def finished(self) -> bool:
        """Whether the source has come to its end, and everything was read."""
        with self._news:
            return self._ended and not self._arrived

    def run(self, work: Callable[[Feed], None]) -> None:
        """Let a thread work for the device until it returns, fails or finds `closed` set."""
        self._thread = threading.Thread(
            target=self._guarded, args=(work,), name=f"device {self._name}", daemon=True
        )
        self._thread.start()

    def put(
        self,
        sample: Any,
        *,
        number: int | None = None,
        stamp: int | None = None,
        device_time: int | None = None,
    ) -> None:
        """Take a sample.

        Parameters
        ----------
        sample : mapping of str to array, or a single value
        number : int, optional
            Its sequence number; by default one more than the last.
        stamp : int, optional
            When it was taken, in ns since 1970, UTC, by the host's clock; by default now.
        device_time : int, optional
            The same by the device's own clock.

        Raises
        ------
        DeviceFailed
            If it is not what was described.
        """
        rows = {name: array[None] for name, array in fit_row(self._name, self._spec, sample).items()}
        stamp = time.time_ns() if stamp is None else stamp
        own = None if device_time is None else np.array([device_time], dtype=np.int64)
        with self._news:
            number = self._next if number is None else number
            self._put(Block(number, np.array([stamp], dtype=np.int64), rows, own))

    def put_block(self, block: Block) -> None:
        """Take samples that came together, as they were described."""
        with self._news:
            self._put(block)

    def lose(self, count: int = 1) -> None:
        """Note that samples were lost: the sequence numbers jump."""
        with self._news:
            self._next += count

    @property
    def next(self) -> int:
        """The sequence number of the next sample."""
        return self._next

    def _put(self, block: Block) -> None:
        if self._failure is not None:
            return  # what followed the failure would hide that something is missing in between
        # a clock that was set back must not make the stream run backwards
        stamps = np.maximum.accumulate(np.maximum(block.time, self._last))
        self._last, self._next = int(stamps[-1]), block.first + len(stamps)
        self._arrived.append(block._replace(time=stamps))
        self._kept += len(stamps)
        while self._kept > self._most and len(self._arrived) > 1:
            self._kept -= len(self._arrived.popleft().time)
        self._news.notify()

    def fail(self, error: BaseException) -> None:
        """Let `read` raise an error once it has given what came before."""
        with self._news:
            if self._failure is None:
                self._failure = failure_of(self._name, error, self._advice)
            self._news.notify_all()

    def end(self) -> None:
        """Say that the source is at its end."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def read(self, timeout: float, most: int | None = None) -> Block | None:
        """Wait at most `timeout` seconds for samples; `most` are given of those that came one by one.

        Raises
        ------
        DeviceFailed
            If the source failed.
        """
        with self._news:
            self._news.wait_for(self._something, max(0.0, timeout))
            if self.closed.is_set():
                return None
            if not self._arrived and self._failure is not None:
                raise self._failure
            taken = self._take(self._block if most is None else most)
        return join_blocks(self._spec, taken) if taken else None

    def close(self) -> bool:
        """End, wake whoever waits, and wait up to a second for the thread; says whether it is gone."""
        with self._news:
            self.closed.set()
            self._arrived.clear()
            self._news.notify_all()
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(_GRACE)
        return not self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether its thread has not returned yet."""
        return self._thread is not None and self._thread.is_alive()

    def _something(self) -> bool:
        return bool(self._arrived) or self._failure is not None or self._ended or self.closed.is_set()

    def _take(self, most: int) -> list[Block]:
        taken: list[Block] = []
        count = 0
        while self._arrived and count < most:
            if taken and self._arrived[0].first != taken[-1].first + len(taken[-1].time):
                break  # a block holds consecutive samples: what was lost lies between two blocks
            taken.append(self._arrived.popleft())
            count += len(taken[-1].time)
        self._kept -= count
        return taken

    def _guarded(self, work: Callable[[Feed], None]) -> None:
        try:
            work(self)
        except BaseException as error:
            self.fail(error)


def failure_of(name: str, error: BaseException, advice: str = "", what: str = "failed") -> DeviceFailed:
    """Make a `DeviceFailed` of whatever went wrong; one that is one already stays as it is."""
    if isinstance(error, DeviceFailed):
        return error
    why = f"{type(error).__name__}: {str(error)[:500]}".rstrip(": ")
    failure = DeviceFailed(f"the device {name!r} {what}: {why}" + (f"; {advice}" if advice else ""), key=name)
    failure.__cause__ = error
    return failure
