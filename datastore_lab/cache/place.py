"""The store of a cache: given, or a place that is opened when it is needed.

A file that only one process can have open for writing is open for reading most of the time, and for writing
only while a result is written: so several processes share one cache. A database takes many writers, and stays
open.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from datastore_lab.cache.turns import Turn, file_locks
from datastore_lab.errors import Corrupt, Foreign, LabError, NotFound
from datastore_lab.keys import show
from datastore_lab.store import Store, open_store

PATIENCE = 30.0
"""How long to wait for another process that writes into the same file, in seconds."""

_MEMORY = "memory://"
_FILES = {"file", "sqlite"}


class Place:
    """Where a cache keeps its results.

    Parameters
    ----------
    storage : Store, path or None
        None is a memory store of its own. A path is opened for reading when something is looked up, and made
        when something is kept.

    Attributes
    ----------
    address : str
        The same for everything that means the same place, also in other processes of this computer.
    """

    def __init__(self, storage: Store | str | os.PathLike[str] | None) -> None:
        self._given = storage if isinstance(storage, Store) else None
        self._path = "" if isinstance(storage, Store) else _MEMORY if storage is None else os.fspath(storage)
        self._open: Store | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()
        self.address = self._address()

    @property
    def store(self) -> Store:
        """The store as it is open; a place without anything is made."""
        found = self.reading()
        if found is None:
            with self.writing():
                pass
            found = self.reading()
        assert found is not None
        return found

    def reading(self) -> Store | None:
        """Give the store to read from; None where nothing has been kept yet."""
        if self._given is not None:
            return self._given
        if self._open is None or self._process != os.getpid():
            with self._lock:
                self._opened()
        return self._open

    @contextlib.contextmanager
    def writing(self) -> Iterator[Store]:
        """Give the store to write to, for as long as the block lasts.

        Raises
        ------
        ReadOnly, Locked, EngineError
            If it can't be written, or not in time.
        """
        if self._given is not None:
            yield self._given
            return
        with self._lock:
            found = self.reading()
            if found is not None and found.writable:
                yield found
                return
            with self._making() if found is None else contextlib.nullcontext():
                store = open_store(self._path, timeout=PATIENCE)
            if store.engine.traits.parallel_write:
                self._leave()
                self._open = store
                yield store
                return
            with store:
                yield store

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """Let one process make the store, and the others open it."""
        folder = self.folder()
        with Turn(self.address, "the store itself", None if folder is None else file_locks(folder / "locks")):
            yield

    def again(self) -> Store | None:
        """Open anew what can no longer be read, as its file was removed or replaced."""
        with self._lock:
            if self._given is None and self._path != _MEMORY:
                self._leave()
        return self.reading()

    def close(self) -> None:
        """Close what was opened here."""
        with self._lock:
            self._leave()

    def folder(self) -> Path | None:
        """Name the folder beside the store for what can be made anew; None where there is no such place."""
        local = local_path(self.address)
        return None if local is None else local.with_name(f"{local.name}-cache")

    def _opened(self) -> None:
        if self._process != os.getpid():  # what the parent of this process has open is of no use here
            self._open, self._process = None, os.getpid()
        if self._open is not None:
            return
        if self._path == _MEMORY:
            self._open = open_store(_MEMORY)
            return
        with contextlib.suppress(NotFound):
            try:
                self._open = open_store(self._path, "r")
            except (Foreign, Corrupt):  # another process may be about to make it
                with self._making():
                    self._open = open_store(self._path, "r")

    def _leave(self) -> None:
        store, self._open = self._open, None
        if store is not None:
            with contextlib.suppress(LabError, OSError):  # it was only read
                store.close()

    def _address(self) -> str:
        if self._given is not None and self._given.url == _MEMORY:
            return f"{_MEMORY}{id(self._given.engine)}"
        if self._given is not None:
            prefix = f"::{show(self._given.prefix)}" if self._given.prefix else ""
            return f"{self._given.url}{prefix}"
        if self._path == _MEMORY:
            return f"{_MEMORY}{id(self)}"
        local = local_path(self._path)
        return self._path if local is None else str(local)


def local_path(address: str) -> Path | None:
    """Give the path behind an address; None if it is none on this computer.

    Examples
    --------
    >>> str(local_path("/data/lab.h5::run/7")), local_path("postgresql://127.0.0.1/lab"), local_path("memory://")
    ('/data/lab.h5', None, None)
    """
    address = address.partition("::")[0]
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    if scheme is None:
        return Path(address).expanduser().resolve()
    if scheme[1].lower() not in _FILES:
        return None
    parts = urlsplit(address)
    path = parts.path[1:] if scheme[1].lower() == "sqlite" else parts.path
    return Path(unquote(path)).resolve()
