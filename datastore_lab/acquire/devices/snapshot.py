"""Several sources that change at times of their own, as one stream."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed


class Snapshot:
    """The newest value of each source: a sample whenever one changes, as soon as all are known.

    Parameters
    ----------
    feed : Feed
    names : iterable of str
        The arrays that each sample holds.
    """

    def __init__(self, feed: Feed, names: Iterable[str]) -> None:
        self._feed, self._missing = feed, set(names)
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()

    def update(self, name: str, value: Any, device_time: int | None = None) -> None:
        """Take a new value of one source."""
        with self._lock:
            self._values[name] = value
            self._missing.discard(name)
            if not self._missing and not self._feed.closed.is_set():
                self._feed.put(dict(self._values), device_time=device_time)
