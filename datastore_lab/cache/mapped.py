"""Stored arrays as memory of this process, without reading them: what an engine keeps in one piece.

See `datastore_lab.records.Maps`: what is mapped stays as it was for as long as the file is the same one.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import LabError
from datastore_lab.records import Maps, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Engine

SMALLEST = 1 << 16
"""Smaller arrays are read, in bytes: a mapping takes whole pages and a place in the tables of the system."""


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
            length = span.offset - start + _nbytes(span)
            memory = mmap.mmap(handle, length, offset=start, **_for_reading(read_ahead=read_ahead))
        finally:
            os.close(handle)
        return np.ndarray(span.shape, dtypes.parse(span.dtype), memory, span.offset - start)


def _for_reading(*, read_ahead: bool) -> dict[str, Any]:
    if os.name == "nt":
        return {"access": mmap.ACCESS_READ}
    populate = getattr(mmap, "MAP_POPULATE", 0) if read_ahead else 0
    return {"flags": mmap.MAP_SHARED | populate, "prot": mmap.PROT_READ}


def spans(engine: Engine, key: Key) -> Mapping[str, Span]:
    """Give the arrays of a record that are worth mapping, by their names."""
    if not _maps(engine):
        return {}
    try:
        found = engine.spans(key)
    except LabError:
        return {}
    return {name: span for name, span in found.items() if _nbytes(span) >= SMALLEST}


def _maps(engine: Engine) -> TypeGuard[Maps]:
    """Ask the class of an engine: what wraps one sees every read then."""
    return issubclass(type(engine), Maps)


def _nbytes(span: Span) -> int:
    return math.prod(span.shape) * dtypes.parse(span.dtype).itemsize


def _identity(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (asked for at every hit)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
