"""What a stopped program left behind, brought back to order, and what of it is lost."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from datastore_lab import media
from datastore_lab.errors import Corrupt, EngineError, Locked
from datastore_lab.keys import show
from datastore_lab.records import Problem, Repair, Salvages
from datastore_lab.registry import ENGINES
from datastore_lab.store.checking import problems, repairs
from datastore_lab.store.opening import open_store, recognised

_QUIET = 2.0
"""A file that was changed so few seconds ago may still be written; it is watched for as long."""


class Recovery(NamedTuple):
    """What `recover` found and did.

    Attributes
    ----------
    path : str
        The store.
    done : tuple of str
        What was brought back to order; empty where nothing had to be.
    lost : tuple of str
        What could not be, and is damaged or gone.
    kept : str or None
        Where the file is kept as it was found, if another was put in its place.
    """

    path: str
    done: tuple[str, ...]
    lost: tuple[str, ...]
    kept: str | None


def recover(path: str | os.PathLike[str]) -> Recovery:
    """Bring a store back to order after its writer was killed, the power failed, or a disk was full.

    A commit that this package's writer did not end is ended or taken back, Parquet files are made of what
    their spools hold, streams get their ends, and what the engine can mend is mended. An HDF5 file that
    another program left marked as being written loses the mark, and an Arrow file without its index gets
    one; this is done on a copy, which takes the place of the file only when all of it has been read.

    Parameters
    ----------
    path : str or path-like
        A file or a folder.

    Returns
    -------
    Recovery

    Raises
    ------
    Locked
        If a program is writing it.
    NotFound, Foreign, Corrupt, ReadOnly
        As for `open_store`.
    EngineError
        If there is no room for the copy.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "lab.h5")
    ...     with open_store(path) as store:
    ...         store["a"] = 1
    ...     recover(path)[1:]
    ((), (), None)
    """
    place, name = recognised(os.fspath(path))
    engine = ENGINES.load(name)
    done, kept = [], None
    if isinstance(engine, Salvages) and place.is_file():
        said, kept = _salvaged(engine, place)
        done += [said] if said else []
    before = _beside(place)
    with open_store(place, "r+") as store:
        steps = list(repairs(store.engine, (), accept=False))
        left = [_line(found) for found in problems(store.engine, ())]
    done += [
        f"what a stopped writer left in {name} was ended or taken back" for name in before - _beside(place)
    ]
    done += [_line(step) for step in steps if step.mended]
    return Recovery(str(place), tuple(done), tuple(left), kept)


def _line(found: Problem | Repair) -> str:
    name = f", array {found.name!r}" if found.name else ""
    return f"{show(found.key) if found.key else 'the store'}{name}: {found.what}"


def _beside(place: Path) -> set[str]:
    """List the files with anything in them that lie beside a store and belong to it.

    Left out is what says nothing by being there: SQLite's shared memory, which readers leave, too.
    """
    named = (place.name, f"{place.stem}.")
    found = set()
    for near in place.parent.iterdir():
        if near.name.startswith(named) and near != place and not near.name.endswith("-shm"):
            with contextlib.suppress(FileNotFoundError):  # others may be at work beside it
                found |= {near.name} if near.stat().st_size else set()
    return found


def _salvaged(engine: Salvages, place: Path) -> tuple[str | None, str | None]:
    """Put a whole file in the place of an unfinished one; says what was done, and where that is kept."""
    target = place.with_name(f".{place.stem[:40]}-{secrets.token_hex(8)}.tmp{place.suffix}")
    _check_room(place)
    try:
        seen = _identity(place)
        said = engine.salvage(str(place), str(target))
        if said is None:
            return None, None
        _check_quiet(place, seen)
        _prove(target, place)
        if _identity(place) != seen:
            raise _busy(place)
        return said, _exchange(place, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            target.unlink()


def _check_room(place: Path) -> None:
    size, free = place.stat().st_size, shutil.disk_usage(place.parent).free
    if free < size:
        raise EngineError(
            f"{str(place)!r} is brought back to order in a copy of {size:,} bytes, and only {free:,} are "
            "free beside it; make room, or copy it to another disk first",
            key=str(place),
        )


def _identity(place: Path) -> tuple[int, int, int]:
    found = place.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_quiet(place: Path, seen: tuple[int, int, int]) -> None:
    """Refuse a file whose writer is alive: one that has it open, or that changes it while it is watched."""
    if _is_open_for_writing(place):
        raise _busy(place)
    if time.time() - place.stat().st_mtime < _QUIET:
        time.sleep(_QUIET)
    if _identity(place) != seen:
        raise _busy(place)


def _is_open_for_writing(place: Path) -> bool:
    """Look through the processes of Linux that one may look into; the others are found by what they write."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == str(place):  # noqa: PTH115 (as text: it may be a socket)
                flags = (
                    (link.parent.parent / "fdinfo" / link.name).read_text().partition("flags:")[2].split()[0]
                )
                if int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
                    return True
    return False


def _busy(place: Path) -> Locked:
    return Locked(
        f"{str(place)!r} is being written by a program that is alive; end that first, then recover the file",
        key=str(place),
    )


def _prove(target: Path, place: Path) -> None:
    """Read all of the copy; what can be read of the file as it is has to be whole there."""
    known = {where for where, _line in _problems(place)}
    new = [found for found in _problems(target) if found[0] not in known]
    if new:
        raise Corrupt(
            f"{str(place)!r} can't be brought back to order: in the copy, {new[0][1]}. It was left as it is; "
            "restore it from a copy, or read with mode 'r' what is whole",
            key=str(place),
        )


def _problems(path: Path) -> list[tuple[object, str]]:
    """Read everything in a file; a file that can't be opened at all has no problem that counts."""
    try:
        with open_store(path, "r") as store:
            return [((found.key, found.name), _line(found)) for found in problems(store.engine, ())]
    except Corrupt:
        return []


def _exchange(place: Path, target: Path) -> str:
    """Put a file in the place of another, which gets a second name first."""
    names = (f"{place.name}.before{number}" for number in ("", *(f"-{n}" for n in range(2, 1000))))
    kept = next(place.with_name(name) for name in names if not os.path.lexists(place.with_name(name)))
    try:
        os.link(place, kept)
    except OSError:  # not every file system gives a file two names
        place.rename(kept)
    shutil.copymode(kept, target)
    target.replace(place)
    media.sync_folder(place.parent)
    return str(kept)
