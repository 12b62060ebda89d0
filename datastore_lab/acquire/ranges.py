"""Ranges of sequence numbers, as the ledgers keep them: ``[first, last]``, both inclusive."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Range = list[int]
"""Two integers, first and last, both inclusive: what JSON holds without a convention to remember."""


def add(ranges: list[Range], first: int, last: int) -> None:
    """Put a range into a ledger in place, in order, joined to its neighbours where they touch.

    Examples
    --------
    >>> ledger = [[0, 4]]
    >>> add(ledger, 5, 6)
    >>> add(ledger, 9, 9)
    >>> ledger
    [[0, 6], [9, 9]]
    >>> add(ledger, 7, 8)
    >>> ledger
    [[0, 9]]
    """
    if last < first:
        return
    at = len(ranges)
    if ranges and ranges[-1][0] > first:  # losses of what was kept aside may come late
        at = bisect.bisect_left(ranges, [first])
    if at < len(ranges) and last + 1 == ranges[at][0]:
        last = ranges.pop(at)[1]
    if at and ranges[at - 1][1] + 1 == first:
        ranges[at - 1][1] = last
    else:
        ranges.insert(at, [first, last])


def total(ranges: Iterable[Range]) -> int:
    """Count the samples in a ledger.

    Examples
    --------
    >>> total([[0, 6], [9, 9]])
    8
    """
    return sum(last - first + 1 for first, last in ranges)


def copy(ranges: Iterable[Range]) -> list[Range]:
    """Copy a ledger, so that the caller's does not change under its feet."""
    return [list(item) for item in ranges]
