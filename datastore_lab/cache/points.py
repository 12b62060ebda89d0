"""Stored results along a line, and what lies between two of them."""

from __future__ import annotations

import bisect
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from datastore_lab import objects
from datastore_lab.cache.hashing import immutable

NOTHING = object()
"""Stands for the value between two results that have none."""

_KINDS = "iufc"
"""Kinds of arrays that are interpolated: whole numbers, real and complex ones."""


class Point(NamedTuple):
    """A stored result.

    Attributes
    ----------
    x : float
        Where it lies.
    value : object
        This process's own copy; its arrays can't be written to.
    """

    x: float
    value: Any

    def given(self) -> Any:
        """Give the result such that changing it changes nothing here."""
        if immutable(self.value):
            return self.value
        return self.value.view() if type(self.value) is np.ndarray else own(self.value)


def own(value: Any) -> Any:
    """Copy a result through its storable form, as if it had been stored and read."""
    record = objects.encode(value)
    return objects.decode(record._replace(arrays={name: np.array(a) for name, a in record.arrays.items()}))


def point(x: float, value: Any) -> Point:
    """Make a point of a result that others may still change.

    Raises
    ------
    NotStorable
    """
    copied = value if immutable(value) else own(value)
    if type(copied) is np.ndarray:
        copied.flags.writeable = False
    return Point(x, copied)


class Line:
    """The results along one line, in order of their place."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self._places: list[float] = []
        self._sorted: list[Point] = []

    def add(self, name: str, new: Point) -> None:
        """Add a point; of several at one place the first counts between points."""
        self.points[name] = new
        number = bisect.bisect_left(self._places, new.x)
        if np.isfinite(new.x) and (number == len(self._places) or self._places[number] != new.x):
            self._places.insert(number, new.x)
            self._sorted.insert(number, new)

    def keep_only(self, names: set[str]) -> None:
        """Forget the points that are no longer stored."""
        if self.points.keys() - names:
            kept = {name: found for name, found in self.points.items() if name in names}
            self.points, self._places, self._sorted = {}, [], []
            for name, found in kept.items():
                self.add(name, found)

    def around(self, x: float, max_distance: float) -> tuple[Point, Point] | None:
        """Give the neighbours of a place, if there are two and the nearer one is near enough."""
        number = bisect.bisect_left(self._places, x)
        if not np.isfinite(x) or number == len(self._places) or (number == 0 and self._places[0] != x):
            return None
        right = self._sorted[number]
        left = right if right.x == x else self._sorted[number - 1]
        return (left, right) if min(x - left.x, right.x - x) <= max_distance else None


def between(left: Point, right: Point, x: float, args: tuple[Any, ...]) -> Any:
    r"""Interpolate linearly: :math:`y = (1 - t)\,y_0 + t\,y_1` with :math:`t = (x - x_0) / (x_1 - x_0)`.

    Parameters
    ----------
    left, right : Point
    x : float
        Between them.
    args : tuple
        The positional arguments of the call, for objects.

    Returns
    -------
    object
        A float for int and float results, complex for complex ones; of numpy numbers and arrays, which must
        have one shape, whole numbers become float64, and other types stay. Of an object with the storage
        protocol, what its class method ``create_from_interpolated`` makes of the array. `NOTHING` for
        anything else.

    References
    ----------
    E. Meijering, "A chronology of interpolation", Proc. IEEE 90(3), 2002, doi:10.1109/5.993400.

    Examples
    --------
    >>> between(Point(0.0, 1), Point(4.0, 3), 1.0, (1.0,))
    1.5
    """
    share = 0.0 if left.x == right.x else (x - left.x) / (right.x - left.x)
    if type(left.value) is not type(right.value):
        pair = {type(left.value), type(right.value)}
        return _mixed(left.value, right.value, share) if pair <= {int, float, complex} else NOTHING
    if type(left.value) in {int, float, complex}:
        return _mixed(left.value, right.value, share)
    make = getattr(type(left.value), "create_from_interpolated", None)
    if make is not None:
        return _object(left, right, x, args, make)
    return _arrays(left.value, right.value, share)


def _mixed(left: complex, right: complex, share: float) -> Any:
    try:
        return (1 - share) * left + share * right
    except OverflowError:  # (whole numbers beyond what a float holds)
        return NOTHING


def _arrays(left: Any, right: Any, share: float) -> Any:
    if not isinstance(left, (np.ndarray, np.number)) or type(left) in {
        np.ma.MaskedArray,
        np.matrix,
        np.recarray,
    }:
        return NOTHING
    if left.shape != right.shape or left.dtype != right.dtype or left.dtype.kind not in _KINDS:
        return NOTHING
    kind = left.dtype if left.dtype.kind in "fc" else np.dtype(np.float64)
    mixed = np.asarray((1 - share) * left.astype(kind) + share * right.astype(kind), dtype=kind)
    return mixed if isinstance(left, np.ndarray) else mixed[()]


def _object(left: Point, right: Point, x: float, args: tuple[Any, ...], make: Callable[..., Any]) -> Any:
    (first, about), (second, other) = left.value.storage_prepare(), right.value.storage_prepare()
    share = 0.0 if left.x == right.x else (x - left.x) / (right.x - left.x)
    if first is None or second is None:
        return NOTHING
    array = between(Point(0.0, np.asarray(first)), Point(1.0, np.asarray(second)), share, args)
    return NOTHING if array is NOTHING else make(array, args, about if share <= 0.5 else other)


def place_of(value: Any) -> float | None:
    """Give the place of a number on the line; None for what is no real number.

    Examples
    --------
    >>> import numpy as np
    >>> place_of(2), place_of(np.float32(0.5)), place_of(np.array(3)), place_of("2"), place_of([1.0])
    (2.0, 0.5, 3.0, None, None)
    """
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def first_parameter(function: Any, bound: int) -> str | None:
    """Name the parameter that the first positional argument goes to; None if it has no name of its own."""
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    found = parameters[bound] if bound < len(parameters) else None
    placed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return found.name if found is not None and found.kind in placed else None
