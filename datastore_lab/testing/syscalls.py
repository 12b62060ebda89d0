"""Every change that a program makes to a folder, from the system calls it made.

`record` runs some work in a child under ``strace`` and takes down each call that changes what lies in a
folder, whoever makes it: our code or a library of the format. Needs Linux.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datastore_lab.testing.power import Change
from datastore_lab.testing.processes import CONTEXT, how

_CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,"
    "fallocate,copy_file_range,sendfile,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,fsync,fdatasync,syncfs,sync_file_range,msync"
)


def record(work: Callable[..., None], arguments: tuple[Any, ...], folder: Path, notes: Path) -> list[Change]:
    """Do some work in a child and take down what it does to a folder.

    Parameters
    ----------
    work : callable
        Called as ``work(mark, *arguments)``; each call of ``mark()`` becomes a change of kind ``mark``.
    arguments : tuple
    folder : Path
        What lies below it is taken down.
    notes : Path
        A folder elsewhere, for what ``strace`` writes.
    """
    ready, go = CONTEXT.Event(), CONTEXT.Event()
    child = CONTEXT.Process(target=_run, args=(work, arguments, notes / "marks", ready, go))
    child.start()
    while not ready.wait(0.2):
        if not child.is_alive():
            raise AssertionError(f"the child did not start: {how(child.exitcode)}")
    with _traced(child.pid, notes / "calls"):
        go.set()
        child.join()
    if child.exitcode:
        raise AssertionError(f"the work ended by itself: {how(child.exitcode)}")
    return list(_Reader(str(folder.resolve()), str((notes / "marks").resolve())).read(notes / "calls"))


def _run(work: Callable[..., None], arguments: tuple[Any, ...], marks: Path, ready: Any, go: Any) -> None:
    with marks.open("wb", buffering=0) as file:
        ready.set()
        go.wait()
        work(lambda: file.write(b"."), *arguments)


@contextmanager
def _traced(process: int, notes: Path) -> Iterator[None]:
    command = ["strace", "-f", "-y", "-xx", "-s", str(1 << 26), "-e", f"trace={_CALLS}", "-e", "signal=none"]
    with subprocess.Popen(  # noqa: S603 (our own words)
        [*command, "-o", str(notes), "-p", str(process)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            raise OSError(f"strace can't be attached: {said.strip()}")
        yield
        tracer.communicate()


_CALL = re.compile(rb"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?", re.DOTALL)
_BEGUN = re.compile(rb"(\d+) +(\w+)\((.*) <unfinished \.\.\.>", re.DOTALL)
_ENDED = re.compile(rb"(\d+) +<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_TEXT = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(rb"(-?\w+)<([^>]*)>")


class _Reader:
    """Turns what strace wrote into changes below a folder."""

    def __init__(self, root: str, marks: str) -> None:
        self._root, self._marks = root, marks
        self._at: dict[bytes, list[int]] = {}  # by handle; one that was duplicated shares its position

    def read(self, notes: Path) -> Iterator[Change]:
        begun: dict[bytes, bytes] = {}
        with notes.open("rb") as lines:
            for text in lines:
                line = text
                if half := _BEGUN.match(line):
                    begun[half[1]] = b"%s %s(%s" % half.groups()
                    continue
                if rest := _ENDED.match(line):
                    line = begun.pop(rest[1]) + rest[3]
                if (call := _CALL.match(line)) and int(call[4]) >= 0:
                    yield from self._take(call[2].decode(), call[3], int(call[4]), call[5])

    def _take(self, name: str, arguments: bytes, result: int, path: bytes | None) -> Iterator[Change]:
        handle = found if (found := _HANDLE.match(arguments)) else None
        place = _plain(handle[2]) if handle else ""
        if name in {"write", "writev"} and place == self._marks:
            yield Change("mark", "")
        elif name in {"open", "openat", "creat"}:
            yield from self._opened(arguments, result, _plain(path or b""))
        elif name in _MOVING:
            yield from self._named(name, arguments)
        elif handle:
            for change in self._handled(name, handle[1], arguments, result):
                if (inside := self._inside(place)) is not None:
                    yield change._replace(path=inside)

    def _opened(self, arguments: bytes, handle: int, path: str) -> Iterator[Change]:
        self._at[b"%d" % handle] = [-1 if b"O_APPEND" in arguments else 0]
        inside = self._inside(path)
        if inside is not None and b"O_CREAT" in arguments:
            yield Change("create", inside)
        if inside is not None and b"O_TRUNC" in arguments:
            yield Change("truncate", inside, 0)

    def _handled(self, name: str, handle: bytes, arguments: bytes, result: int) -> Iterator[Change]:
        """Give the changes made through a handle; whose path is known to the caller."""
        numbers = [int(text) for text in re.findall(rb", (-?\d+)(?=[,)]|$)", _TEXT.sub(b'""', arguments))]
        if name in {"write", "writev"}:
            yield Change("write", "", *self._advance(handle, _bytes(arguments)[:result]))
        elif name in {"pwrite64", "pwritev", "pwritev2"}:
            yield Change("write", "", numbers[1], _bytes(arguments)[:result])
        elif name == "ftruncate":
            yield Change("truncate", "", numbers[0])
        elif name == "fallocate":
            yield Change("allocate", "", 0 if b"KEEP_SIZE" in arguments else sum(numbers[-2:]))
        elif name in _SYNCING:
            yield Change(_SYNCING[name], "")
        elif name in {"copy_file_range", "sendfile"}:
            yield Change("copy", "")
        elif name == "lseek" and self._at.get(handle, [0]) != [-1]:
            self._at.setdefault(handle, [0])[0] = result
        elif name in {"dup", "dup2", "dup3"} or (name == "fcntl" and b"F_DUPFD" in arguments):
            self._at[b"%d" % result] = self._at.get(handle, [0])
        elif name == "close":
            self._at.pop(handle, None)

    def _advance(self, handle: bytes, data: bytes) -> tuple[int, bytes]:
        position = self._at.setdefault(handle, [0])
        at = position[0]
        if at >= 0:
            position[0] += len(data)
        return at, data

    def _named(self, name: str, arguments: bytes) -> Iterator[Change]:
        folders = [_plain(found) for _, found in _HANDLE.findall(_TEXT.sub(b'""', arguments))]
        texts = [_plain(text) for text in _TEXT.findall(arguments)]
        if name.endswith(("at", "at2")):
            folders = folders[-1:] if name == "symlinkat" else folders
            texts = [os.path.join(*pair) for pair in zip(folders, texts[-len(folders) :], strict=True)]  # noqa: PTH118
        inside = [self._inside(os.path.normpath(text)) for text in texts]
        kind = "rmdir" if b"AT_REMOVEDIR" in arguments else _MOVING[name]
        if None not in inside:
            yield Change(kind, inside[0] or "", target=inside[-1] or "")
        elif inside != [None] * len(inside):
            raise AssertionError(f"{name} crosses the border of the folder: {texts}")

    def _inside(self, path: str) -> str | None:
        if path == self._root:
            return ""
        start = self._root + os.sep
        return path.removeprefix(start) if path.startswith(start) else None


_MOVING = {
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("unlink", "unlinkat"), "unlink"),
    **dict.fromkeys(("mkdir", "mkdirat"), "mkdir"),
    **dict.fromkeys(("link", "linkat"), "link"),
    "rmdir": "rmdir",
}

_SYNCING = {"fsync": "sync", "fdatasync": "sync", "syncfs": "sync all"}


def _plain(text: bytes) -> str:
    return os.fsdecode(bytes.fromhex(text.replace(b"\\x", b"").decode()))


def _bytes(arguments: bytes) -> bytes:
    return b"".join(bytes.fromhex(text.replace(b"\\x", b"").decode()) for text in _TEXT.findall(arguments))
