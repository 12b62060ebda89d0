"""Where positions in a ring and the device's sequence numbers part.

Positions count what was pushed; sequence numbers are the device's own and jump where it lost samples. Between
two jumps both run in step, so a list of the jumps is all it takes to turn one into the other.
"""

from __future__ import annotations

import bisect

_MOST = 256


class Segments:
    """The jumps of a ring, oldest first.

    Examples
    --------
    >>> segments = Segments()
    >>> segments.follow(0, 0, 0), segments.follow(5, 5, 0), segments.follow(8, 100, 0)
    (True, False, True)
    >>> segments.number(7), segments.number(9), segments.end(2, 20), segments.end(9, 20)
    (7, 101, 8, 20)
    """

    def __init__(self) -> None:
        self.starts: list[int] = []  # position and sequence number where each begins
        self.firsts: list[int] = []

    def follow(self, position: int, first: int, tail: int) -> bool:
        """Note that samples from `position` on are numbered from `first`; says whether that is a jump."""
        if self.starts and self.firsts[-1] + position - self.starts[-1] == first:
            return False
        self.add(position, first)
        if len(self.starts) > _MOST:
            self.forget(tail)
        return True

    def add(self, position: int, first: int) -> None:
        """Begin a segment."""
        self.starts.append(position)
        self.firsts.append(first)

    def forget(self, tail: int) -> None:
        """Let go of the segments that end before `tail`."""
        done = bisect.bisect_right(self.starts, tail) - 1
        if done > 0:
            del self.starts[:done], self.firsts[:done]

    def number(self, position: int) -> int:
        """Give the sequence number of a position."""
        segment = max(0, bisect.bisect_right(self.starts, position) - 1)
        return self.firsts[segment] + position - self.starts[segment]

    def end(self, position: int, head: int) -> int:
        """Give the position up to which sequence numbers run on from `position`."""
        segment = bisect.bisect_right(self.starts, position)
        return self.starts[segment] if segment < len(self.starts) else head
