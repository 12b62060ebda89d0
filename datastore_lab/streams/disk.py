"""Reading and writing bytes of files that may be damaged, cut or growing: never through a memory map.

A map of a file that another program cuts ends the process with a signal; a read that comes short is an error.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, LabError, ReadOnly
from datastore_lab.integrity import BLOCK, block_sum
from datastore_lab.locks import same_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

_BINARY = getattr(os, "O_BINARY", 0)


def read(path: str, start: int, stop: int) -> bytes:
    """Read a range of a file, as far as it goes.

    Raises
    ------
    EngineError
        If it is a link, which may lead out of the store.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise EngineError(
            f"{path!r} is a link, which is not followed, as it may lead out of the store; put the file there",
            key=path,
        ) from error
    try:
        parts = []
        stop = min(stop, os.fstat(handle).st_size)  # (a buffer of the size asked for is made at once)
        while start < stop and (part := os.pread(handle, stop - start, start)):
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(handle)


def ends(path: str, first: int, last: int) -> tuple[bytes, bytes]:
    """Read some bytes at the beginning of a file and some at its end; none if it can't be read."""
    try:
        handle = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return b"", b""
    try:
        size = os.fstat(handle).st_size
        return os.pread(handle, first, 0), os.pread(handle, last, max(0, size - last))
    except OSError:
        return b"", b""
    finally:
        os.close(handle)


def read_checked(path: str, start: int, stop: int, sums: Sequence[int], span: tuple[int, int]) -> memoryview:
    """Read a range of the bytes that lie at `span` of a file, having checked the blocks that it touches.

    Parameters
    ----------
    path : str
    start, stop : int
        Within the span.
    sums : sequence of int
        One per block of the span.
    span : tuple of int
        Where the bytes under the sums begin and end in the file.

    Raises
    ------
    Corrupt
        If a block is not as it was written.
    """
    low, high = start - start % BLOCK, min(-(-stop // BLOCK) * BLOCK, span[1] - span[0])
    raw = memoryview(read(path, span[0] + low, span[0] + high))
    if len(raw) != high - low:
        raise Corrupt(
            f"{path!r} has lost its end, or was cut while it was read; restore it from a copy", key=path
        )
    for at in range(low, high, BLOCK):
        if block_sum(raw[at - low : at - low + BLOCK]) != sums[at // BLOCK]:
            raise damaged_bytes(path, span[0] + at, span[0] + min(at + BLOCK, high))
    return raw[start - low : stop - low]


def damaged_bytes(path: str, start: int, stop: int) -> Corrupt:
    """Make the error for a range of a file that is not as it was written."""
    return Corrupt(
        f"{path!r} is damaged: bytes {start} to {stop} are not as they were written (checksum). What lies "
        "elsewhere can still be read in parts; restore the rest from a copy",
        key=path,
    )


def check_free(path: str) -> None:
    """Refuse a path at which there is something, if only a link that leads nowhere.

    Raises
    ------
    AlreadyExists
    """
    if os.path.lexists(path):
        raise AlreadyExists(f"{path!r} exists already, and streams never overwrite", key=path)


def create(path: str) -> int:
    """Open a new file for writing; one that is there is left alone."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except FileExistsError as error:
        raise AlreadyExists(f"{path!r} exists already, and streams never overwrite", key=path) from error
    except PermissionError as error:
        raise ReadOnly(f"{path!r} can't be written: {error.strerror}", key=path) from error
    except OSError as error:
        raise EngineError(f"{path!r} can't be made: {error.strerror}", key=path) from error


def check_there(handle: int, path: str) -> None:
    """Refuse to go on with a file that is at its path no more: what is written to it is lost with it.

    Raises
    ------
    EngineError
    """
    if not same_file(handle, path):
        raise EngineError(f"{path!r} was removed, replaced or taken away with its disk", key=path)


@contextmanager
def typed(path: str, what: str) -> Iterator[None]:
    """Name the file and the way out where the disk refuses something."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LabError):
            raise
        kind = ReadOnly if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM} else EngineError
        raise kind(f"{path!r} {what}: {error.strerror or error}", key=path) from error


def write_at(handle: int, buffer: Buffer, at: int) -> int:
    """Write all of a buffer; returns where it ends."""
    view = memoryview(buffer).cast("B")
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
    return at
