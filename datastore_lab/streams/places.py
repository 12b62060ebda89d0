"""Where the files of a store of streams lie, and which of them are its streams."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NoReturn

from datastore_lab.errors import (
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    Newer,
    NotFound,
    ReadOnly,
)
from datastore_lab.keys import Key, check, show
from datastore_lab.locks import FileLock
from datastore_lab.records import refusals
from datastore_lab.streams import disk
from datastore_lab.streams.names import LOCK, NotOurs, joined, split

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from datastore_lab.records import Traits
    from datastore_lab.streams.protocols import Ending, StreamFile
    from datastore_lab.streams.rows import StreamAppender

_TICK = 2_000_000_000
"""Nanoseconds between the times that the coarsest of file systems can tell apart."""


class Places(ABC):
    """The files that share the beginning of their names, and the keys that they stand for.

    A listing goes by names and a few bytes; a file is read only when its stream is asked for, or when those
    bytes leave a doubt.
    """

    traits: ClassVar[Traits]
    tails: ClassVar[tuple[str, ...]] = ("",)
    """Endings of the files that belong to one stream, its own first: a spool, a sidecar."""

    _path: Path
    _lock: threading.RLock
    _timeout: float
    _writable: bool
    _closed: bool
    _files: dict[str, StreamFile]
    _appenders: dict[Key, Ending]
    _unsettled: set[StreamAppender]
    _remembered: tuple[int, tuple[list[tuple[Key, str]], list[str]]] | None = None

    @property
    def url(self) -> str:
        return str(self._path)

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        self._check_open()
        found = None
        for found in self._listed(check(prefix)):
            yield found
        if found is None:
            self._check_there(prefix, there=False)

    def children(self, prefix: Key = ()) -> Iterator[str]:
        self._check_open()
        depth, there = len(check(prefix)), False
        seen: set[Key] = set()
        for key in self._listed(prefix, lambda key: key[depth : depth + 1] not in seen):
            there = True
            seen.add(key[depth : depth + 1])
            if len(key) > depth:
                yield key[depth]
        self._check_there(prefix, there=there)

    @abstractmethod
    def _read_file(self, path: str) -> StreamFile:
        """Open the files of one stream; `Foreign` or `Corrupt` if they are none."""

    def _nothing(self) -> tuple[type[LabError], ...]:
        """Which errors say that a file is no stream of this store, rather than a damaged one."""
        return (NotOurs,)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self.url} is closed", key=self.url)
        for appender in tuple(self._unsettled):
            appender.settle()

    def _check_there(self, prefix: Key, *, there: bool) -> None:
        if prefix and not there:
            raise refusals.nothing_at(prefix, self.url)

    def _file(self, key: Key) -> StreamFile | None:
        self._check_open()
        path = self._path_of(check(key)) if key else str(self._path)
        for place in dict.fromkeys([path, str(self._path)]):
            if not self._stands(place):
                continue
            try:
                file = self._look(place)
            except (Foreign, Corrupt) as error:
                if (
                    isinstance(error, Newer)
                    or place == str(self._path)
                    or not isinstance(error, self._nothing())
                ):
                    raise
                continue
            if file.key == key:
                return file
        return None

    def _path_of(self, key: Key) -> str:
        return str(self._path.with_name(f"{self._path.stem}.{joined(key)}{self._path.suffix}"))

    def _stands(self, path: str) -> bool:
        """Whether a stream has files at a path; links are not followed out of the folder."""
        for tail in (*self.tails, ""):  # (a stream is put into its place just before its spool goes)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(path + tail).st_mode):
                    return True
        return False

    def _listed(self, prefix: Key = (), wanted: Callable[[Key], bool] = lambda key: True) -> Iterator[Key]:
        """Yield the keys below a prefix, each looked at only when it is asked for."""
        for key, path in self._named():
            if key[: len(prefix)] == prefix and wanted(key) and self._holds(key, path):
                yield key

    def _named(self) -> list[tuple[Key, str]]:
        """List keys and files in order, by the names of the files as far as these say them."""
        known, unclear = self._names()
        found = []
        for path in unclear:
            with contextlib.suppress(Foreign, Corrupt, NotFound):
                found.append((self._look(path).key, path))
        return sorted([*known, *found]) if found else known

    def _names(self) -> tuple[list[tuple[Key, str]], list[str]]:
        """List the keys that names of files say, and the files that have to say theirs themselves.

        It is remembered until something is added to the folder or removed from it.
        """
        began = time.time_ns()
        changed = os.stat(self._path.parent).st_mtime_ns  # noqa: PTH116
        if self._remembered is not None and self._remembered[0] == changed:
            return self._remembered[1]
        known, unclear, own = [], [], str(self._path)
        start, end = len(own) - len(self._path.suffix) + 1, len(self._path.suffix)
        for path in self._paths():
            key = None if path == own else split(path[start : len(path) - end])
            if key is None:
                unclear.append(path)
            else:
                known.append((key, path))
        found = sorted(known), unclear
        # (within one tick of the clock a folder can change twice, and its time but once)
        self._remembered = (changed, found) if changed < began - _TICK else None
        return found

    def _holds(self, key: Key, path: str) -> bool:
        if self._glimpse(key, path):
            return True
        try:
            with self._lock:
                return self._look(path).key == key
        except Newer:
            return True
        except NotFound:  # it is gone meanwhile
            return False
        except self._nothing():
            return False
        except (Corrupt, Foreign):
            return True  # it stands under the key that its name says, and hides none of the others

    def _glimpse(self, key: Key, path: str) -> bool:
        """Whether a stream surely stands at a path, by a few bytes; if not, one has to look closer."""
        return False

    def _paths(self, tail: str | None = None) -> list[str]:
        """List the paths that may be streams of the store, or the locks of such."""
        stem, suffix = self._path.stem, self._path.suffix
        tails = sorted(self.tails if tail is None else (tail,), key=len, reverse=True)
        ends = tuple(suffix + tail for tail in tails)
        start, found = f"{stem}.", set()
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                if not (entry.name.startswith(stem) and entry.name.endswith(ends)):
                    continue
                end = next(end for end in ends if entry.name.endswith(end))
                name = entry.name[: len(entry.name) - len(end)]
                ours = name == stem or (name.startswith(start) and len(name) > len(start))
                if ours and entry.is_file(follow_symlinks=False):
                    found.add(name)
        folder = os.path.join(self._path.parent, "")  # noqa: PTH118 (of thousands of names)
        return sorted(f"{folder}{name}{suffix}" for name in found)

    def _look(self, path: str) -> StreamFile:
        self._check_open()
        file = self._files.get(path)
        try:
            if file is None or not _still_there(file):
                self._files.pop(path, None)
                file = self._files[path] = self._read_file(path)
        except FileNotFoundError as error:
            raise NotFound(f"{path!r} is gone", key=path) from error
        except OSError as error:
            if isinstance(error, LabError):
                raise
            raise EngineError(f"{path!r} can't be read: {error.strerror or error}", key=path) from error
        return file

    def _claim(self, path: str, key: Key | None = None, timeout: float | None = None) -> FileLock:
        if key in self._appenders:
            raise refusals.record_at(key or (), self.url)
        what = f"the stream {path!r}"
        with disk.typed(path, "can't be locked"):
            return FileLock(path + LOCK, what, self._timeout if timeout is None else timeout)

    @contextmanager
    def _claimed(self, path: str, timeout: float | None = None) -> Iterator[None]:
        lock = self._claim(path, None, timeout)
        try:
            yield
        finally:
            lock.release()

    def _refuse(self, what: str, key: Key) -> NoReturn:
        raise ReadOnly(
            f"{what} in {self.url}: {self.traits.label} files only take streams, opened with mode 'a'; "
            "to change what is there, copy it into an HDF5 or Zarr store with merge_from()",
            key=key,
        )


@contextmanager
def typed(key: Key) -> Iterator[None]:
    """Name the stream in errors of the disk."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LabError):
            raise
        raise EngineError(f"{show(key)!r} can't be read: {error}", key=key) from error


def _still_there(file: StreamFile) -> bool:
    try:
        return file.refresh()
    except FileNotFoundError:  # it has been put into another form meanwhile
        return False
