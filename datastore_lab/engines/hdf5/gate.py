"""A lock by which a reader that is always too late asks the writer to wait for a moment.

A reader normally takes no lock: it looks, and looks again if there was a commit meanwhile. A long read
beside a writer that commits all the time would never come to an end, so after a few tries it holds this
lock, shared; the writer takes it, exclusively, before it overwrites anything, and waits at most a second
for a reader that does not come back. It is a lock of the open file description (Linux), so that it works
between two stores in one process too; on other systems there is none, and only the retries.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.disk import Disk

_AT = 1 << 41
_WAIT = 1.0
_POLL = 0.0005


def shut(handle: int) -> None:
    """Keep readers out, as far as they can be waited for."""
    _wait(handle, exclusive=True)


@contextlib.contextmanager
def held(disk: Disk, path: str) -> Iterator[None]:
    """Keep the writer whose journal this is from overwriting anything, if there is one."""
    try:
        handle = disk.open(path, os.O_RDONLY)
    except FileNotFoundError:  # no writer, nothing to wait for
        yield
        return
    try:
        _wait(handle, exclusive=False)
        yield
    finally:
        disk.close(handle)


def _wait(handle: int, *, exclusive: bool) -> None:
    end = time.monotonic() + _WAIT
    while not _lock(handle, exclusive=exclusive) and time.monotonic() < end:
        time.sleep(_POLL)


try:
    import fcntl

    _SET = fcntl.F_OFD_SETLK
except (ImportError, AttributeError):

    def _lock(handle: int, *, exclusive: bool) -> bool:
        return True

    def open_again(handle: int) -> None:
        """Let readers in."""

else:
    _FLOCK = struct.Struct("hhqqi4x")  # struct flock: kind, whence, start, length, process (0 here)

    def _lock(handle: int, *, exclusive: bool) -> bool:
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        try:
            fcntl.fcntl(handle, _SET, _FLOCK.pack(kind, os.SEEK_SET, _AT, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without such locks: readers have only their retries
            return True
        return True

    def open_again(handle: int) -> None:
        """Let readers in."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _AT, 1, 0))
