"""A device made of a connection: open while it runs, feeding samples from a thread or from callbacks."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from datastore_lab.acquire.devices.feed import Feed, failure_of
from datastore_lab.acquire.devices.pace import Pace
from datastore_lab.errors import DeviceFailed, MissingExtra

if TYPE_CHECKING:
    from datastore_lab.records import Block, Stat

Connect = Callable[[Feed], AbstractContextManager[object]]
"""Opens the connection for a feed; leaving the context closes it."""


class SourceDevice:
    """A device whose samples come over a connection; what all ``from_...`` functions return.

    Parameters
    ----------
    name : str
        Name of the stream.
    spec : Stat, or callable that gives one
        What it gives; a callable is asked once, when it is first needed.
    connect : callable
        Takes a `Feed` and gives a context manager, which is open while the device runs.
    advice : str, optional
        What a user can do when it fails.
    """

    def __init__(
        self, name: str, spec: Stat | Callable[[], Stat], connect: Connect, *, advice: str = ""
    ) -> None:
        self.name = name
        self._spec, self._connect, self._advice = spec, connect, advice
        self._feed: Feed | None = None
        self._connection: AbstractContextManager[object] | None = None
        self._lock = threading.Lock()

    def describe(self) -> Stat:
        """Say what the blocks will hold; asks the device where that was not said when it was made."""
        if callable(self._spec):
            with self._explained("can't describe itself"):
                self._spec = self._spec()
        return self._spec

    def start(self) -> None:
        """Open the connection and begin to sample.

        Raises
        ------
        DeviceFailed
            If it can't be reached.
        """
        spec = self.describe()
        with self._lock:
            if self._connection is not None:
                return
            if self._feed is not None and self._feed.busy:
                raise DeviceFailed(
                    f"the device {self.name!r} still hangs in what it was asked before it was "
                    "stopped; wait, or switch it off and on",
                    key=self.name,
                )
            feed = Feed(self.name, spec, self._advice)
            with self._explained("can't be started"):
                connection = self._connect(feed)
                connection.__enter__()
            self._feed, self._connection = feed, connection
            atexit.register(self.stop)  # a thread inside a vendor's library may abort a process that ends

    def read(self, timeout: float, most: int | None = None) -> Block | None:
        """Wait at most `timeout` seconds for the next samples, at most `most`; None if there are none."""
        feed = self._feed
        return None if feed is None else feed.read(timeout, most)

    def stop(self) -> None:
        """Close the connection; returns within about a second, also if the device hangs."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None or self._feed is None:
                return
            atexit.unregister(self.stop)
            self._feed.close()
            with self._explained("can't be stopped"):
                connection.__exit__(None, None, None)

    @property
    def finished(self) -> bool:
        """Whether the source is at its end (a generator that returned, a file played to its last sample)."""
        return self._feed is not None and self._feed.finished

    def __repr__(self) -> str:
        state = "stopped" if self._connection is None else "running"
        return f"<device {self.name!r}, {state}>"

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except MissingExtra:
            raise
        except Exception as error:
            raise failure_of(self.name, error, self._advice, what) from error.__cause__ or error


def poll(feed: Feed, take: Callable[[int], None], rate: float, first: int = 0) -> None:
    """Take a sample per period until the feed is closed; `take` is told its number, and puts it.

    A sample that was due while the one before was still awaited is lost, and its number is left out.
    """
    pace, tick = Pace(rate), first
    pace.start()
    while not feed.closed.wait(max(0.0, pace.ahead(tick))):
        take(tick)
        tick = max(tick + 1, pace.due() - 1)
