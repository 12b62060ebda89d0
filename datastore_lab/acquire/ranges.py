"""Ranges of sequence numbers, as the ledgers keep them: ``[first, last]``, both inclusive."""

from __future__ import annotations

from collections.abc import Iterable

Range = list[int]
"""Two integers, first and last, both inclusive: what JSON holds without a convention to remember."""


def add(ranges: list[Range], first: int, last: int) -> None:
    """Append a range to a ledger in place, joining it to the one before where they touch.

    Examples
    --------
    >>> ledger = [[0, 4]]
    >>> add(ledger, 5, 6)
    >>> add(ledger, 9, 9)
    >>> ledger
    [[0, 6], [9, 9]]
    """
    if last < first:
        return
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1][1] = last
    else:
        ranges.append([first, last])


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
