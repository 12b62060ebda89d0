"""Parts of arrays that fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datastore_lab.records import ArrayInfo

BLOCK = 32_000_000
"""Bytes of array data that are read at once."""


def parts(info: ArrayInfo, limit: int = BLOCK) -> Iterator[tuple[slice, ...]]:
    """Cut an array into selections of at most `limit` bytes each, where single elements are not larger.

    Along an axis that is cut the parts are multiples of the stored chunks, so that none is decoded twice.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo
    >>> list(parts(ArrayInfo("<f8", (5, 2), ("x", "y"), 80, None), limit=32))
    [(slice(0, 2, None),), (slice(2, 4, None),), (slice(4, 5, None),)]
    """
    axes = []
    size = info.nbytes
    for axis, length in enumerate(info.shape):
        if size <= limit:
            break
        size //= max(1, length)
        step = rows_within(size, limit, info.chunks[axis] if info.chunks else 1)
        axes.append([slice(at, min(at + step, length)) for at in range(0, length, step)])
        size *= step
    yield from itertools.product(*axes)


def rows_within(row: int, limit: int = BLOCK, chunk: int = 1) -> int:
    """Give how many rows of so many bytes stay within a limit: whole chunks if one fits, one at least."""
    rows = max(1, limit // max(1, row))
    return rows // chunk * chunk if rows >= chunk > 0 else rows
