"""How far behind the page is, and whether anybody is looking."""

from __future__ import annotations

import threading
import time
from typing import Any

IN_FLIGHT = 12
"""Frames that may be on their way to the page at once."""

OPEN_LOOP = 0.1
"""Seconds between frames to a page that acknowledges nothing: it may be about to come back."""

LONGEST = 0.5
"""Seconds between frames to the slowest page."""

TOLERATED = 0.6
"""Share of the frames that a page may drop before it gets fewer."""

SILENCE = 30.0
"""Seconds after which a page that says nothing counts as gone; a living one speaks every five."""


class Link:
    """The pages of one panel: who looks, and what they have acknowledged.

    Parameters
    ----------
    fps : float
        Frames per second that a page gets at most; one that drops frames gets fewer until it keeps up.

    Attributes
    ----------
    skipped : int
        Frames that were not sent because the page was behind.
    interval : float
        Seconds to wait between two frames.

    Examples
    --------
    >>> link = Link(30)
    >>> link.hear({"op": "ready", "page": "a", "visible": True})
    >>> link.watched
    True
    >>> numbers = [link.take() for _ in range(13)]
    >>> numbers[0], numbers[11], numbers[12], link.skipped
    (1, 12, None, 1)
    >>> link.hear({"op": "ack", "page": "a", "visible": True, "seq": 12})
    >>> link.take()
    13
    """

    def __init__(self, fps: float) -> None:
        self.skipped = 0
        self.interval = self._shortest = 1.0 / fps
        self._dropped = 0
        self._sent = self._acked = 0
        self._last = 0.0
        self._pages: dict[str, tuple[float, bool]] = {}
        self._lock = threading.Lock()

    def hear(self, message: dict[str, Any]) -> None:
        """Take note of any message of a page."""
        page = str(message.get("page", ""))
        with self._lock:
            if message.get("op") == "gone":
                self._pages.pop(page, None)
                return
            ready = message.get("op") == "ready" or page in self._pages
            if ready:
                self._pages[page] = (time.monotonic(), bool(message.get("visible")))
            if message.get("op") == "ready":
                self._acked = self._sent  # what was under way to a page that is gone is not coming back
            elif message.get("op") == "ack":
                acked = max(self._acked, min(int(message["seq"]), self._sent))
                self._adapt(acked - self._acked, int(message.get("dropped", 0)))
                self._acked = acked

    def _adapt(self, frames: int, dropped: int) -> None:
        """Send less to a page that drops most of it: that costs this computer as much as what is shown.

        Half of the frames may be dropped without meaning anything: the server's socket holds small
        messages back and sends them in pairs.
        """
        behind = dropped - self._dropped > TOLERATED * frames
        slower, quicker = min(LONGEST, self.interval * 1.25), max(self._shortest, self.interval * 0.95)
        self.interval = slower if behind else quicker
        self._dropped = dropped

    @property
    def attended(self) -> bool:
        """Whether any page is there."""
        return bool(self._living())

    @property
    def watched(self) -> bool:
        """Whether any page has its panel in sight."""
        return any(self._living())

    def take(self) -> int | None:
        """Give the number of a frame that may be sent now, or None and count it as skipped."""
        now = time.monotonic()
        with self._lock:
            if self._sent - self._acked >= IN_FLIGHT and now - self._last < OPEN_LOOP:
                self.skipped += 1
                return None
            self._sent, self._last = self._sent + 1, now
            return self._sent

    def _living(self) -> list[bool]:
        now = time.monotonic()
        with self._lock:
            return [visible for heard, visible in self._pages.values() if now - heard < SILENCE]
