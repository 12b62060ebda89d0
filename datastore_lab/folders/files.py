"""The one seam through which a folder store changes the disk, so that a test can record and replay it."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from datastore_lab import media
from datastore_lab.errors import EngineError
from datastore_lab.folders.threads import begin
from datastore_lab.linux import from_libc, reserve

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

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
    os.close(_write_open(path, buffers))


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


class LargeFiles:
    """Lets the disk begin with large files as soon as they are written, while the next ones are made.

    Several threads may write at the same time.
    """

    def __init__(self) -> None:
        self._handles: dict[str, int] = {}
        self._lock = threading.Lock()

    def write(self, path: str, *buffers: Buffer) -> None:
        """Write a new file, and let the disk begin with it."""
        if _observers:
            _note("write", path, b"".join(bytes(buffer) for buffer in buffers))
        if len(self._handles) >= _HANDLES:
            self.sync()
        handle = _write_open(path, buffers)
        if _sync_file_range is not None:
            _sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), _BEGIN_WRITE)
        with self._lock:
            self._handles[path] = handle

    def sync(self) -> None:
        """Make all of them durable."""
        handles = self._let_go()
        try:
            for path in handles:
                _note("sync", path)
            _at_once(os.fsync, list(handles.values()))
        finally:
            for handle in handles.values():
                os.close(handle)

    def close(self) -> None:
        """Give them up."""
        for handle in self._let_go().values():
            os.close(handle)

    def _let_go(self) -> dict[str, int]:
        with self._lock:
            handles, self._handles = self._handles, {}
        return handles


def _at_once(work: Callable[[T], None], items: Sequence[T]) -> None:
    """Let several threads wait for the disk, which then does it in fewer turns than one by one."""
    if len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(len(items), _THREADS), "sync") as pool:
        begun = [begin(pool, work, item) for item in items]
    for one in begun:
        one.result()


def _write_open(path: str, buffers: Sequence[Buffer]) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    try:
        reserve(handle, 0, sum(map(len, views)))
        for view in views:
            _write_all(handle, view)
    except BaseException:
        os.close(handle)
        raise
    return handle


def sync_all(paths: Sequence[str]) -> None:
    """Make several files and folders durable at once: the disk does it in fewer turns than one by one."""
    for path in paths:
        _note("sync", path)
    _at_once(_sync, paths)


class SyncPoint:
    """Makes many files durable at once, by one call to the file system they lie on.

    To be made before the first of them is written: what the disk refuses from then on is reported.

    Parameters
    ----------
    path : str
        Any folder on that file system.
    """

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY) if _syncfs is not None else None

    def sync(self, paths: Sequence[str]) -> None:
        """Make files and the names in folders durable, and end."""
        try:
            if self._handle is None or len(paths) < _MANY:
                sync_all(paths)
                return
            for path in paths:
                _note("sync", path)
            _sync_file_system(self._handle)
        finally:
            self.close()

    def close(self) -> None:
        """Release the handle; may be called twice."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


def _sync_file_system(handle: int) -> None:
    if _syncfs is not None and _syncfs(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_syncfs = from_libc("syncfs")
_sync_file_range = from_libc("sync_file_range")
_BEGIN_WRITE = 2  # SYNC_FILE_RANGE_WRITE: a hint, the sync that counts comes later
_HANDLES = 64
_THREADS = 8
_TICKS = (1, 100, 1000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""How finely file systems keep a time, in ns: most of Linux, NTFS, some servers, exFAT, HFS+, FAT."""

_MANY = 24
"""From so many files on, one call for the whole file system costs less than one for each."""


def sync(path: str) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    _note("sync", path)
    _sync(path)


def _sync(path: str) -> None:
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


def link(source: str, target: str) -> None:
    """Give a file a second name."""
    _note("link", source, target)
    os.link(source, target, follow_symlinks=False)


def twin(path: str) -> str:
    """Give a file a second name beside its own, unless it has that already; returns it."""
    name = path + "~"
    if not os.path.lexists(name):
        link(path, name)
    return name


def let_time_grow(path: str) -> None:
    """Set the time of a file to now, but to a later one than it has, however coarse the file system is."""
    before = os.stat(path).st_mtime_ns
    for tick in _TICKS:
        number = max(time.time_ns(), before + tick)
        try:
            os.utime(path, ns=(number, number))
        except PermissionError:  # only the owner may set a time; a member of the group may say "now"
            time.sleep(tick / 1e9)
            os.utime(path)
        if os.stat(path).st_mtime_ns != before:
            return


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
