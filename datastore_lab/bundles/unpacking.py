"""Reading ZIP archives from anywhere: nothing is written before every name and size in them was looked at."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from datastore_lab.bundles.packing import Account, chunks
from datastore_lab.errors import Corrupt, EngineError, Foreign, NotFound

if TYPE_CHECKING:
    from datastore_lab.store.moving.report import Watch

_RATIO = 200
_ALWAYS = 1 << 30
_WRONG = re.compile(r"^/|^[A-Za-z]:|\\|[\x00-\x1f\x7f]|(^|/)\.{1,2}(/|$)|//")

Taken = Callable[[str, bytes], None]


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what is wrong with it is said in the errors of this package.

    Raises
    ------
    NotFound, Foreign, Corrupt
    """
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}", key=str(path))
    if not zipfile.is_zipfile(path):
        raise Foreign(f"{str(path)!r} is no ZIP archive, or has lost its end", key=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise Corrupt(f"{str(path)!r} is damaged: {error}; restore it from a copy", key=str(path)) from error


def members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """List what an archive holds, having refused what must not be unpacked.

    Raises
    ------
    Foreign
        For names that lead elsewhere, links, names that are there twice, encrypted files, files that overlap,
        and sizes out of all proportion.
    """
    infos = archive.infolist()
    for info in infos:
        _check(info, path)
    _check_names([info.filename for info in infos], path)
    _check_places(infos, archive.start_dir, path)
    total = sum(info.file_size for info in infos)
    if total > max(_ALWAYS, _RATIO * path.stat().st_size):
        _refuse(path, f"claims to hold {total:,} bytes, more than {_RATIO} times its size")
    return infos


def _check(info: zipfile.ZipInfo, path: Path) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if _WRONG.search(info.orig_filename) or not info.filename.strip("/"):
        _refuse(path, f"holds the name {info.orig_filename!r}, which leads elsewhere")
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        _refuse(path, f"holds {info.filename!r}, which is a link or no file")
    if info.flag_bits & 1:
        _refuse(path, f"holds {info.filename!r}, which is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        _refuse(path, f"holds {info.filename!r} in a compression that is not read here")
    if info.is_dir() and info.file_size:
        _refuse(path, f"holds {info.filename!r}, a folder with content")


def _check_names(names: list[str], path: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name.rstrip("/") in seen:
            _refuse(path, f"holds {name!r} twice")
        seen.add(name.rstrip("/"))
    files = {name for name in names if not name.endswith("/")}
    for name in seen:
        parts = name.split("/")
        above = next((one for end in range(1, len(parts)) if (one := "/".join(parts[:end])) in files), None)
        if above is not None:
            _refuse(path, f"holds {above!r} as a file and as a folder")


def _check_places(infos: list[zipfile.ZipInfo], end: int, path: Path) -> None:
    """Refuse files that share bytes: a small archive could become any size by them."""
    for info in sorted(infos, key=lambda info: -info.header_offset):
        if info.header_offset + 30 + info.compress_size > end:
            _refuse(path, f"holds {info.filename!r}, whose bytes belong to another file, too")
        end = info.header_offset


def _refuse(path: Path, what: str) -> NoReturn:
    raise Foreign(f"{str(path)!r} {what}: it is not unpacked", key=str(path))


def read_zip(
    path: Path, wanted: list[tuple[zipfile.ZipInfo, str]], folder: Path, watch: Watch | None, taken: Taken
) -> None:
    """Unpack files into an empty folder.

    Parameters
    ----------
    path : Path
        The archive.
    wanted : list of (ZipInfo, str)
        Of those that `members` gives, each with its name in the folder.
    folder : Path
    watch : callable or None
        Told of the progress.
    taken : callable
        Told of name and bytes of every piece.

    Raises
    ------
    Corrupt
        If a file is not as it was packed.
    EngineError
        If the disk has no room for all of it.
    """
    total = sum(info.file_size for info, _name in wanted)
    if shutil.disk_usage(folder).free < total:
        raise EngineError(
            f"{str(path)!r} needs {total:,} bytes, which {str(folder.parent)!r} lacks", key=path
        )
    account = Account(watch, sum(not info.is_dir() for info, _name in wanted), total)
    account.begin("unpacking")
    with opened(path) as archive:
        for info, name in wanted:
            _unpack(archive, info, folder / name, account, taken)


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, account: Account, taken: Taken
) -> None:
    if info.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    size = 0
    with os.fdopen(os.open(target, flags, 0o666), "wb") as file:
        for chunk in chunks(archive, info):
            size += len(chunk)
            file.write(chunk)
            taken(info.filename, chunk)
            account.add(len(chunk))
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {size} bytes, not {info.file_size}")
    account.add(0, items=1)
