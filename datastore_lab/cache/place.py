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
from urllib.parse import parse_qs, unquote, urlsplit

from datastore_lab.cache.turns import Turn, file_locks
from datastore_lab.errors import Corrupt, Foreign, LabError, Newer, NotFound
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
    base : str
        The store, the same for everything that means it in other processes of this computer.
    address : str
        The base, and the group in it.
    shared : str
        The same on all computers that reach a database, by whatever name; otherwise the address.
    """

    def __init__(self, storage: Store | str | os.PathLike[str] | None) -> None:
        self._given = storage if isinstance(storage, Store) else None
        self._path = "" if isinstance(storage, Store) else _MEMORY if storage is None else os.fspath(storage)
        self._open: Store | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()
        self.base = self._base()
        group = self._given.prefix if self._given is not None else ()
        suffix = f"::{show(group)}" if group else ""
        self.address, self.shared = f"{self.base}{suffix}", f"{_by_any_name(self.base)}{suffix}"

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
        local = local_path(self.base)
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
            if (found := self._finished()) is None:
                with self._making():
                    found = open_store(self._path, "r")
            self._open = found

    def _finished(self) -> Store | None:
        """Open what is there for reading; None for what another process may be about to make."""
        try:
            return open_store(self._path, "r")
        except Newer:
            raise
        except (Foreign, Corrupt):
            return None

    def _leave(self) -> None:
        store, self._open = self._open, None
        if store is not None:
            with contextlib.suppress(LabError, OSError):  # it was only read
                store.close()

    def _base(self) -> str:
        where = self._path if self._given is None else self._given.url
        if where == _MEMORY:
            return f"{_MEMORY}{id(self if self._given is None else self._given.engine)}"
        local = local_path(where)
        if local is None:
            return where
        if "://" not in where:  # what is meant does not change with the working folder
            self._path = str(local)
        return str(local)


def _by_any_name(base: str) -> str:
    """Name a database without the server, which may be called otherwise elsewhere.

    Examples
    --------
    >>> _by_any_name("postgresql://ann@db.lab:5432/bench?lab=laser"), _by_any_name("/data/c.h5")
    ('/bench laser', '/data/c.h5')
    """
    if "://" not in base or not re.match("postgresql|mysql|mariadb", base):
        return base
    parts = urlsplit(base)
    return f"{parts.path} {parse_qs(parts.query).get('lab', ['lab'])[0]}"


def local_path(address: str) -> Path | None:
    """Give the path behind an address; None if it is none on this computer.

    Examples
    --------
    >>> str(local_path("/data/lab.h5")), local_path("postgresql://127.0.0.1/lab"), local_path("memory://")
    ('/data/lab.h5', None, None)
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    if scheme is None:
        return Path(address).expanduser().resolve()
    if scheme[1].lower() not in _FILES:
        return None
    parts = urlsplit(address)
    path = parts.path[1:] if scheme[1].lower() == "sqlite" else parts.path
    return Path(unquote(path)).resolve()
