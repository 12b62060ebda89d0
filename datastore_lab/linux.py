"""Calls of Linux that Python's own `os` lacks; elsewhere they are left out, as all of them only save time."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from typing import Any

_LARGE = 1 << 20
_KEEP_SIZE = 1  # of fallocate(2)


def from_libc(name: str) -> Any:
    """Find a function of Linux since 5.8, from where on syncfs(2) reports errors; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    version = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
    return getattr(ctypes.CDLL(None, use_errno=True), name, None) if version >= (5, 8) else None


_fallocate = from_libc("fallocate64")


def reserve(handle: int, at: int, size: int, *, ahead: bool = False) -> None:
    """Let the file system find room for a large piece of a file in one step, which makes writing faster.

    What it answers does not matter: if there is no room, writing says so. The file is as long afterwards as
    if the piece had been written; if that is still `ahead`, as long as before.

    Parameters
    ----------
    handle : int
        A file that is open for writing.
    at, size : int
        Where the piece begins, and how long it is, in bytes.
    """
    if _fallocate is not None and size >= _LARGE:
        _fallocate(handle, _KEEP_SIZE if ahead else 0, ctypes.c_int64(at), ctypes.c_int64(size))
