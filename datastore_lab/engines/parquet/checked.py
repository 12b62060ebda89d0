"""A file for Arrow to read, every block of which is checked before Arrow sees it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

import numpy as np

from datastore_lab.errors import Corrupt
from datastore_lab.folders import files
from datastore_lab.integrity import BLOCK, block_sum


class Part(NamedTuple):
    """What a description says about one Parquet file.

    Attributes
    ----------
    name : str
        In the folder of the record.
    rows : int
    size : int
        In bytes.
    sums : bytes
        Sums of its blocks of `BLOCK` bytes, eight little-endian bytes each.
    """

    name: str
    rows: int
    size: int
    sums: bytes


class CheckedFile:
    """A Parquet file, open for reading; what is not as it was written raises `Corrupt`.

    Parameters
    ----------
    path : str
    root : str
        The tree that no link may leave.
    part : Part
        What the file must be.
    damaged : callable
        Makes the error, of a text that says what is wrong.
    """

    closed = False

    def __init__(self, path: str, root: str, part: Part, damaged: Callable[[str], Corrupt]) -> None:
        self._part, self._damaged = part, damaged
        self._sums = np.frombuffer(part.sums, "<u8")
        self._at, self._block, self._bytes = 0, -1, b""
        self.failure: Exception | None = None
        try:
            self._handle = files.open_inside(path, root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise damaged(f"the file {part.name!r} is missing") from error
        if (size := os.fstat(self._handle).st_size) != part.size:
            self.close()
            raise damaged(f"{part.name!r} is {size:,} bytes long, where {part.size:,} were written")

    def __enter__(self) -> CheckedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if not self.closed:
            self.closed = True
            os.close(self._handle)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def tell(self) -> int:
        """Give the position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._part.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes; every block that they lie in is checked as a whole."""
        rest = max(self._part.size - self._at, 0)
        size = rest if size is None or size < 0 else min(size, rest)
        first, last = self._at // BLOCK, (self._at + size - 1) // BLOCK
        try:
            pieces = [self._load(block) for block in range(first, last + 1)] if size else []
        except Exception as error:
            self.failure = error  # Arrow makes an error of its own of it
            raise
        start = self._at - first * BLOCK
        self._at += size
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return whole if len(whole) == size else whole[start : start + size]

    def _load(self, block: int) -> bytes:
        if block != self._block:
            size = min(BLOCK, self._part.size - block * BLOCK)
            raw = read_at(self._handle, size, block * BLOCK)
            if block_sum(raw) != int(self._sums[block]):
                raise self._damaged(
                    f"block {block} of {self._part.name!r} is not as it was written (checksum)"
                )
            self._block, self._bytes = block, raw
        return self._bytes

    def damaged_blocks(self) -> list[int]:
        """Read everything and list the blocks that are not as they were written."""
        found = []
        for block in range(len(self._sums)):
            try:
                self._load(block)
            except Corrupt:
                found.append(block)
        return found


def read_at(handle: int, size: int, offset: int) -> bytes:
    """Read bytes from a place in a file; fewer where it ends before."""
    os.lseek(handle, offset, os.SEEK_SET)
    raw = os.read(handle, size)
    while len(raw) < size and (more := os.read(handle, size - len(raw))):
        raw += more
    return raw
