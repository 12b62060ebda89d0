"""The array of one trial in a ``.npy`` file: written before its trial counts, read within limits."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import media
from datastore_lab.errors import Corrupt, Foreign, LabError, NotFound
from datastore_lab.integrity import BLOCK, block_sums
from datastore_lab.records import ARRAYS, Selection, Stat, default_dims
from datastore_lab.streams import disk, parts
from datastore_lab.streams.ipc.read import info as describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from datastore_lab.keys import Key

DATA = "data"
_LONGEST_HEADER = 1 << 16


def save(path: str, array: NDArray[Any], *, durable: bool) -> list[int]:
    """Write a file, and give the sums of its blocks."""
    memory = io.BytesIO()
    np.lib.format.write_array(memory, array, allow_pickle=False)
    raw = memory.getbuffer()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o666)
    try:
        disk.write_at(handle, raw, 0)
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    if durable:
        media.sync_folder(os.path.dirname(path))  # noqa: PTH120
    return [int(found) for found in block_sums(raw)]


class NpyFile:
    """One array, as a record of its own.

    Parameters
    ----------
    path : str
    key : Key
    sums : sequence of int or None
        Of its blocks; None for a file that another program made.

    Raises
    ------
    Foreign
        If it is no ``.npy`` file, or one of Python objects.
    Corrupt
        If its size is not the one that its header states.
    """

    def __init__(self, path: str, key: Key, sums: Sequence[int] | None) -> None:
        self.path, self.key, self.trusting, self.layout = path, key, False, None
        self._sums = None if sums is None else list(sums)
        self._size = os.lstat(path).st_size
        if self._sums is not None and len(self._sums) != -(-self._size // BLOCK):
            raise Corrupt(f"{path!r} has {self._size} bytes, not as it was written", key=path)
        self._read_header()

    def _read_header(self) -> None:
        head = io.BytesIO(self._bytes(0, min(self._size, _LONGEST_HEADER)))
        try:
            version = np.lib.format.read_magic(head)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            self._shape, self._turned, self._dtype = read(head)
        except (ValueError, TypeError, SyntaxError, KeyError) as error:
            raise Foreign(
                f"{self.path!r} is no .npy file that can be read: {error}", key=self.path
            ) from error
        if self._dtype.hasobject:
            raise Foreign(f"{self.path!r} holds Python objects, which are never loaded", key=self.path)
        self._start = head.tell()
        declared = math.prod(self._shape) * self._dtype.itemsize
        if min(self._shape, default=0) < 0 or declared != self._size - self._start:
            raise Corrupt(
                f"{self.path!r} says that it holds {declared} bytes, and has {self._size - self._start}",
                key=self.path,
            )

    def _bytes(self, start: int, stop: int) -> bytes | memoryview:
        if self._sums is None or self.trusting:
            return disk.read(self.path, start, stop)
        return disk.read_checked(self.path, start, stop, self._sums, (0, self._size))

    def stat(self) -> Stat:
        """Describe the array."""
        dims = default_dims(DATA, len(self._shape))
        return Stat(ARRAYS, {DATA: describe(self._dtype, self._shape, dims, None)}, {})

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of the array; of rows in order only these are read."""
        if name != DATA:
            raise NotFound(f"{self.path!r} has only {DATA!r}, no {name!r}", key=self.key)
        if self._turned or not self._shape:
            whole = np.frombuffer(self._bytes(self._start, self._size), self._dtype)
            shaped = whole.reshape(self._shape, order="F" if self._turned else "C")
            return np.array(shaped[(*selection, ...)])
        width = math.prod(self._shape[1:]) * self._dtype.itemsize

        def fetch(_piece: int, start: int, stop: int) -> NDArray[Any]:
            raw = self._bytes(self._start + start * width, self._start + stop * width)
            return np.frombuffer(raw, self._dtype).reshape(stop - start, *self._shape[1:])

        return parts.pick([0, self._shape[0]], self._shape, self._dtype, selection, fetch)

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield what is not as it was written."""
        for start in range(0, self._size, BLOCK):
            try:
                self._bytes(start, min(start + BLOCK, self._size))
            except LabError as error:
                yield DATA, error.message, False

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        return False

    def loose_end(self) -> str | None:
        """Nothing: it was whole before its trial counted."""
        return None
