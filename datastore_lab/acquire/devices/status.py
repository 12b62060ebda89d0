"""Something that was asked for and takes its time, as bluesky's ``Status`` protocol has it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from datastore_lab.errors import DeviceFailed


class Status:
    """What `set` of a movable device returns: done later, with or without an error.

    Parameters
    ----------
    what : str
        What was asked for, for messages.

    Examples
    --------
    >>> status = Status("moving to 3 mm")
    >>> status.add_callback(lambda status: print("there:", status.success))
    >>> status.finish()
    there: True
    >>> status.wait(timeout=1.0)
    """

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._callbacks: list[Callable[[Status], None]] = []

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._done.is_set()

    @property
    def success(self) -> bool:
        """Whether it is over and went well."""
        return self.done and self._error is None

    def exception(self, timeout: float | None = 0.0) -> Exception | None:
        """Wait, and give what went wrong; None if nothing did.

        Raises
        ------
        DeviceFailed
            If it is not over in time.
        """
        if not self._done.wait(timeout):
            raise DeviceFailed(f"not done within {timeout} s: {self._what}")
        return self._error

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is over.

        Raises
        ------
        DeviceFailed
            If it is not over in time.
        Exception
            What went wrong.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error

    def add_callback(self, callback: Callable[[Status], None]) -> None:
        """Call a function with this status once it is over; at once if it is already."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    def finish(self, error: Exception | None = None) -> None:
        """Say that it is over; a second time changes nothing."""
        with self._lock:
            if self.done:
                return
            self._error = error
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def __repr__(self) -> str:
        state = ("done" if self.success else f"failed: {self._error}") if self.done else "going on"
        return f"<Status {self._what or 'of a device'}: {state}>"
