"""Long signals as few points that keep every spike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def min_max(values: NDArray[Any], pairs: int) -> NDArray[Any]:
    """Keep the smallest and the largest value of each of `pairs` stretches of a signal.

    Parameters
    ----------
    values : ndarray, shape (n, ...)
        Real numbers; axis 0 is decimated.
    pairs : int
        Stretches to divide the signal into.

    Returns
    -------
    ndarray, shape (2 * pairs, ...)
        Minimum and maximum of each stretch in turn; the signal itself if it has no more values than that.
        A stretch without any finite value gives NaN.

    Examples
    --------
    >>> signal = np.zeros(1000)
    >>> signal[700] = 9.0
    >>> min_max(signal, 4)
    array([0., 0., 0., 0., 0., 9., 0., 0.])
    """
    if len(values) <= 2 * pairs:
        return values
    edges = np.linspace(0, len(values), pairs + 1).astype(np.intp)[:-1]
    least = np.fmin if values.dtype.kind == "f" else np.minimum
    most = np.fmax if values.dtype.kind == "f" else np.maximum
    kept = np.empty((2 * pairs, *values.shape[1:]), values.dtype)
    kept[0::2] = least.reduceat(values, edges, axis=0)
    kept[1::2] = most.reduceat(values, edges, axis=0)
    return kept


def positions(count: int, pairs: int) -> NDArray[np.float64]:
    """Give the sample index that belongs to each value of `min_max` of `count` samples.

    Examples
    --------
    >>> positions(1000, 2)
    array([  0., 250., 500., 750.])
    >>> positions(3, 2)
    array([0., 1., 2.])
    """
    if count <= 2 * pairs:
        return np.arange(count, dtype=np.float64)
    return np.linspace(0, count, 2 * pairs + 1)[:-1]


def to_bytes(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale an image to 0…255 between two values; what is not a number becomes 0."""
    span = high - low if high > low else 1.0
    scaled = (image.astype(np.float64) - low) * (255.0 / span)
    finite = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    return np.asarray(np.rint(finite.clip(0, 255)), dtype=np.uint8)


def thin(image: NDArray[Any], limit: int) -> NDArray[Any]:
    """Take every n-th row and column so that neither side is longer than `limit`.

    Examples
    --------
    >>> thin(np.zeros((1000, 300)), 500).shape
    (500, 150)
    """
    step = max(1, -(-max(image.shape[:2], default=1) // limit))
    return image[::step, ::step]
