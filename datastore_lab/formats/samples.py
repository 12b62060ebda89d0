"""A piece of a user's own data, as a stream that can be written in any format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable
from datastore_lab.records import ArrayInfo, Packing, Stat, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 8_000_000  # (bytes that a run writes at once)
_CELL = 26  # (characters of the longest float64, with its comma)


class Sample(NamedTuple):
    """Arrays whose first axes are equally long, and how a stream of them is declared."""

    arrays: Mapping[str, NDArray[Any]]
    spec: Stat

    @property
    def rows(self) -> int:
        """Length of the first axis."""
        return len(next(iter(self.arrays.values())))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def room(self) -> int:
        """Bytes that it may take as text, the longest way to write it."""
        cells = sum(array.size * math.ceil(array.itemsize / 8) for array in self.arrays.values())
        return max(2 * self.nbytes, _CELL * cells)

    def packed(self, compression: str) -> Stat:
        """Declare it as compressed in some way; text of variable length is not."""
        if not compression:
            return self.spec
        arrays = {
            name: info if info.dtype == dtypes.STRING else info._replace(packing=Packing(compression))
            for name, info in self.spec.arrays.items()
        }
        return self.spec._replace(arrays=arrays)

    def blocks(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Cut it as a run does."""
        step = max(1, _BLOCK * self.rows // max(1, self.nbytes))
        for start in range(0, self.rows, step):
            yield {name: array[start : start + step] for name, array in self.arrays.items()}


def as_sample(data: Any, most: int) -> Sample:
    """Make a sample of what a user has.

    Parameters
    ----------
    data : array, mapping of str to array, or DataFrame
        Axis 0 is the sample.
    most : int
        Bytes; of more data the first part is taken.

    Raises
    ------
    NotStorable
        If it is nothing that a stream holds.
    """
    import numpy as np

    items = data.items() if hasattr(data, "items") else [("data", data)]
    arrays = {str(name): _array(str(name), values) for name, values in items}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise NotStorable(
            f"a sample has arrays of equal length on axis 0, at least one row; these have {sorted(lengths)}",
            key="sample",
        )
    (rows,) = lengths
    total = sum(array.nbytes for array in arrays.values())
    taken = rows if total <= most else max(1, rows * most // total)
    cut = {name: np.ascontiguousarray(array[:taken]) for name, array in arrays.items()}
    infos = {name: _info(name, array) for name, array in cut.items()}
    return Sample(cut, Stat("stream", infos, {"rate": None, "units": {}}))


def _array(name: str, values: Any) -> NDArray[Any]:
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind in "OU":  # (a table's column of text)
        array = np.array([_text(name, value) for value in array.reshape(-1)], np.dtypes.StringDType())
    if not array.ndim:
        raise NotStorable(f"{name!r} is a single value; axis 0 of a sample is what is recorded", key=name)
    dtypes.check(array.dtype)
    return array


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise NotStorable(f"{name!r} holds {type(value).__name__} among its text; no stream does", key=name)
    return value


def _info(name: str, array: NDArray[Any]) -> ArrayInfo:
    dims = ("time", *default_dims(name, array.ndim)[1:])
    return ArrayInfo(dtypes.name(array.dtype), (0, *array.shape[1:]), dims, 0, None)
