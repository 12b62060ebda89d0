"""Files whose content a result depends on: name, size and digest."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import xxhash

from datastore_lab.errors import NotFound, NotStorable

_BLOCK = 4_000_000

_SETTLED = 2.0
"""Seconds after which a file system surely shows another change of a file by another time."""

_Version: TypeAlias = tuple[int, int, int, int, int]

_known: dict[str, tuple[_Version, str]] = {}


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """Give size and digest of files, by ``"file <path>"``.

    Parameters
    ----------
    paths : iterable of str
        As the user wrote them; ``*``, ``?`` and ``[...]`` stand for all files that fit.

    Raises
    ------
    NotFound
        If there is no such file.
    NotStorable
        If it is a folder.
    """
    found: dict[str, str] = {}
    for path in paths:
        for name in _expanded(path):
            found[f"file {name}"] = _digest(Path(name).expanduser())
    return found


def _expanded(path: str) -> list[str]:
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    names = sorted(glob.glob(str(Path(path).expanduser()), recursive=True))  # noqa: PTH207 (** and ~)
    if not names:
        raise NotFound(f"no file fits {path!r}", key=path)
    return [name for name in names if not Path(name).is_dir()]


def _digest(path: Path) -> str:
    """Digest a file, or remember it: only one that has been at rest, since two changes may look like one."""
    try:
        version = _version(path)
        known = _known.get(str(path.absolute()))
        if known is not None and known[0] == version:
            return known[1]
        with path.open("rb") as file:
            state = xxhash.xxh3_128()
            while block := file.read(_BLOCK):
                state.update(block)
        digest = f"{version[2]} {state.hexdigest()}"
        if version == _version(path) and time.time() - max(version[3:]) / 1e9 > _SETTLED:
            _known[str(path.absolute())] = version, digest
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", key=str(path)) from error
    except IsADirectoryError as error:
        what = f"{path} is a folder; name its files, as in --file '{path}/*.csv'"
        raise NotStorable(what, key=str(path)) from error
    return digest


def _version(path: Path) -> _Version:
    stat = os.stat(path)  # noqa: PTH116 (follows links, as reading does)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
