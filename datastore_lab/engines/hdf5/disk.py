"""The calls that change a disk, in one place, so that tests can record every one of them or let it fail."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from datastore_lab import media
from datastore_lab.linux import reserve

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_LARGEST = 1 << 30  # one call moves at most 2 GiB on Linux


class Disk:
    """Positioned reads and writes, and the names and barriers around them.

    A subclass that records or fails these calls sees everything that an engine does to a disk.

    Parameters
    ----------
    durable : bool, default True
        False leaves out every sync.
    """

    durable = True

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable

    def open(self, path: str, flags: int) -> int:
        """Open a file by the flags of `os.open`."""
        return os.open(path, flags | _BINARY, 0o666)

    def close(self, handle: int) -> None:
        """Release a file."""
        os.close(handle)

    def size(self, handle: int) -> int:
        """Give the length of a file in bytes."""
        return os.fstat(handle).st_size

    def read(self, handle: int, view: memoryview, at: int) -> int:
        """Fill `view` from byte `at` on; returns how many bytes there were."""
        done = 0
        while done < len(view):
            got = _read_once(handle, view[done : done + _LARGEST], at + done)
            if not got:
                break
            done += got
        return done

    def write(self, handle: int, view: memoryview, at: int) -> None:
        """Write all of `view` at byte `at`."""
        reserve(handle, at, len(view))
        done = 0
        while done < len(view):
            done += _write_once(handle, view[done : done + _LARGEST], at + done)

    def reserve(self, handle: int, at: int, size: int) -> None:
        """Let the file system look for room for what will be written in several pieces."""
        reserve(handle, at, size, ahead=True)

    def truncate(self, handle: int, size: int) -> None:
        """Set the length of a file."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """Return when the bytes of a file are durable."""
        if self.durable:
            _sync(handle)

    def sync_folder(self, path: str) -> None:
        """Return when the names beside a file are durable."""
        if self.durable:
            media.sync_folder(Path(path).absolute().parent)

    def replace(self, source: str, target: str) -> None:
        """Give a file the name of another, which is gone."""
        os.replace(source, target)  # noqa: PTH105 (the seam that tests record)

    def make_like(self, path: str, other: str) -> None:
        """Give a file the owner, group and permissions of another, as far as the system lets one."""
        found = os.stat(other)  # noqa: PTH116
        for owner in (found.st_uid, -1) if hasattr(os, "chown") else ():
            with contextlib.suppress(OSError):  # only root gives files away; the group may be kept still
                os.chown(path, owner, found.st_gid)
                break
        with contextlib.suppress(OSError):  # some file systems have no permissions
            os.chmod(path, stat.S_IMODE(found.st_mode))  # noqa: PTH101

    def unlink(self, path: str) -> None:
        """Remove a name if it is there."""
        Path(path).unlink(missing_ok=True)


def bytes_at(disk: Disk, handle: int, at: int, count: int) -> bytes:
    """Read `count` bytes, or fewer at the end of the file."""
    buffer = bytearray(count)
    got = disk.read(handle, memoryview(buffer), at)
    return bytes(buffer[:got])


if hasattr(os, "preadv"):

    def _read_once(handle: int, view: memoryview, at: int) -> int:
        return os.preadv(handle, [view], at)

    def _write_once(handle: int, view: memoryview, at: int) -> int:
        return os.pwrite(handle, view, at)

else:  # Windows: the engine's own lock keeps the position

    def _read_once(handle: int, view: memoryview, at: int) -> int:
        os.lseek(handle, at, os.SEEK_SET)
        found = os.read(handle, len(view))
        view[: len(found)] = found
        return len(found)

    def _write_once(handle: int, view: memoryview, at: int) -> int:
        os.lseek(handle, at, os.SEEK_SET)
        return os.write(handle, view)


_sync = getattr(os, "fdatasync", os.fsync)
