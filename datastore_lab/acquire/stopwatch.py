"""How long something went on, without its pauses."""

from __future__ import annotations

import time


class Stopwatch:
    """Counts seconds while it runs.

    Examples
    --------
    >>> watch = Stopwatch()
    >>> watch.stop(), watch.seconds
    (None, 0.0)
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        since = self._since
        return self._before + (0.0 if since is None else time.monotonic() - since)

    def start(self) -> None:
        """Begin, or go on."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.seconds, None
