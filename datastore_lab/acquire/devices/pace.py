"""Keeping a rate by the clock, without drift."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pace:
    """Sample number n is due n periods after the start, however late anybody was before.

    Parameters
    ----------
    rate : float
        Samples per second.
    """

    def __init__(self, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"a rate is a positive number of samples per second, not {rate}")
        self.rate = rate
        self._stopped = threading.Event()
        self._stopped.set()
        self._monotonic = 0.0
        self._utc = 0

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return not self._stopped.is_set()

    def start(self) -> None:
        """Begin at sample 0, now."""
        self._monotonic, self._utc = time.monotonic(), time.time_ns()
        self._stopped.clear()

    def stop(self) -> None:
        """End, and wake whoever waits."""
        self._stopped.set()

    def due(self) -> int:
        """Count the samples whose time has come."""
        return int((time.monotonic() - self._monotonic) * self.rate) + 1

    def ahead(self, number: int) -> float:
        """Give the seconds until sample `number` is due; negative once it is."""
        return self._monotonic + number / self.rate - time.monotonic()

    def wait(self, number: int, timeout: float) -> bool:
        """Wait at most `timeout` seconds until sample `number` is due; says whether it is."""
        ahead = self.ahead(number)
        if ahead > 0 and not self._stopped.wait(min(ahead, timeout)):
            ahead = self.ahead(number)
        return ahead <= 0 and self.running

    def times(self, first: int, count: int) -> NDArray[Any]:
        """Give the nominal UTC times of samples in ns, as int64 of shape (count,)."""
        offsets = np.arange(first, first + count) * (1e9 / self.rate)
        return self._utc + offsets.astype(np.int64)
