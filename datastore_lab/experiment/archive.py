"""The whole folder of an experiment as one ZIP archive, and back."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from datastore_lab.bundles.packing import Account, Member, write_zip
from datastore_lab.bundles.places import whole_folder
from datastore_lab.bundles.unpacking import members, opened, read_zip
from datastore_lab.errors import BadKey, NotFound
from datastore_lab.locks import FileLock

if TYPE_CHECKING:
    from datastore_lab.store.moving.report import Watch

Place = TypeVar("Place", str, os.PathLike[str])

_TABLE = "trials.csv"
_LOCK = f"{_TABLE}-lock"
_GONE = re.compile(r"\.[0-9a-f]{16}\.gone")


def storage_to_zip(path: Place, outfile: Place | None = None, *, progress: Watch | None = None) -> Place:
    """Pack the folder of an experiment into a ZIP archive.

    Every file once under its own path, below the name of the folder, in alphabetical order and with one date:
    the same files give the same archive. It is read again and compared before it takes its place.

    Parameters
    ----------
    path : path-like
        The folder.
    outfile : path-like, optional
        The archive, which is replaced if it is there; ``<folder>.zip`` beside the folder if not given.
    progress : callable, optional
        Called with a `Progress` again and again.

    Returns
    -------
    path-like
        The archive.

    Raises
    ------
    NotFound
        If there is no such folder.
    Locked
        If a task is being written: its trials could be packed by halves.
    Foreign
        If there is a link or a device in the folder.
    EngineError, Corrupt
        If the disk fails.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> root = Path(folder.name) / "experiment01"
    >>> (root / "p1").mkdir(parents=True)
    >>> _ = (root / "p1" / "notes.txt").write_text("left-handed")
    >>> zipfile.ZipFile(storage_to_zip(root)).namelist()
    ['experiment01/p1/notes.txt']
    >>> folder.cleanup()
    """
    root = Path(os.path.abspath(path))  # noqa: PTH100 (no link is followed)
    if not root.is_dir():
        raise NotFound(f"there is no folder {str(path)!r}", key=str(path))
    target = root.with_name(f"{root.name}.zip") if outfile is None else Path(os.path.abspath(outfile))  # noqa: PTH100
    if target.is_relative_to(root):
        raise BadKey(
            f"{str(target)!r} lies in the folder that is to be packed; give another place", key=outfile
        )
    sizes = [place.lstat().st_size for folder, names in _folders(root) for place in _files(folder, names)]
    write_zip(target, _members(root), Account(progress, len(sizes), sum(sizes)))
    if outfile is not None:
        return outfile
    plain = f"{os.fspath(path).rstrip('/')}.zip" if Path(path).name == root.name else str(target)
    return plain if isinstance(path, str) else Path(plain)  # type: ignore[return-value]


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders in alphabetical order, with the names in them."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not (Path(folder) == root and _GONE.fullmatch(name)))
        links = [name for name in inner if (Path(folder) / name).is_symlink()]
        yield Path(folder), sorted([*names, *links, *(f"{name}/" for name in inner if name not in links)])


def _files(folder: Path, names: list[str]) -> list[Path]:
    return [folder / name for name in names if not name.endswith("/") and name != _LOCK]


def _members(root: Path) -> Iterator[Member]:
    for folder, _names in _folders(root):
        with _unwritten(folder):
            names = sorted(os.listdir(folder))  # noqa: PTH208 (again, now that nobody adds to it)
            places = [folder / name for name in names if name != _LOCK]
            name = folder.relative_to(root.parent).as_posix()
            if not places:
                yield Member(f"{name}/", None)
            for place in places:
                if place.is_symlink() or not place.is_dir():
                    yield Member(f"{name}/{place.name}", place)


@contextmanager
def _unwritten(folder: Path) -> Iterator[None]:
    """See to it that no trial is added to a task meanwhile; where nothing can be written, nobody does."""
    lock = None
    if (folder / f"{_TABLE}.json").exists():
        with contextlib.suppress(PermissionError):
            lock = FileLock(folder / _LOCK, f"the task {str(folder)!r}")
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def zip_to_storage(path: Place, root: Place | None = None, *, progress: Watch | None = None) -> Place:
    """Unpack the folder of an experiment from a ZIP archive.

    Nothing is there before all of it was unpacked and compared with its sums.

    Parameters
    ----------
    path : path-like
        An archive as `storage_to_zip` makes it. If everything in it lies in one folder, that is the root.
    root : path-like, optional
        The new folder, which must not be there yet, or be empty; that of the archive without ``.zip`` if not
        given.
    progress : callable, optional
        Called with a `Progress` again and again.

    Returns
    -------
    path-like
        The folder.

    Raises
    ------
    NotFound
        If there is no such archive.
    AlreadyExists
        If there is something at `root`.
    Foreign
        If it is no archive, or one that must not be unpacked: with names that lead elsewhere, links, names
        that are there twice, files that overlap, or sizes out of all proportion.
    Corrupt
        If a file is not as it was packed.
    """
    source = Path(path)
    target = Path(os.path.abspath(source.with_suffix("") if root is None else root))  # noqa: PTH100
    with opened(source) as archive:
        infos = members(archive, source)
    names = [info.filename for info in infos]
    top = f"{names[0].partition('/')[0]}/" if names else "/"
    strip = len(top) if all(name.startswith(top) for name in names) else 0
    with whole_folder(target) as folder:
        wanted = [(info, info.filename[strip:]) for info in infos if info.filename[strip:]]
        read_zip(source, wanted, folder, progress, lambda _name, _chunk: None)
    if root is not None:
        return root
    return str(source.with_suffix("")) if isinstance(path, str) else source.with_suffix("")  # type: ignore[return-value]
