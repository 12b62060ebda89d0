"""Looking at how a file begins, without letting go of the locks that this process has on it.

POSIX drops all locks of a process on a file once it closes any descriptor of that file: to open and close a
SQLite database by another name than its own would let other processes write while this one does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_DESCRIPTORS = Path("/dev/fd")


def head(place: Path, size: int) -> bytes:
    """Give the first bytes of a file, through a descriptor that this process has already, if there is one.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"SQLite format 3"), file.flush()
    ...     head(Path(file.name), 6)
    b'SQLite'
    """
    wanted = place.stat()
    for descriptor in _descriptors():
        with contextlib.suppress(OSError):  # closed meanwhile, or open for writing only
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return os.pread(descriptor, size, 0)
    with place.open("rb") as file:
        return file.read(size)


def _descriptors() -> list[int]:
    if not hasattr(os, "pread"):  # Windows, where a lock belongs to the handle that took it
        return []
    try:
        return sorted(int(name) for name in os.listdir(_DESCRIPTORS) if name.isdecimal())  # noqa: PTH208
    except OSError:
        return []
