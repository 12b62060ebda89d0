"""The measured rate of something that counts."""

from __future__ import annotations

import time
from collections import deque

_STEP = 0.25


class RateMeter:
    """Samples per second over the last three seconds or so."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque(maxlen=12)
        self._next = 0.0
        self._ended: float | None = None

    def note(self, count: int) -> None:
        """Take in how many there are by now."""
        now = time.monotonic()
        if now >= self._next:
            self._history.append((now, count))
            self._next = now + _STEP

    def end(self) -> None:
        """Say that no more will come: the rate stays what it was."""
        if self._ended is None:
            self._ended = time.monotonic()

    def rate(self) -> float:
        """Give the rate; it goes down while nothing comes."""
        history = list(self._history)
        if len(history) < 2:
            return 0.0
        (begin, before), (last, after) = history[0], history[-1]
        silent = (self._ended or time.monotonic()) - last
        usual = (last - begin) / (len(history) - 1)
        return (after - before) / (last - begin + (silent if silent > 2 * usual else 0.0))
