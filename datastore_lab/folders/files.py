"""The one seam through which a folder store changes the disk, so that a test can record and replay it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from datastore_lab import media
from datastore_lab.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Observer: TypeAlias = Callable[[str, str, object], None]
"""Called as ``observer(operation, path, detail)`` before every change; may raise to refuse it."""

_observers: list[Observer] = []


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Report every change on disk to `observer` while the block runs."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _note(operation: str, path: str, detail: object = None) -> None:
    for observer in _observers:
        observer(operation, path, detail)


def write(path: str, *buffers: Buffer) -> None:
    """Write a new file; it is not durable before `sync`."""
    if _observers:
        _note("write", path, b"".join(bytes(buffer) for buffer in buffers))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for buffer in buffers:
            _write_all(handle, memoryview(buffer).cast("B"))
    finally:
        os.close(handle)


class NewFile:
    """A new file that is written piece by piece; it is not durable before `sync`."""

    def __init__(self, path: str) -> None:
        _note("write", path, b"")
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._open = True

    def write(self, buffer: Buffer) -> None:
        """Add bytes at the end."""
        if _observers:
            _note("append", self._path, bytes(buffer))
        _write_all(self._handle, memoryview(buffer).cast("B"))

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._open:
            self._open = False
            os.close(self._handle)


def _write_all(handle: int, view: memoryview) -> None:
    while view:
        view = view[os.write(handle, view) :]


def sync(path: str) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    _note("sync", path)
    if os.path.isdir(path):
        media.sync_folder(path)
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(source: str, target: str) -> None:
    """Give a file or a folder another name, replacing a file that has it."""
    _note("rename", source, target)
    os.replace(source, target)


def make_folder(path: str) -> None:
    """Make one folder."""
    _note("mkdir", path)
    os.mkdir(path)


def unlink(path: str) -> None:
    """Remove one file or symbolic link."""
    _note("unlink", path)
    os.unlink(path)


def remove_tree(path: str) -> int:
    """Remove whatever is at a path, following no link; returns the bytes that its files held."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        unlink(path)
        return status.st_size
    with os.scandir(path) as entries:
        names = [entry.path for entry in entries]
    freed = sum(remove_tree(name) for name in names)
    _note("rmdir", path)
    os.rmdir(path)
    return freed


def empty(path: str) -> int:
    """Remove everything in a folder that may be absent; returns the bytes that its files held."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return 0
    return sum(remove_tree(os.path.join(path, name)) for name in names)


def read(path: str, root: str, limit: int | None = None) -> bytes:
    """Read a whole file that lies in the tree below `root`; a link that leaves it is refused.

    Raises
    ------
    EngineError
        If the file is larger than `limit` bytes, or a link that leads out.
    """
    handle = open_inside(path, root)
    try:
        size = os.fstat(handle).st_size
        if limit is not None and size > limit:
            raise EngineError(f"{path!r} has {size:,} bytes, more than the {limit:,} that are read", key=path)
        raw = os.read(handle, size + 1)
        while len(raw) < size and (more := os.read(handle, size - len(raw))):
            raw += more
        return raw
    finally:
        os.close(handle)


def open_inside(path: str, root: str) -> int:
    """Open a file for reading unless it is a link that leaves the tree below `root`."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    refuse_outside(path, root)
    return os.open(os.path.realpath(path), flags)


def refuse_outside(path: str, root: str) -> None:
    """Raise if what a link points to lies outside the tree."""
    target = os.path.realpath(path)
    if os.path.commonpath([target, root]) != root:
        raise EngineError(
            f"{path!r} is a link that leads out of the store, to {target!r}; such links are "
            "not followed: open the place that it points to instead",
            key=path,
        )
