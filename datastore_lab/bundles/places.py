"""Files and folders that are there completely or not at all, and leave nothing when they are interrupted.

What is unfinished has a name that follows from the target's, so that the next attempt takes its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from datastore_lab import media
from datastore_lab.errors import AlreadyExists, EngineError, LabError, Locked, NotFound
from datastore_lab.linux import from_libc
from datastore_lab.locks import FileLock, lock_handle, same_file


def unfinished(target: Path) -> Path:
    """Name what is to become a target.

    Examples
    --------
    >>> str(unfinished(Path("data.zip")))
    '.data.zip-part'
    """
    return target.with_name(f".{target.name}-part")


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the place of the target when the block has ended well.

    Raises
    ------
    Locked
        If another process is making the same file.
    """
    part = unfinished(target)
    with typed(target):
        handle = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "w+b") as file:
            if not (lock_handle(handle) and same_file(handle, part)):
                raise Locked(f"{str(target)!r} is being written by another process; wait for it", key=target)
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(handle)
                part.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):  # (the next attempt writes over it)
                    part.unlink()
                raise
        media.sync_folder(target.parent)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes the target when the block has ended well.

    Raises
    ------
    AlreadyExists
        If there is anything at the target but an empty folder.
    Locked
        If another process is making the same folder.
    """
    refuse_filled(target)
    part = unfinished(target)
    with typed(target):
        lock = FileLock(f"{part}-lock", f"the place {str(target)!r}")
        try:
            if part.exists():
                shutil.rmtree(part)  # of one that was interrupted
            part.mkdir()
            yield part
            _sync_below(part)
            refuse_filled(target)
            os.replace(part, target)  # noqa: PTH105 (over an empty folder)
            media.sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # (the next attempt does it)
            raise
        finally:
            lock.release()


def _sync_below(folder: Path) -> None:
    """Make all files in a folder durable, with one call for thousands of them where the system has it."""
    if _syncfs is not None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            if _syncfs(handle) != 0:
                raise OSError(ctypes.get_errno(), "the file system can't be synced", str(folder))
        finally:
            os.close(handle)
        return
    for place, _folders, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(place) / name, os.O_RDWR)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        media.sync_folder(place)


_syncfs = from_libc("syncfs")


def refuse_filled(target: Path) -> None:
    """Refuse a place where something is that would be lost."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise AlreadyExists(f"{str(target)!r} exists already; give another place", key=str(target))


@contextmanager
def typed(target: Path) -> Iterator[None]:
    """Name the target in errors of the disk."""
    if not target.parent.is_dir():
        raise NotFound(f"there is no folder {str(target.parent)!r}; make it first", key=str(target))
    try:
        yield
    except OSError as error:
        if isinstance(error, LabError):
            raise
        raise EngineError(f"{str(target)!r} can't be written: {error}", key=str(target)) from error
