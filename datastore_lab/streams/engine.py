"""An engine over files that hold one stream each, and that are appended to and read but never changed."""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import media
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    Foreign,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.integrity import BIRTH, birth, fingerprint
from datastore_lab.keys import Key, check, show
from datastore_lab.records import (
    GROUP,
    Record,
    Selection,
    Stat,
    check_durability,
    refusals,
)
from datastore_lab.streams.mending import Mending
from datastore_lab.streams.names import MEND
from datastore_lab.streams.places import typed
from datastore_lab.streams.whole import WholeAppender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.locks import FileLock
    from datastore_lab.streams.protocols import Ending, StreamFile
    from datastore_lab.streams.rows import StreamAppender


class StreamsEngine(Mending):
    """Streams in files that share the beginning of their names.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`.

    Parameters
    ----------
    path : path-like
        ``data/run.arrow``: the file itself, if there is one, and all ``data/run.<stream>.arrow``.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``"w"`` deletes the files of the store.
    timeout : float, default 0.0
        How long to wait for another writer of the same stream, in seconds.
    durability : {"disk", "process"}
        What a flush survives: a power cut, or only the end of the process.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
    ) -> None:
        self._durable = check_durability(durability)
        self._timeout = timeout
        self._path = Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 (no link is followed)
        self._lock = threading.RLock()
        self._files: dict[str, StreamFile] = {}
        self._appenders: dict[Key, Ending] = {}
        self._unsettled: set[StreamAppender] = set()
        self._writable = mode != "r"
        self._closed = False
        self._open(mode)

    def _open(self, mode: str) -> None:
        if not self._path.parent.is_dir():
            raise NotFound(f"there is no folder {str(self._path.parent)!r}", key=str(self._path))
        if self._path.is_dir():
            raise EngineError(
                f"{str(self._path)!r} is a folder, not a {self.traits.label} file", key=str(self._path)
            )
        if self._writable and not os.access(self._path.parent, os.W_OK):
            raise ReadOnly(f"the folder of {str(self._path)!r} can't be written", key=self.url)
        if mode == "w":
            self._remove_all()
        elif self._writable:
            self._recover_all()
        self._check_found(mode)

    def _check_found(self, mode: str) -> None:
        if self._stands(str(self._path)):
            self._look(str(self._path))  # what was named itself has to be readable
        if mode == "a":
            return
        found = next(self._listed(), None)
        if mode in {"r", "r+"} and found is None:
            pattern = f"{self._path.stem}.*{self._path.suffix}"
            raise NotFound(f"there is no {str(self._path)!r}, nor any {pattern!r} beside it", key=self.url)
        if mode == "x" and found is not None:
            raise AlreadyExists(f"{self.url!r} exists already, with {show(found)!r}", key=self.url)

    def _remove_all(self) -> None:
        for path in self._paths():
            with self._claimed(path):
                for tail in reversed(self.tails):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path + tail)  # noqa: PTH108
        self._files.clear()

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def layout(self) -> int | None:
        with self._lock:
            self._check_open()
            return max(self._layouts(), default=None)

    def _layouts(self) -> Iterator[int]:
        """Yield the versions of the layouts of all streams that can be read and have one."""
        for _key, path in self._named():
            with contextlib.suppress(Corrupt, Foreign, NotFound):
                if (found := self._look(path).layout) is not None:
                    yield found

    def stat(self, key: Key) -> Stat:
        with self._lock:
            file = self._file(key)
            if file is not None:
                with typed(key):
                    return _shown(file.stat())
            self._check_there(key, there=not key or next(self._listed(key), None) is not None)
            return Stat(GROUP, {}, {})

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        with self._lock:
            with contextlib.suppress(FileNotFoundError):  # (its place may be another one now)
                if (file := self._file(key)) is not None:
                    return file.read(name, selection)
            file = self._file(key)
            if file is not None:
                with typed(key):
                    return file.read(name, selection)
            self._check_there(key, there=next(self._listed(key), None) is not None)
            raise refusals.no_array(key, name, (), self.url)

    def write(self, key: Key, record: Record) -> None:
        self._refuse("a record can't be written whole", key)

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        self._refuse("attributes can't be changed", key)

    def move(self, old: Key, new: Key) -> None:
        self._refuse("a stream can't be moved", old)

    def delete(self, key: Key) -> None:
        self._refuse("a stream can't be deleted", key)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._check_open()
        yield  # nothing can be changed, and what is appended is durable at each flush

    def revision(self) -> int:
        """Give the times of change of all files, and where those are too coarse their sizes."""
        self._check_open()
        total = 0
        for path in self._paths():
            newest = 0
            for tail in self.tails:
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(path + tail)  # noqa: PTH116
                    newest = max(newest, (found.st_mtime_ns << 40) + found.st_size)
            total += newest
        return total

    def fingerprint(self, key: Key) -> str:
        with self._lock:
            file = self._file(key)
            if file is None:
                return fingerprint(self.stat(key), {})
            with typed(key):
                found = file.stat()
                status = os.stat(file.path)  # noqa: PTH116
        own = {"": (status.st_ino, status.st_size, status.st_mtime_ns)}  # there may be no sums: not our file
        return fingerprint(found, own, found.meta.get(BIRTH))

    def compact(self) -> int:
        self._check_open()
        return 0

    def append(self, key: Key, spec: Stat) -> StreamAppender:
        with self._beginning(key, spec) as (path, born, release):
            self._check_free(path, key)
            appender = self._begin(path, key, born, release)
            self._appenders[key] = appender
            appender.unsettled = self._unsettled
            return appender

    def append_whole(self, key: Key, spec: Stat) -> WholeAppender:
        """Begin a stream that is there only when it is closed; ended otherwise, nothing of it is."""
        with self._beginning(key, spec) as (path, born, release):
            self._check_free(path, key)
            self._discard(path)  # of one that was killed
            appender = self._begin(path + MEND, key, born, lambda: None)
            publish, discard = partial(self._replace, path + MEND, path), partial(self._discard, path)
            whole = WholeAppender(appender, path, publish, discard, release)
            self._appenders[key] = whole
            return whole

    @contextmanager
    def _beginning(self, key: Key, spec: Stat) -> Iterator[tuple[str, Stat, Callable[[], None]]]:
        """Give path, spec and what ends it, for a stream whose place is locked."""
        if not self._writable:
            self._refuse("it was opened for reading", key)
        if not check(key):
            raise BadKey("the root holds no record; give the stream a name", key=key)
        if not spec.arrays:
            raise NotStorable(f"{show(key)!r} has no array, and so no column", key=key)
        media.check_json(spec.meta)
        with self._lock:
            self._check_open()
            self._check_names(key, spec)
            path = self._path_of(key)
            lock = self._claim(path, key)
            try:
                born = spec._replace(meta={**spec.meta, BIRTH: birth()})
                yield path, born, partial(self._ended, key, lock)
            except BaseException:
                lock.release()
                raise

    def _ended(self, key: Key, lock: FileLock) -> None:
        lock.release()
        self._appenders.pop(key, None)

    def close(self) -> None:
        with self._lock:
            errors: list[EngineError] = []
            for appender in list(self._appenders.values()):
                if isinstance(appender, WholeAppender):  # whoever began it did not get to its end
                    appender.abandon()
                    continue
                try:
                    appender.close({})
                except EngineError as error:  # the others have to be ended all the same
                    errors.append(error)
                    appender.abandon()
            self._closed = True
            self._files.clear()
            if errors:
                raise errors[0]

    def _check_free(self, path: str, key: Key) -> None:
        taken = self._stands(path)
        if not taken and self._stands(str(self._path)):
            taken = self._look(str(self._path)).key == key
        if taken:
            raise refusals.record_at(key, self.url)

    def _check_names(self, key: Key, spec: Stat) -> None:
        names = {*spec.arrays, *(dim for info in spec.arrays.values() for dim in info.dims)}
        for other, path in self._named():
            inside, above = other[: len(key)] == key, key[: len(other)] == other
            if other == key or not (inside or above) or not self._holds(other, path):
                continue
            if inside and other[len(key)] in names:
                raise refusals.child_named(key, other[len(key)], self.url)
            with contextlib.suppress(Corrupt):
                file = self._file(other)
                if above and file is not None and key[len(other)] in file.stat().arrays:
                    raise refusals.array_above(key, len(other), self.url)


def _shown(stat: Stat) -> Stat:
    return stat._replace(meta={name: value for name, value in stat.meta.items() if name != BIRTH})
