"""Disks that fail: a call that is refused, a full one, one that turns read-only, one that is gone.

`refusing` makes the system calls of another process fail, whoever makes them: our code or a library of the
format. `mount` gives this process a small disk that nobody else sees. Both need Linux; the first needs
``strace``, the second the right to make namespaces.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CALLS = (
    "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,copy_file_range,rename,renameat,"
    "renameat2,mkdir,mkdirat,link,linkat"
)
"""The calls by which data and names get to a disk."""

_NEWNS, _NEWUSER = 0x20000, 0x10000000
_RDONLY, _REMOUNT, _PRIVATE, _DETACH = 1, 32, 1 << 18 | 1 << 14, 2


@contextmanager
def refusing(process: int, error: str, at: int, *, forever: bool) -> Iterator[None]:
    """Let a call of another process fail while the block runs.

    Parameters
    ----------
    process : int
        Number of the process; its threads are meant, too.
    error : str
        Name of the error, such as ``"ENOSPC"``.
    at : int
        Which of the `CALLS` to refuse, counted from 1.
    forever : bool
        Whether to refuse all after it, too.
    """
    inject = f"inject={CALLS}:error={error}:when={at}{'+' if forever else ''}"
    command = ["strace", "-f", "-o", os.devnull, "-e", f"trace={CALLS}", "-e", inject, "-p", str(process)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:  # noqa: S603 (our own words)
        assert tracer.stderr is not None
        try:
            said = tracer.stderr.readline()
            if "attached" not in said:
                raise OSError(f"strace can't be attached: {said.strip()}")
            yield
        finally:
            tracer.terminate()
            tracer.communicate()


def mount(place: Path, size: str) -> None:
    """Mount a small disk in memory, for this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEWNS):
        _check(libc.unshare(_NEWNS | _NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(libc.mount(b"none", b"/", None, _PRIVATE, None))
    _check(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, f"size={size}".encode()))


def make_read_only(place: Path) -> None:
    """Let the disk of `mount` turn read-only, as one does after an error; open files stay open.

    Where files are open for writing, Linux refuses that for the disk as a whole; the mount turns read-only.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    bind = 4096
    _check(libc.mount(os.fsencode(place), os.fsencode(place), None, bind, None))
    _check(libc.mount(b"none", os.fsencode(place), None, _REMOUNT | bind | _RDONLY, None))


def take_away(place: Path) -> None:
    """Let the disk of `mount` vanish, as a stick that is pulled out."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.umount2(os.fsencode(place), _DETACH))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
