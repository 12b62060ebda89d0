"""Whose turn it is to compute a result: one at a time for each key, among threads, tasks and processes.

Within a process a table says which keys are being computed. Between processes the operating system keeps a
lock on one byte of a file, whose number follows from the key: the lock dies with its process, and leaves
nothing behind. Databases on servers have locks of their own that do the same for other computers.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import xxhash

from datastore_lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from datastore_lab.records import Locks

_POLL = (0.002, 0.1)
"""Seconds between two looks at a lock that another process holds: the first, and the longest."""

_MOMENT = 0.2
"""Seconds of waiting that nobody needs to be told of."""

_BYTES = 2**31 - 2 if sys.platform == "win32" else 2**62
"""How many locks a file has: their numbers never meet by chance, and if they do, one waits for nothing."""

_held: dict[tuple[str, str], threading.Event] = {}
_guard = threading.Lock()
_inside: contextvars.ContextVar[frozenset[tuple[str, str]]] = contextvars.ContextVar(
    "datastore_lab_computing", default=frozenset()
)


class Lock(Protocol):
    """Locks that other processes see, known by number, held until they are released or the process ends."""

    def acquire(self, number: int) -> bool:
        """Take a lock without waiting; False if another process holds it."""
        ...

    def release(self, number: int) -> None:
        """Give a lock back."""
        ...

    def holder(self, number: int) -> str:
        """Name who holds a lock that could not be taken, for people."""
        ...


class Turn:
    """The right to compute one result, as a context manager, also of ``async with``.

    A computation that asks for its own result in its course does not wait for itself.

    Parameters
    ----------
    place : str
        Where the result belongs.
    name : str
        The result there.
    lock : Lock, optional
        What other processes see.
    tell : callable, optional
        Is told who is waited for, once, if that takes longer than a moment.

    Attributes
    ----------
    waited : bool
        Whether somebody else had the turn before: the result may be there now.
    """

    def __init__(
        self, place: str, name: str, lock: Lock | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self._name, self._lock, self._tell = (place, name), lock, tell
        self._number = xxhash.xxh3_64_intdigest(f"{place}\0{name}".encode("utf-8", "surrogatepass")) % _BYTES
        self._mine: threading.Event | None = None
        self._token: contextvars.Token[frozenset[tuple[str, str]]] | None = None
        self.waited = False

    def __enter__(self) -> Turn:
        try:
            while (other := self._enter()) is not None:
                if not other.wait(_MOMENT):
                    self._say("another thread of this program")
                    other.wait()
            self._wait_for_others()
        except BaseException:
            self._leave()
            raise
        return self

    def _wait_for_others(self) -> None:
        begin, pause = time.monotonic(), _POLL[0]
        while not self._locked():
            if self._lock is not None and time.monotonic() - begin > _MOMENT:
                self._say(self._lock.holder(self._number))
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])

    def _say(self, who: str) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(who)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._mine is not None and self._lock is not None:
                self._lock.release(self._number)
        finally:
            self._leave()

    async def __aenter__(self) -> Turn:
        pause = _POLL[0]
        while (other := self._enter()) is not None or not self._locked_or_left():
            if other is None or not other.is_set():
                await asyncio.sleep(pause)
            pause = min(2 * pause, _POLL[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _enter(self) -> threading.Event | None:
        """Take the turn within this process; otherwise give what tells when it is free."""
        if self._name in _inside.get():
            return None
        with _guard:
            other = _held.get(self._name)
            if other is None:
                self._mine = _held[self._name] = threading.Event()
        if other is None:
            self._token = _inside.set(_inside.get() | {self._name})
        else:
            self.waited = True
        return other

    def _locked(self) -> bool:
        if self._mine is None or self._lock is None or self._lock.acquire(self._number):
            return True
        self.waited = True
        return False

    def _locked_or_left(self) -> bool:
        """Take the lock, or let other tasks and threads of this process have their try."""
        try:
            locked = self._locked()
        except BaseException:
            self._leave()
            raise
        if not locked:
            self._leave()
        return locked

    def _leave(self) -> None:
        mine, self._mine = self._mine, None
        if mine is None:
            return
        if self._token is not None:
            with contextlib.suppress(ValueError):  # left in another context than it was entered in
                _inside.reset(self._token)
        with _guard:
            if _held.get(self._name) is mine:
                del _held[self._name]
        mine.set()


class FileLocks:
    """Locks on the bytes of a file, which stays where it is.

    On POSIX they belong to the process: a child that it forks holds none of them. They go when the process
    closes the file, so it is opened once and never closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._process = -1
        self._place = (0, 0)
        self._lock = threading.Lock()

    def acquire(self, number: int) -> bool:
        """Take a lock without waiting; where no lock file can be made, none is needed to be taken."""
        with self._lock:
            try:
                self._open()
            except OSError:  # a place that can't be written keeps no results either
                return True
            return _lock_byte(self._handle, number, take=True)

    def release(self, number: int) -> None:
        """Give a lock back."""
        with self._lock:
            if self._handle >= 0 and self._process == os.getpid():
                _lock_byte(self._handle, number, take=False)

    def holder(self, number: int) -> str:
        """Name the process that holds a lock, where the operating system says it."""
        with self._lock:
            process = _holder(self._handle, number)
        return "another process" if process is None else f"process {process}"

    def _open(self) -> None:
        if self._handle >= 0 and self._process == os.getpid() and self._is_there():
            return
        self._path.parent.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._handle = os.open(self._path, flags, 0o666)
        self._process = os.getpid()
        found = os.fstat(self._handle)
        self._place = (found.st_dev, found.st_ino)

    def _is_there(self) -> bool:
        """Whether the file is still at its path: somebody may have removed it."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._place


_files: dict[Path, FileLocks] = {}


def file_locks(path: Path) -> FileLocks:
    """Give the locks of a file, the same object for the same path."""
    with _guard:
        return _files.setdefault(path, FileLocks(path))


def _lock_byte(handle: int, number: int, *, take: bool) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, number, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            how = fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN
            fcntl.lockf(handle, how, 1, number)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _holder(handle: int, number: int) -> int | None:
    """Give the process that holds the lock on a byte, as ``F_GETLK`` tells it; None if it does not."""
    form, order = _FLOCK.get(sys.platform, ("", ()))
    if not form:
        return None
    import fcntl

    asked = {"type": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": number, "length": 1, "process": 0}
    try:
        found = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(form, *(asked[name] for name in order)))
    except OSError:
        return None
    told = dict(zip(order, struct.unpack(form, found), strict=True))
    return int(told["process"]) if told["type"] != fcntl.F_UNLCK and told["process"] > 0 else None


_FLOCK: dict[str, tuple[str, tuple[str, ...]]] = {
    "linux": ("@hhqqi4x", ("type", "whence", "start", "length", "process")),
    "darwin": ("@qqihh", ("start", "length", "process", "type", "whence")),
}
"""How the ``struct flock`` of fcntl(2) lies in memory, on computers with 64 bits."""


class ServerLocks:
    """Locks of the database that a store lies in.

    Parameters
    ----------
    engine : callable
        Gives the engine as it is open now.
    """

    def __init__(self, engine: Callable[[], Locks]) -> None:
        self._engine = engine
        self._taken: dict[int, AbstractContextManager[bool]] = {}

    def acquire(self, number: int) -> bool:
        """Take a lock without waiting; a server that does not answer keeps no results either."""
        try:
            lock = self._engine().lock(f"cache {number:x}")
            taken = lock is None or lock.__enter__()
        except (LabError, OSError):  # (keeping the result will say what is wrong)
            return True
        if lock is not None and taken:
            self._taken[number] = lock
        elif lock is not None:
            lock.__exit__(None, None, None)
        return taken

    def release(self, number: int) -> None:
        """Give a lock back."""
        if (lock := self._taken.pop(number, None)) is not None:
            lock.__exit__(None, None, None)

    def holder(self, number: int) -> str:
        """Say that it is somebody else: their computer may be any."""
        del number
        return "another session of the database"


def _forget() -> None:
    """Let a forked child begin with no turns: those of its parent are not its own."""
    global _guard  # noqa: PLW0603 (the old one may be held by a thread that is not here)
    _guard = threading.Lock()
    _held.clear()
    for locks in _files.values():
        locks._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
