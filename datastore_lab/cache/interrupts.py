"""Whether a computation was interrupted, also where it caught the interrupt: what it gives then is a part."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """What was noticed.

    Attributes
    ----------
    seen : bool
        Whether there was an interrupt, by Ctrl-C or by the stop button of a notebook.
    """

    def __init__(self) -> None:
        self.seen = False


@contextlib.contextmanager
def noticing() -> Iterator[Interrupts]:
    """Notice interrupts inside, and let them do what they do; only the main thread is interrupted.

    Examples
    --------
    >>> with noticing() as interrupts:
    ...     try:
    ...         signal.raise_signal(signal.SIGINT)
    ...     except KeyboardInterrupt:
    ...         pass
    >>> interrupts.seen
    True
    """
    found = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield found
        return

    def note(number: int, frame: FrameType | None) -> None:
        found.seen = True
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
