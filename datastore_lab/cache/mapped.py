"""Stored arrays as memory of this process, without reading them: what HDF5 keeps in one piece.

The bytes of a committed array are never used again for anything else, and a file that is written anew is
another file, so what is mapped stays as it was.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Engine

SMALLEST = 1 << 16
"""Smaller arrays are read, in bytes: a mapping takes whole pages and a place in the tables of the system."""


class Span(NamedTuple):
    """Where the bytes of an array lie in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Their number."""
        return math.prod(self.shape) * self.dtype.itemsize


class File:
    """A file as it was at one moment."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen = _identity(path)

    def unchanged(self) -> bool:
        """Tell whether the file is the same one, of the same size, and was not written to since."""
        return self._seen is not None and _identity(self.path) == self._seen

    def map(self, span: Span, *, read_ahead: bool) -> NDArray[Any]:
        """Map one array, for reading only.

        Raises
        ------
        OSError, ValueError
            If the file can't be mapped, or ends before the array does.
        """
        start = span.offset - span.offset % mmap.ALLOCATIONGRANULARITY
        handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            length = span.offset - start + span.nbytes
            memory = mmap.mmap(handle, length, offset=start, **_for_reading(read_ahead=read_ahead))
        finally:
            os.close(handle)
        return np.ndarray(span.shape, span.dtype, memory, span.offset - start)


def _for_reading(*, read_ahead: bool) -> dict[str, Any]:
    if os.name == "nt":
        return {"access": mmap.ACCESS_READ}
    populate = getattr(mmap, "MAP_POPULATE", 0) if read_ahead else 0
    return {"flags": mmap.MAP_SHARED | populate, "prot": mmap.PROT_READ}


def spans(engine: Engine, key: Key) -> Mapping[str, Span]:
    """Give the arrays of a record that lie in one piece in a file, as they are in memory.

    Returns
    -------
    mapping of str to Span
        Without those that are small, compressed, in chunks, or kept in another form.
    """
    look, describe = getattr(engine, "_look", None), getattr(engine, "_describe", None)
    if engine.traits.label != "HDF5" or look is None or describe is None or getattr(engine, "_changed", True):
        return {}
    try:
        found: dict[str, Span] = look(key, lambda root: _contiguous(describe(root, key)))
    except LabError:
        return {}
    return found


def _contiguous(node: Any) -> dict[str, Span]:
    found = {}
    for name, array in node.arrays.items():
        offset = _offset(array)
        dtype = dtypes.parse(array.info.dtype)
        plain = (
            array.own and not any(array.declared.values()) and array.native == dtype and not dtype.hasobject
        )
        if plain and offset is not None and array.info.nbytes >= SMALLEST:
            found[name] = Span(dtype, array.info.shape, offset)
    return found


def _offset(array: Any) -> int | None:
    if array.layout != 1:  # contiguous, in the words of HDF5
        return None
    place = array.place if isinstance(array.place, int) else array.dataset and array.dataset.get_offset()
    return place if isinstance(place, int) else None


def _identity(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (asked for at every hit)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
