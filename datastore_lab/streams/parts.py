"""Selections of rows that lie in pieces: batches, row groups, stretches of text."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.records import Selection, normalise_selection

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pick(
    starts: Sequence[int],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    selection: Selection,
    fetch: Callable[[int, int, int], NDArray[Any]],
) -> NDArray[Any]:
    """Read a selection of rows from pieces, touching only the pieces that hold it.

    Parameters
    ----------
    starts : sequence of int
        First row of each piece, and at last how many rows there are.
    shape : tuple of int
        Of the whole array.
    dtype : dtype
    selection : Selection
    fetch : callable
        ``fetch(piece, start, stop)`` gives rows of one piece.

    Examples
    --------
    >>> rows = np.arange(10)
    >>> pick([0, 4, 10], (10,), rows.dtype, (slice(8, 2, -3),), lambda i, a, b: rows[[0, 4][i] :][a:b])
    array([8, 5])
    """
    rows, *inner = normalise_selection(selection, shape)
    if isinstance(rows, int):
        piece = bisect.bisect_right(starts, rows) - 1
        at = rows - starts[piece]
        # the ellipsis keeps an array, with its byte order, where numpy would give a scalar
        return np.array(fetch(piece, at, at + 1)[(0, *inner, ...)], dtype=dtype)
    wanted = range(rows.start, -1 if rows.stop is None else rows.stop, rows.step)
    ascending = wanted if wanted.step > 0 else wanted[::-1]
    empty = np.empty((0, *shape[1:]), dtype)[(slice(None), *inner, ...)]
    out = np.empty((len(wanted), *empty.shape[1:]), dtype)
    filled = 0
    for piece, part in _pieces(starts, ascending):
        found = fetch(piece, part.start, part.stop)[:: part.step][(slice(None), *inner, ...)]
        out[filled : filled + len(found)] = found
        filled += len(found)
    return out if wanted.step > 0 else np.array(out[::-1], order="C")


def _pieces(starts: Sequence[int], wanted: range) -> Iterator[tuple[int, slice]]:
    """Yield (piece, slice within it) for the rows of an ascending range."""
    if not wanted:
        return
    piece = bisect.bisect_right(starts, wanted[0]) - 1
    while piece < len(starts) - 1 and starts[piece] <= wanted[-1]:
        start, stop = starts[piece], starts[piece + 1]
        skipped = max(0, -(-(start - wanted.start) // wanted.step))
        begin = wanted.start + skipped * wanted.step - start
        end = min(stop, wanted[-1] + 1) - start
        if begin < end:
            yield piece, slice(begin, end, wanted.step)
        piece += 1
