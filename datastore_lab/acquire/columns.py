"""The memory of a ring: one contiguous array per column, all of the same number of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Stat

TIME, DEVICE_TIME, SEQUENCE = "time", "device_time", "sequence"
"""Names that a stream's own columns take in files; a device can't use them for its arrays."""

_SMALL = 1_000_000
"""Bytes up to which a copy keeps the interpreter's lock: to get it back beside another thread of Python takes
up to its switch interval of 5 ms, a hundred times as long as the copy."""

Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""For each column the type, and the shape of one sample."""


def layout_of(spec: Stat) -> Layout:
    """Give the columns of a stream: its times, the device's own clock if it has one, and its arrays.

    Raises
    ------
    ValueError
        If an array has a name that a stream's own columns take.
    """
    if taken := {TIME, DEVICE_TIME, SEQUENCE} & spec.arrays.keys():
        raise ValueError(
            f"a device can't name an array {sorted(taken)[0]!r}: every stream has one of its own"
        )
    columns: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {TIME: (np.dtype(np.int64), ())}
    if spec.meta.get("device_time"):
        columns[DEVICE_TIME] = (np.dtype(np.int64), ())
    for name, info in spec.arrays.items():
        columns[name] = (dtypes.parse(info.dtype), tuple(info.shape[1:]))
    return columns


def sample_nbytes(layout: Layout) -> int:
    """Give the bytes that one sample takes, time stamps included."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in layout.values())


def is_plain(layout: Layout) -> str | None:
    """Name a column whose values lie elsewhere (text of any length), or None if all are plain bytes."""
    return next((name for name, (dtype, _) in layout.items() if dtype.hasobject), None)


class Columns:
    """The arrays of a ring, addressed by positions that only grow.

    Parameters
    ----------
    layout : mapping
        As of `layout_of`.
    samples : int
        Samples that it holds.
    arrays : mapping of str to ndarray, optional
        Memory that is there already, such as a mapped file.
    """

    def __init__(
        self, layout: Layout, samples: int, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self.layout, self.samples = layout, samples
        self.sample_nbytes = sample_nbytes(layout)
        self.arrays = dict(arrays or _allocated(layout, samples))
        self._raw = {
            name: memoryview(column.reshape(-1).view(np.uint8).data)
            for name, column in self.arrays.items()
            if column.flags.writeable and column.size and not column.dtype.hasobject
        }

    def put(self, position: int, rows: Mapping[str, NDArray[Any]], start: int, stop: int) -> None:
        """Copy the rows from `start` to `stop` to a position."""
        at = position % self.samples
        count = min(stop - start, self.samples - at)
        for name, given in rows.items():
            self._put(name, at, given[start : start + count])
            if count < stop - start:
                self._put(name, 0, given[start + count : stop])

    def _put(self, name: str, at: int, rows: NDArray[Any]) -> None:
        raw = self._raw.get(name)
        if raw is None or rows.nbytes > _SMALL or not rows.flags.c_contiguous:
            self.arrays[name][at : at + len(rows)] = rows
        elif rows.nbytes:
            begin = at * (rows.nbytes // len(rows))
            raw[begin : begin + rows.nbytes] = rows.reshape(-1).view(np.uint8).data

    def look(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Give samples that lie in one piece as they lie there, read only."""
        at = start % self.samples
        until = at + stop - start
        rows = {name: column[at:until] for name, column in self.arrays.items()}
        for column in rows.values():
            column.flags.writeable = False
        return rows

    def copy(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Copy the samples of these positions; the caller sees to it that they are whole."""
        parts = list(self.parts(start, stop))
        if len(parts) == 1:
            return {name: rows.copy() for name, rows in parts[0].items()}
        return {name: np.concatenate([part[name] for part in parts]) for name in self.arrays}

    def parts(self, start: int, stop: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the samples of these positions as they lie: in one part, or in two at the ring's end."""
        while True:
            at = start % self.samples
            until = min(stop, start + self.samples - at)
            yield {name: column[at : at + until - start] for name, column in self.arrays.items()}
            if until >= stop:
                return
            start = until

    def contiguous(self, start: int, stop: int) -> int:
        """Give the position up to which the samples from `start` on lie in one piece."""
        return min(stop, start + self.samples - start % self.samples)


def _allocated(layout: Layout, samples: int) -> dict[str, NDArray[Any]]:
    return {name: np.empty((samples, *shape), dtype) for name, (dtype, shape) in layout.items()}


def count_samples(sizes: Mapping[str, Any], nbytes: int, rate: float | None) -> int:
    """Give the size of a ring in samples.

    Parameters
    ----------
    sizes : mapping
        ``samples``, ``nbytes``, ``seconds`` and ``memory``, all but one None.
    nbytes : int
        Bytes of one sample.
    rate : float or None
        Samples per second.

    Raises
    ------
    ValueError
        Unless exactly one size is given, or if it holds no sample or more than the free memory.
    """
    import psutil

    given = {name: value for name, value in sizes.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(sizes)}, not {', '.join(given) or 'none'}")
    [(name, value)] = given.items()
    free = psutil.virtual_memory().available
    size = _samples(name, value, nbytes, rate, free)
    if size < 1:
        raise ValueError(f"a ring of {name}={value} holds no sample of {nbytes} bytes")
    if size * nbytes > free:
        raise ValueError(
            f"a ring of {size} samples takes {size * nbytes / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free"
        )
    return size


def _samples(name: str, value: Any, nbytes: int, rate: float | None, free: int) -> int:
    if name == "seconds":
        if not rate:
            raise ValueError("a ring in seconds needs a rate, and none is stated: give rate= or samples=")
        return math.ceil(units.parse_duration(value) * rate)
    if name == "memory":
        if not 0 < value <= 1:
            raise ValueError(f"memory is a share of the free memory, between 0 and 1, not {value}")
        return int(value * free) // nbytes
    return int(value) if name == "samples" else units.parse_size(value) // nbytes
