"""Holding back Ctrl-C for as long as something is done that must not stop half-way."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Uninterrupted:
    """What is done inside is not stopped by Ctrl-C, nor by "interrupt the kernel": that comes right after.

    Python raises `KeyboardInterrupt` between any two steps of the main thread, also between a change and the
    note that it was made, and in the middle of a library that knows no such thing.

    Examples
    --------
    >>> done = []
    >>> try:
    ...     with Uninterrupted():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("all of it")
    ... except KeyboardInterrupt:
    ...     done.append("then stopped")
    >>> done
    ['all of it', 'then stopped']
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._waits = False

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals are handled by the main thread alone
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            signal.signal(signal.SIGINT, self._note)
            self._handler = handler

    def __exit__(self, *_exc: object) -> None:
        if self._handler is None:
            return
        handler, self._handler = self._handler, None
        signal.signal(signal.SIGINT, handler)
        if self._waits:
            handler(signal.SIGINT, None)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._waits = True
