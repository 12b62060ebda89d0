"""An engine over files that hold one stream each, and that are appended to and read but never changed."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from datastore_lab import media
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    Locked,
    Newer,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.integrity import BIRTH, birth, fingerprint
from datastore_lab.keys import Key, check, show
from datastore_lab.locks import FileLock
from datastore_lab.records import (
    GROUP,
    Problem,
    Record,
    Repair,
    Selection,
    Stat,
    Traits,
    check_durability,
)
from datastore_lab.streams import disk
from datastore_lab.streams.names import LOCK, MEND, NotOurs, joined, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.streams.rows import StreamAppender


class StreamFile(Protocol):
    """One stream as it lies on disk."""

    path: str
    key: Key
    trusting: bool
    """Read without comparing sums: what was changed on purpose is taken as it is."""

    def refresh(self) -> bool:
        """Take in what was appended since; False if it is another file now."""
        ...

    def stat(self) -> Stat:
        """Describe the record."""
        ...

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Read a part of an array."""
        ...

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield array, what is wrong, and whether it can be mended without guessing."""
        ...

    def loose_end(self) -> str | None:
        """Say what its writer had no time to finish."""
        ...


class Ending(Protocol):
    """Something that is being written, and that ends with the engine."""

    def close(self, meta: Mapping[str, Any]) -> None:
        """Finish it."""
        ...

    def abandon(self) -> None:
        """End it with what was flushed, and drop the rest."""
        ...


class StreamsEngine(ABC):
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

    traits: ClassVar[Traits]
    tails: ClassVar[tuple[str, ...]] = ("",)
    """Endings of the files that belong to one stream, its own first: a spool, a sidecar."""

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

    @abstractmethod
    def _read_file(self, path: str) -> StreamFile:
        """Open the files of one stream; `Foreign` or `Corrupt` if they are none."""

    @abstractmethod
    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> StreamAppender:
        """Begin the files of one stream."""

    def _recover(self, path: str) -> None:  # noqa: B027 (most formats need nothing)
        """Finish what the killed writer of a stream left; nobody else is writing it."""

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

    def _recover_all(self) -> None:
        """Finish the streams whose writers were killed: their locks lie about, and nobody holds them."""
        for path in self._paths(LOCK):
            with contextlib.suppress(Locked, Foreign, Corrupt), self._claimed(path, 0.0):
                self._recover(path)

    @property
    def url(self) -> str:
        return str(self._path)

    @property
    def writable(self) -> bool:
        return self._writable

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

    def stat(self, key: Key) -> Stat:
        with self._lock:
            file = self._file(key)
            if file is not None:
                with _typed(key):
                    return _shown(file.stat())
            self._check_there(key, there=next(self._listed(key), None) is not None)
            return Stat(GROUP, {}, {})

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        with self._lock:
            file = self._file(key)
            if file is not None:
                with _typed(key):
                    return file.read(name, selection)
            self._check_there(key, there=next(self._listed(key), None) is not None)
            raise NotFound(f"{show(key)!r} has no array {name!r}: it holds no record", key=key)

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
            with _typed(key):
                found = file.stat()
                status = os.stat(file.path)  # noqa: PTH116
        own = {"": (status.st_ino, status.st_size, status.st_mtime_ns)}  # there may be no sums: not our file
        return fingerprint(found, own, found.meta.get(BIRTH))

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for found in list(self.keys(key)):
            with self._lock:
                yield from [Problem(found, name, what) for name, what, _easy in self._problems(found)]

    def _problems(self, key: Key) -> list[tuple[str | None, str, bool]]:
        try:
            file = self._file(key)
            with _typed(key):
                return [] if file is None else list(file.verify())
        except (Corrupt, Foreign, EngineError) as error:
            return [(None, error.message, False)]

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        if not self._writable:
            self._refuse("nothing can be repaired", key)
        for found in list(self.keys(key)):
            with self._lock:
                yield from self._repair(found, accept)

    def _repair(self, key: Key, accept: bool) -> list[Repair]:
        problems = self._problems(key)
        path = self._path_of(key) if self._stands(self._path_of(key)) else str(self._path)
        try:
            with self._claimed(path, 0.0):
                return self._mend(key, path, problems, accept)
        except Locked as error:  # whoever writes it will finish it
            return [Repair(key, name, f"{what}; {error.message}", False) for name, what, _easy in problems]

    def _mend(
        self, key: Key, path: str, problems: list[tuple[str | None, str, bool]], accept: bool
    ) -> list[Repair]:
        hard = [Repair(key, name, what, False) for name, what, easy in problems if not easy]
        try:
            file = self._open_anyhow(path) if hard and accept else self._look(path)
            loose = file.loose_end()
            if (hard and not accept) or not (problems or loose):
                return hard
            self._rewrite(file, path, trusting=bool(hard))
        except LabError as error:
            return hard or [Repair(key, None, error.message, False)]
        done = [(name, f"{what}; taken as it is, with new checksums" if not easy else f"{what}; written anew")
                for name, what, easy in problems]  # fmt: skip
        done += [(None, f"{loose}; finished")] if loose and not problems else []
        return [Repair(key, name, what, True) for name, what in done]

    def _open_anyhow(self, path: str) -> StreamFile:
        """Open a file that is not as it was written, as far as it can be read at all."""
        return self._look(path)

    def _rewrite(self, file: StreamFile, path: str, *, trusting: bool) -> None:
        """Copy a stream into new files, and put them into the place of the old ones when they are whole."""
        file.trusting = trusting
        try:
            found = file.stat()
            infos = {name: info._replace(shape=(0, *info.shape[1:])) for name, info in found.arrays.items()}
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + MEND)  # noqa: PTH108
            copy = self._begin(path + MEND, file.key, found._replace(arrays=infos), lambda: None)
            rows = next((info.shape[0] for info in found.arrays.values()), 0)
            each = sum(info.nbytes for info in found.arrays.values()) // max(rows, 1)
            step = max(1, 16_000_000 // max(each, 1))
            for start in range(0, rows, step):
                copy.extend({name: file.read(name, (slice(start, start + step),)) for name in infos})
            copy.close({})
        finally:
            file.trusting = False
        self._replace(path + MEND, path)
        self._files.pop(path, None)

    def _replace(self, source: str, target: str) -> None:
        os.replace(source, target)  # noqa: PTH105
        media.sync_folder(os.path.dirname(target))  # noqa: PTH120

    def compact(self) -> int:
        self._check_open()
        return 0

    def append(self, key: Key, spec: Stat) -> StreamAppender:
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
                self._check_free(path, key)
                born = spec._replace(meta={**spec.meta, BIRTH: birth()})
                appender = self._begin(path, key, born, lambda: self._ended(key, lock))
            except BaseException:
                lock.release()
                raise
            self._appenders[key] = appender
            appender.unsettled = self._unsettled
            return appender

    def _ended(self, key: Key, lock: FileLock) -> None:
        lock.release()
        self._appenders.pop(key, None)

    def close(self) -> None:
        with self._lock:
            errors: list[EngineError] = []
            for appender in list(self._appenders.values()):
                try:
                    appender.close({})
                except EngineError as error:  # the others have to be ended all the same
                    errors.append(error)
                    appender.abandon()
            self._closed = True
            self._files.clear()
            if errors:
                raise errors[0]

    def _claim(self, path: str, key: Key | None = None, timeout: float | None = None) -> FileLock:
        if key in self._appenders:
            raise AlreadyExists(f"there is a record at {show(key or ())!r} already in {self.url}", key=key)
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

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self.url} is closed", key=self.url)
        for appender in tuple(self._unsettled):
            appender.settle()

    def _check_there(self, prefix: Key, *, there: bool) -> None:
        if prefix and not there:
            raise NotFound(f"there is nothing at {show(prefix)!r} in {self.url}", key=prefix)

    def _check_free(self, path: str, key: Key) -> None:
        taken = self._stands(path)
        if not taken and self._stands(str(self._path)):
            taken = self._look(str(self._path)).key == key
        if taken:
            raise AlreadyExists(f"there is a record at {show(key)!r} already in {self.url}", key=key)

    def _check_names(self, key: Key, spec: Stat) -> None:
        names = {*spec.arrays, *(dim for info in spec.arrays.values() for dim in info.dims)}
        for other, path in self._named():
            inside, above = other[: len(key)] == key, key[: len(other)] == other
            if other == key or not (inside or above) or not self._holds(other, path):
                continue
            if inside and other[len(key)] in names:
                raise AlreadyExists(f"{show(key)!r} has a child named {other[len(key)]!r}", key=key)
            with contextlib.suppress(Corrupt):
                file = self._file(other)
                if above and file is not None and key[len(other)] in file.stat().arrays:
                    raise AlreadyExists(f"{show(other)!r} has an array named {key[len(other)]!r}", key=key)

    def _path_of(self, key: Key) -> str:
        return str(self._path.with_name(f"{self._path.stem}.{joined(key)}{self._path.suffix}"))

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

    def _nothing(self) -> tuple[type[LabError], ...]:
        """Which errors say that a file is no stream of this store, rather than a damaged one."""
        return (NotOurs,)

    def _stands(self, path: str) -> bool:
        """Whether a stream has files at a path; links are not followed out of the folder."""
        for tail in self.tails:
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
        found = []
        for path in self._paths():
            own = path == str(self._path)
            key = None if own else split(Path(path).name[len(self._path.stem) + 1 : -len(self._path.suffix)])
            if key is None:
                with contextlib.suppress(Foreign, Corrupt):
                    key = self._look(path).key
            if key is not None:
                found.append((key, path))
        return sorted(found)

    def _holds(self, key: Key, path: str) -> bool:
        try:
            with self._lock:
                return self._look(path).key == key
        except Newer:
            return True
        except self._nothing():
            return False
        except (Corrupt, Foreign):
            return True  # it stands under the key that its name says, and hides none of the others

    def _paths(self, tail: str | None = None) -> list[str]:
        """List the paths that may be streams of the store, or the locks of such."""
        start, tails = f"{self._path.stem}.", self.tails if tail is None else (tail,)
        ends = tuple(self._path.suffix + tail for tail in tails)
        found = set()
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                end = next((end for end in sorted(ends, key=len)[::-1] if entry.name.endswith(end)), None)
                if end is None or not entry.is_file(follow_symlinks=False):
                    continue
                name = entry.name.removesuffix(end)
                if name == self._path.stem or (name.startswith(start) and len(name) > len(start)):
                    found.add(str(self._path.with_name(name + self._path.suffix)))
        return sorted(found)

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

    def _refuse(self, what: str, key: Key) -> NoReturn:
        raise ReadOnly(
            f"{what} in {self.url}: {self.traits.label} files only take streams, opened with mode 'a'; "
            "to change what is there, copy it into an HDF5 or Zarr store with merge_from()",
            key=key,
        )


@contextmanager
def _typed(key: Key) -> Iterator[None]:
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


def _shown(stat: Stat) -> Stat:
    return stat._replace(meta={name: value for name, value in stat.meta.items() if name != BIRTH})
