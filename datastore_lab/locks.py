"""Locks on files that say who holds them and die with their process."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from datastore_lab.errors import Locked

_POLL = 0.05


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    The operating system keeps the lock, so that a killed process leaves none behind. The file holds a note
    of its holder, which is what a second one is shown.

    Parameters
    ----------
    path : path-like
        The lock file; made if missing.
    what : str
        What is protected, for the message of `Locked`.
    timeout : float, default 0
        How long to wait for the present holder, in seconds.

    Raises
    ------
    Locked
        Naming the holder, if it does not let go in time.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, timeout: float = 0) -> None:
        self.path = Path(path)
        self._handle: int | None = None
        self._handle = _acquire(self.path, what, time.monotonic() + timeout)
        try:
            _write_note(self._handle)
        except BaseException:
            self.release()
            raise

    @property
    def held(self) -> bool:
        """Whether the lock has not been released yet."""
        return self._handle is not None

    def release(self, *, remove: bool = True) -> None:
        """Let go, and remove the file; may be called twice."""
        if self._handle is None:
            return
        if remove:
            with contextlib.suppress(OSError):  # on Windows an open file can't be removed: it stays, unlocked
                self.path.unlink()
        os.close(self._handle)
        self._handle = None


def _acquire(path: Path, what: str, deadline: float) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if lock_handle(handle) and same_file(handle, path):
                return handle
            holder = _read_note(handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() >= deadline:
            raise Locked(
                f"{what} is in use by {holder}; close it there, or open it for reading", key=str(path)
            )
        time.sleep(_POLL)


def lock_handle(handle: int) -> bool:
    """Lock an open file exclusively without waiting; False if another holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def same_file(handle: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file is still the one at its path: somebody may have removed or replaced it."""
    try:
        there = os.stat(path)  # noqa: PTH116 (also for the engines, which keep plain text)
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)


def holder_note() -> dict[str, Any]:
    """Say who this process is, for whoever finds the lock taken."""
    since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def describe_holder(note: str | bytes) -> str:
    """Turn the note of a holder into words."""
    try:
        holder = json.loads(note)
        own = " (this process)" if holder["pid"] == os.getpid() else ""
        return f"process {holder['pid']}{own} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _write_note(handle: int) -> None:
    os.truncate(handle, 0)
    os.pwrite(handle, json.dumps(holder_note()).encode(), 0)


def _read_note(handle: int) -> str:
    return describe_holder(os.pread(handle, 4096, 0))
