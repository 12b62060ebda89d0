"""Temporary folders that do not outlive their process by more than the next use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from datastore_lab.errors import Locked
from datastore_lab.locks import FileLock

_PREFIX = "datastore_lab-scratch-"
_LOCK = "in-use.lock"


def scratch_folder() -> tuple[Path, Callable[[], None]]:
    """Make a temporary folder, and remove those of processes that were killed.

    Returns
    -------
    folder : Path
    release : callable
        Removes the folder with everything in it; may be called twice.
    """
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = FileLock(folder / _LOCK, f"the temporary folder {str(folder)!r}")

    def release() -> None:
        if lock.held:
            lock.release()
            shutil.rmtree(folder)

    return folder, release


def sweep() -> int:
    """Remove the temporary folders that no living process holds; returns how many."""
    swept = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock_file = folder / _LOCK
        if not lock_file.is_file():  # another process is just making or removing it
            continue
        try:
            lock = FileLock(lock_file, str(folder))
        except (Locked, PermissionError):  # in use, or another user's
            continue
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        swept += 1
    return swept
