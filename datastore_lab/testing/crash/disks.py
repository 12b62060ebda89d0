"""Disks of HDF5 stores that note every change, or refuse one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datastore_lab.engines.hdf5.disk import Disk


class Event(NamedTuple):
    """One call that changed the disk, or a mark.

    Attributes
    ----------
    kind : str
        ``write``, ``truncate``, ``sync``, ``sync folder``, ``create``, ``replace``, ``unlink`` or ``mark``.
    name : str
        The file's name; what has happened, for a mark.
    at : int
        Offset of a write, new length of a truncation, number of a mark.
    data : bytes
        What was written; the new name, for a replacement.
    """

    kind: str
    name: str
    at: int = 0
    data: bytes = b""


class RecordingDisk(Disk):
    """A disk that notes every change in `events`, for files in one folder."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[int, str] = {}

    def mark(self, name: str, number: int) -> None:
        """Note that something has happened, such as the return of an operation."""
        self.events.append(Event("mark", name, number))

    def open(self, path: str, flags: int) -> int:
        """Note the creation of a file."""
        new = bool(flags & os.O_CREAT) and not Path(path).exists()
        handle = super().open(path, flags)
        self._names[handle] = Path(path).name
        if new:
            self.events.append(Event("create", Path(path).name))
        elif flags & os.O_TRUNC:
            self.events.append(Event("truncate", Path(path).name, 0))
        return handle

    def write(self, handle: int, view: memoryview, at: int) -> None:
        """Note a write."""
        self.events.append(Event("write", self._names[handle], at, bytes(view)))
        super().write(handle, view, at)

    def truncate(self, handle: int, size: int) -> None:
        """Note a new length."""
        self.events.append(Event("truncate", self._names[handle], size))
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        """Note a barrier."""
        super().sync(handle)
        self.events.append(Event("sync", self._names[handle]))

    def sync_folder(self, path: str) -> None:
        """Note a barrier for names."""
        super().sync_folder(path)
        self.events.append(Event("sync folder", ""))

    def replace(self, source: str, target: str) -> None:
        """Note a new name."""
        self.events.append(Event("replace", Path(source).name, 0, Path(target).name.encode()))
        for handle, name in self._names.items():
            if name == Path(source).name:
                self._names[handle] = Path(target).name
        super().replace(source, target)

    def unlink(self, path: str) -> None:
        """Note a removal."""
        if Path(path).exists():
            self.events.append(Event("unlink", Path(path).name))
        super().unlink(path)


class FailingDisk(Disk):
    """A disk that refuses one of its changes, and all later ones if asked to.

    Parameters
    ----------
    at : int
        Which change to refuse, counted from 0 since `arm`.
    code : int
        The number of the error, such as ``errno.ENOSPC``.
    forever : bool
        Whether later changes fail too.
    """

    def __init__(self, at: int, code: int, *, forever: bool) -> None:
        self._at, self._code, self._forever = at, code, forever
        self._count: int | None = None

    @property
    def failed(self) -> bool:
        """Whether a change was refused."""
        return self._count is not None and self._count > self._at

    def arm(self, *, on: bool = True) -> None:
        """Begin to count, or stop failing."""
        self._count = 0 if on else None

    def write(self, handle: int, view: memoryview, at: int) -> None:
        """Write, or fail halfway."""
        self._refuse(lambda: super(FailingDisk, self).write(handle, view[: len(view) // 2], at))
        super().write(handle, view, at)

    def truncate(self, handle: int, size: int) -> None:
        """Set the length, or fail."""
        self._refuse()
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        """Sync, or fail."""
        self._refuse()
        super().sync(handle)

    def _refuse(self, half: Callable[[], None] = lambda: None) -> None:
        if self._count is None:
            return
        self._count += 1
        if self._count == self._at + 1 or (self._forever and self.failed):
            half()
            raise OSError(self._code, os.strerror(self._code))
