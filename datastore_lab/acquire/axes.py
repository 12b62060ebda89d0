"""The axes of a scan, and the order in which its points are visited."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import StreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index = tuple[int, ...]


class Axes:
    """Values along each axis of a grid, by name; the last axis changes fastest.

    Parameters
    ----------
    values : mapping of str to sequence
        Numbers, text or dates, one-dimensional, none of them twice along an axis.

    Raises
    ------
    StreamError
        For an axis that is empty, not one-dimensional, or has a value twice.

    Examples
    --------
    >>> axes = Axes({"wavelength": [500.0, 510.0], "position": [0, 1, 2]})
    >>> axes.shape, list(axes.order(snake=True))
    ((2, 3), [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)])
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        if not values:
            raise StreamError("a scan needs at least one axis, such as wavelength=[500, 510, 520]")
        self.values = {str(name): _axis(name, given) for name, given in values.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, the slowest first."""
        return tuple(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each axis."""
        return tuple(len(values) for values in self.values.values())

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Axes) or self.names != other.names:
            return False
        return all(_alike(self.values[name], other.values[name]) for name in self.names)

    __hash__ = None  # type: ignore[assignment]

    def order(self, *, snake: bool) -> Iterator[Index]:
        """Yield the indices of all points; a snake turns round at the end of each row instead of jumping."""
        for index in itertools.product(*map(range, self.shape)):
            yield self._turned(index) if snake else index

    def _turned(self, index: Index) -> Index:
        """Run backwards along an axis after every odd number of rows."""
        turned, row = [], 0
        for at, length in zip(index, self.shape, strict=True):
            turned.append(length - 1 - at if row % 2 else at)
            row = row * length + at
        return tuple(turned)

    def at(self, index: Index) -> dict[str, Any]:
        """Give the value along each axis at a point, as Python numbers, text or numpy dates."""
        return {
            name: values[place].item() if values.dtype.kind not in "mM" else values[place]
            for (name, values), place in zip(self.values.items(), index, strict=True)
        }

    def nearest(self, values: Mapping[str, Any]) -> Index:
        """Give the point that lies nearest to some values.

        Raises
        ------
        StreamError
            If a value lies outside the grid by more than half a step.
        """
        return tuple(_nearest(name, own, values[name]) for name, own in self.values.items())


def _axis(name: str, given: Any) -> NDArray[Any]:
    values = np.asarray(given)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "biufUMm":
        raise StreamError(
            f"the axis {name!r} of a scan needs some numbers, texts or dates in a row, not {given!r}"
        )
    if len(np.unique(values)) < len(values) or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise StreamError(
            f"the axis {name!r} of a scan has a value twice, or one that is not finite: {given!r}"
        )
    return values


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype.kind == other.dtype.kind and one.shape == other.shape and bool((one == other).all())


def _nearest(name: str, own: NDArray[Any], value: Any) -> int:
    if own.dtype.kind in "UM":
        found = np.flatnonzero(own == np.asarray(value))
    else:
        distance = np.abs(own.astype(float) - float(value))
        step = np.diff(np.sort(own.astype(float))).min() if len(own) > 1 else np.inf
        found = np.flatnonzero((distance == distance.min()) & (distance <= step / 2))
    if not len(found):
        raise StreamError(f"{name} = {value!r} is no point of the scan, whose values are {own.tolist()}")
    return int(found[0])
