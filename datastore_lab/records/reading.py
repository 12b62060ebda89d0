"""What every reader of records does: completing selections, and putting a record together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datastore_lab.records.values import Record, Selection, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gather(stat: Stat, read: Callable[[str, Selection], NDArray[Any]]) -> Record:
    """Put a record together from its description and its arrays, each as long as it was described.

    Parameters
    ----------
    stat : Stat
    read : callable
        Gives one array by its name, or the part of it that a selection names: rows may have come since.
    """
    arrays = {
        name: read(name, tuple(slice(0, size) for size in info.shape[:1]))
        for name, info in stat.arrays.items()
    }
    return Record(stat.kind, arrays, stat.meta, {name: info.dims for name, info in stat.arrays.items()})


def normalise_selection(selection: Selection, shape: tuple[int, ...]) -> Selection:
    """Complete a selection to one entry per axis, with non-negative bounds inside the shape.

    Integers stay integers (they drop the axis); slices come back with explicit start, stop and step.

    Raises
    ------
    IndexError
        If there are more entries than axes, or an integer lies outside its axis.

    Examples
    --------
    >>> normalise_selection((slice(None, None, 2), -1), (5, 3))
    (slice(0, 5, 2), 2)
    >>> normalise_selection((), (4,))
    (slice(0, 4, 1),)
    """
    if len(selection) > len(shape):
        raise IndexError(f"{len(selection)} indices for an array of {len(shape)} axes")
    padded = (*selection, *(slice(None) for _ in shape[len(selection) :]))
    return tuple(_normalise_axis(index, length) for index, length in zip(padded, shape, strict=True))


def _normalise_axis(index: int | slice, length: int) -> int | slice:
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        return slice(start, None if stop < 0 else stop, step)
    at = index.__index__()
    if not -length <= at < length:
        raise IndexError(f"index {at} is outside an axis of length {length}")
    return at % length if length else at
