"""Where lines of a table begin, in tables that nobody has indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datastore_lab.errors import EngineError
from datastore_lab.streams import disk

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = 1 << 20
_LONGEST = 1 << 26


def stretches(path: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a table into stretches of whole lines, of about 1 MB each.

    A line ends at a line feed before which the number of quotes is even (RFC 4180).

    Raises
    ------
    EngineError
        If a line is longer than 64 MB.
    """
    while start < stop:
        end, reach = start, _STEP
        while end == start:
            if reach > _LONGEST:
                raise EngineError(f"{path!r} has a line of more than 64 MB: that is no table", key=path)
            raw = disk.read(path, start, min(start + reach, stop))
            if not raw:
                return
            end = start + (len(raw) if start + len(raw) >= stop else _whole(raw))
            reach *= 4
        yield start, end
        start = end


def _whole(raw: bytes) -> int:
    """Give the number of bytes up to the end of the last whole line."""
    points = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(points == ord("\n"))
    if b'"' in raw and len(ends):
        quotes = np.flatnonzero(points == ord('"'))
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return int(ends[-1]) + 1 if len(ends) else 0
