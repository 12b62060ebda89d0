"""Writing ZIP archives that are the same whenever their files are, and are read again before they count."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.bundles.places import whole_file
from datastore_lab.errors import Corrupt, EngineError, Foreign
from datastore_lab.store.moving.report import Progress

if TYPE_CHECKING:
    from datastore_lab.store.moving.report import Watch

_BUFFER = 1 << 20
_LARGE = 1 << 30
_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that the format has: of a copy, that of its files says nothing."""


class Member(NamedTuple):
    """What goes into an archive.

    Attributes
    ----------
    name : str
        With slashes; that of a folder ends in one.
    path : Path or None
        Where the bytes are; None for a folder.
    """

    name: str
    path: Path | None


class Written(NamedTuple):
    """What went into an archive: size in bytes, CRC-32 as the format keeps it, SHA-256 if wanted."""

    name: str
    size: int
    crc: int
    sha256: str


class Account:
    """Tells how far the work is.

    Parameters
    ----------
    watch : callable or None
    items, nbytes : int
        How much there is, as far as it is known before.
    """

    def __init__(self, watch: Watch | None, items: int, nbytes: int) -> None:
        self._watch, self._of = watch, (items, nbytes)
        self._phase, self._items, self._nbytes = "", 0, 0

    def begin(self, phase: str) -> None:
        """Begin with another part of the work."""
        self._phase, self._items, self._nbytes = phase, 0, 0

    def add(self, nbytes: int, *, items: int = 0) -> None:
        """Note what was done."""
        self._items, self._nbytes = self._items + items, self._nbytes + nbytes
        if self._watch is not None:
            items, total = max(self._of[0], self._items), max(self._of[1], self._nbytes)
            self._watch(Progress(self._phase, self._items, items, self._nbytes, total))


def write_zip(
    outfile: Path,
    members: Iterable[Member],
    account: Account,
    *,
    last: Callable[[list[Written]], tuple[str, bytes]] | None = None,
) -> list[Written]:
    """Write an archive: complete, read again and compared, or not at all.

    Files are stored as they are, with one date for all, in the order that is given.

    Parameters
    ----------
    outfile : Path
        Replaced if it is there.
    members : iterable of Member
    account : Account
    last : callable, optional
        Gives, from what was written, name and bytes of one more file; SHA-256 sums are made for it.

    Raises
    ------
    Foreign
        If a member is a link or no file.
    EngineError
        If a file changes while it is read, or the disk refuses.
    Corrupt
        If what is read again is not what was written.
    """
    buffer = bytearray(_BUFFER)
    with whole_file(outfile) as file:
        account.begin("packing")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            written = [_put(archive, member, buffer, account, hashed=last is not None) for member in members]
            if last is not None:
                name, raw = last(written)
                archive.writestr(_info(name), raw)
                written.append(Written(name, len(raw), zlib.crc32(raw), ""))
        file.flush()
        account.begin("verifying")
        _verify(file, written, account, outfile)
    return written


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    folder = name.endswith("/")
    info.create_system = 3  # as on Unix, whatever this is
    info.external_attr = (0o40755 << 16) | 0x10 if folder else 0o100644 << 16
    return info


def _put(
    archive: zipfile.ZipFile, member: Member, buffer: bytearray, account: Account, *, hashed: bool
) -> Written:
    info, sha, view = _info(member.name), hashlib.sha256(), memoryview(buffer)
    if member.path is None:
        archive.writestr(info, b"")
        return Written(member.name, 0, 0, "")
    with (
        _reading(member.path) as (source, size),
        archive.open(info, "w", force_zip64=size >= _LARGE) as target,
    ):
        left = size  # (one that grows would never come to an end)
        while count := source.readinto(view[:left]):
            left -= count
            target.write(view[:count])
            if hashed:
                sha.update(view[:count])
            account.add(count)
    account.add(0, items=1)
    return Written(member.name, info.file_size, info.CRC, sha.hexdigest() if hashed else "")


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, int]]:
    """Open a file, follow no link, and refuse one that changes meanwhile."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Foreign(f"{str(path)!r} is a link or no file, which is not packed; remove it", key=str(path))
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        yield file, before.st_size
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise EngineError(f"{str(path)!r} was changed while it was packed; try again", key=str(path))


def _verify(file: Any, written: list[Written], account: Account, outfile: Path) -> None:
    """Read an archive again, and compare it with what was put into it."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            found = [(info.filename, info.file_size, info.CRC) for info in infos]
            if found != [(one.name, one.size, one.crc) for one in written]:
                raise Corrupt(f"{str(outfile)!r} does not hold what was written to it", key=str(outfile))
            for info in infos:
                for chunk in chunks(archive, info):
                    account.add(len(chunk))
                account.add(0, items=not info.is_dir())
    except zipfile.BadZipFile as error:
        raise Corrupt(f"{str(outfile)!r} is not as it was written: {error}", key=str(outfile)) from error


def chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Read a file of an archive piece by piece, against its sum."""
    with archive.open(info) as source:
        while chunk := source.read(_BUFFER):
            yield chunk
