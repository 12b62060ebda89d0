"""Many equal blocks as one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import StreamError
from datastore_lab.records import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unstack(stack: Block, rate: float | None) -> Block:
    """Lay many equal blocks end to end, without a copy of their arrays.

    Parameters
    ----------
    stack : Block
        Arrays of the shapes (blocks, samples, ...), times of the shape (blocks,) or (blocks, samples).
    rate : float or None
        Samples per second, by which the samples of a block follow one another.

    Raises
    ------
    StreamError
        If the shapes do not fit together, or times are given per block and there is no rate.
    """
    shape = _shape(stack)
    times = _spread(stack.time, shape, rate)
    clock = None if stack.device_time is None else _spread(stack.device_time, shape, rate)
    data = {name: rows.reshape(-1, *rows.shape[2:]) for name, rows in stack.data.items()}
    return Block(stack.first, times, data, clock)


def _shape(stack: Block) -> tuple[int, int]:
    """Give how many blocks there are and of how many samples."""
    shapes = {rows.shape[:2] for rows in stack.data.values()}
    shape = shapes.pop() if shapes else ()
    if not shapes and len(shape) == 2:
        return shape
    found = {name: rows.shape for name, rows in stack.data.items()}
    raise StreamError(f"the arrays of many blocks need equal shapes (blocks, samples, ...), not {found}")


def _spread(times: NDArray[Any], shape: tuple[int, int], rate: float | None) -> NDArray[Any]:
    """Give each sample its time."""
    if times.shape == shape:
        return times.reshape(-1)
    if times.shape != shape[:1]:
        raise StreamError(f"the times of {shape[0]} blocks have the shape {times.shape}")
    if not rate:
        raise StreamError("times per block need a rate, and none is stated: give one time per sample")
    spread: NDArray[Any] = np.repeat(times, shape[1])
    spread += _offsets(shape, rate)  # in one run over memory: to broadcast takes three times as long
    return spread


@functools.lru_cache(16)
def _offsets(shape: tuple[int, int], rate: float) -> NDArray[Any]:
    return np.tile(np.rint(np.arange(shape[1]) * (1e9 / rate)).astype(np.int64), shape[0])
