"""Work that the page asked for, away from the thread that received the message."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

Job = Callable[[], None]


class Worker:
    """Runs jobs one after the other in a thread that exists only while there are some.

    A message handler runs in the kernel's main thread or in a subshell thread that all widgets share, so
    it may do no more than `submit`. A job that raises ends itself only: what a job may raise it has to
    show to the user on its own.

    Parameters
    ----------
    name : str
        Name of the thread.

    Examples
    --------
    >>> worker, seen = Worker("example"), []
    >>> worker.submit(lambda: seen.append(1))
    >>> worker.close()
    >>> seen
    [1]
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once. Does nothing after `close`."""
        with self._lock:
            if self._closed:
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._drain, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Take no more jobs, and wait for those that were queued."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _drain(self) -> None:
        try:
            while (job := self._next()) is not None:
                job()
        except BaseException:
            with self._lock:  # the thread dies with its error shown; the next job gets a new one
                self._thread = None
            raise

    def _next(self) -> Job | None:
        with self._lock:
            if not self._jobs:
                self._thread = None
                return None
            return self._jobs.popleft()


def off_main(widget: Any) -> None:
    """Let the page choose the subshell that handles a widget's messages.

    ipykernel 7.4 sends them to the shell that last sent on the widget's comm: the one of the cell that
    made it, so that a Stop would wait until that cell has ended. Versions without this routing are left
    as they are.
    """
    comm: Any = getattr(widget, "comm", None)
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # there is no public way
