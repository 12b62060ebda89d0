"""Where the files of a hierarchy lie: a folder with pending changes, or any other tree of named bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from datastore_lab.errors import Corrupt
from datastore_lab.folders import files
from datastore_lab.folders.overlay import Overlay

Parts = tuple[str, ...]
"""Folder names from the root down; a key is the same with names for people."""


class Place(Protocol):
    """What reading a hierarchy needs of the medium that it lies on."""

    root: str
    """Address of the whole, for messages."""

    def get(self, parts: Parts, limit: int | None = None) -> bytes | None:
        """Give the content of a file, None if there is none; `limit` is the largest size that makes sense."""
        ...

    def names(self, parts: Parts) -> Iterator[str]:
        """Yield the names of the files and folders in a folder."""
        ...

    def choose(self, parts: Parts, names: Sequence[str]) -> str | None:
        """Give the first of some names that is a folder there; None if certainly none is."""
        ...

    def where(self, parts: Parts) -> str:
        """Give the address of a file or folder, for messages."""
        ...

    def identity(self, parts: Parts) -> object:
        """Give something that changes when a folder is replaced by another, as far as that can be told."""
        ...

    def mark(self, parts: Parts) -> object | None:
        """Give something cheap that changes when a file changes; None where asking for it costs as much."""
        ...

    def stored(self, parts: Parts) -> int:
        """Count the bytes of the files in a folder."""
        ...

    def zarr_store(self, parts: Parts) -> Any:
        """Give a folder as a store that zarr reads from; it must not lead out of the root."""
        ...


class FolderPlace:
    """A local folder, seen with the changes that are not committed yet.

    Parameters
    ----------
    root : str
        Absolute path.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.overlay = Overlay(root, "zarr.json")

    def reset(self) -> None:
        """Forget the pending changes."""
        self.overlay = Overlay(self.root, "zarr.json")

    def get(self, parts: Parts, limit: int | None = None) -> bytes | None:
        path = self.overlay.path(parts)
        if path is None:
            return None
        try:
            return files.read(path, self.root, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError as error:
            raise Corrupt(f"{path!r} is a folder where a file should be; remove it", key=path) from error

    def names(self, parts: Parts) -> Iterator[str]:
        return self.overlay.names(parts)

    def choose(self, parts: Parts, names: Sequence[str]) -> str | None:
        return next((name for name in names if self._is_folder((*parts, name))), None)

    def _is_folder(self, parts: Parts) -> bool:
        path = self.overlay.path(parts)
        if path is None:
            return False
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if stat.S_ISLNK(mode):
            files.refuse_outside(path, self.root)
            return os.path.isdir(path)
        return stat.S_ISDIR(mode)

    def where(self, parts: Parts) -> str:
        return self.overlay.path(parts) or os.path.join(self.root, *parts)

    def identity(self, parts: Parts) -> object:
        return os.stat(self.where(parts)).st_ino

    def mark(self, parts: Parts) -> object | None:
        path = self.overlay.path(parts)
        if path is None:
            return None
        try:
            status = os.lstat(path)
        except OSError:
            return None
        return (path, status.st_ino, status.st_mtime_ns, status.st_size)

    def stored(self, parts: Parts) -> int:
        return sum(os.lstat(self.where((*parts, name))).st_size for name in self.names(parts))

    def zarr_store(self, parts: Parts) -> Any:
        from zarr.storage import LocalStore

        folder = self.where(parts)
        for place, folders, names in os.walk(folder):
            for name in (*folders, *names):
                path = os.path.join(place, name)
                if os.path.islink(path):
                    files.refuse_outside(path, self.root)
        return LocalStore(folder, read_only=True)
