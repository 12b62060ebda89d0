"""Streams in Arrow files: for appending and reading.

An Arrow file has one schema, so every stream has a file of its own: the store ``data/run.arrow`` is the
files ``data/run.camera.arrow``, ``data/run.daq.arrow`` and so on beside it. Opened under its own name each
of them is a store of that one stream. ``pyarrow.ipc.open_file``, ``pyarrow.feather``, polars and others open
them as they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pyarrow as pa
import xxhash

from datastore_lab import media
from datastore_lab.engines.arrow.append import ArrowAppender
from datastore_lab.engines.arrow.file import ArrowFile, Unfinished
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.keys import Key, check, show
from datastore_lab.records import GROUP, Problem, Record, Repair, Selection, Stat, Traits, check_durability

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ArrowEngine:
    """Streams in Arrow files that share the beginning of their names.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`.

    Parameters
    ----------
    path : path-like
        ``data/run.arrow``: the file itself, if there is one, and all ``data/run.<stream>.arrow``.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``"w"`` deletes the files of the store.
    timeout : float, default 0.0
        How long to wait for another writer, in seconds.
    durability : {"disk", "process"}
        What a flush survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = ArrowEngine(pathlib.Path(folder.name) / "run.arrow")
    >>> spec = Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    >>> appender = engine.append(("daq",), spec)
    >>> appender.extend({"x": np.arange(3.0)}); appender.close({"lost": 0})
    >>> engine.read(("daq",), "x", (slice(1, None),)), engine.stat(("daq",)).meta
    (array([1., 2.]), {'lost': 0})
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="Arrow",
        structure="one table per stream",
        compresses=False,
        appends=True,
        hierarchical=False,
        n_dimensional=True,
        self_describing=True,
        parallel_write=False,
        cloud=False,
        opens_in=("pyarrow", "pandas", "polars", "DuckDB", "R arrow"),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
    ) -> None:
        self._durable = check_durability(durability)
        self._path = Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 (no link is followed)
        self._lock = threading.RLock()
        self._files: dict[str, ArrowFile] = {}
        self._appenders: list[ArrowAppender] = []
        self._writable = mode != "r"
        self._closed = False
        self._open(mode)

    def _open(self, mode: str) -> None:
        if not self._path.parent.is_dir():
            raise NotFound(f"there is no folder {str(self._path.parent)!r}", key=str(self._path))
        if self._path.is_dir():
            raise EngineError(f"{str(self._path)!r} is a folder, not an Arrow file", key=str(self._path))
        found = self._find()
        if mode in {"r", "r+"} and not found:
            pattern = f"{self._path.stem}.*{self._path.suffix}"
            raise NotFound(f"there is no {str(self._path)!r}, nor any {pattern!r} beside it", key=self.url)
        if mode == "x" and found:
            raise AlreadyExists(f"{self.url!r} exists already, with {sorted(found)}", key=self.url)
        if self._writable and not os.access(self._path.parent, os.W_OK):
            raise ReadOnly(f"the folder of {str(self._path)!r} can't be written", key=self.url)
        if mode == "w":
            for path in self._candidates():
                path.unlink()
            self._files.clear()

    @property
    def url(self) -> str:
        return str(self._path)

    @property
    def writable(self) -> bool:
        return self._writable

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        yield from self._below(prefix)

    def children(self, prefix: Key = ()) -> Iterator[str]:
        depth = len(prefix)
        yield from dict.fromkeys(key[depth] for key in self._below(prefix) if len(key) > depth)

    def stat(self, key: Key) -> Stat:
        with self._lock:
            file = self._file(key)
            if file is not None:
                return file.stat()
        self._below(key)
        return Stat(GROUP, {}, {})

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        with self._lock:
            file = self._file(key)
            if file is None:
                self._below(key)
                raise NotFound(f"{show(key)!r} has no array {name!r}: it holds no record", key=key)
            return file.read(name, selection)

    def write(self, key: Key, record: Record) -> None:
        self._refuse("a record can't be written whole", key)

    def update(self, key: Key, meta: Mapping[str, Any]) -> None:
        self._refuse("attributes can't be changed", key)

    def move(self, old: Key, new: Key) -> None:
        self._refuse("a stream can't be moved", old)

    def delete(self, key: Key) -> None:
        self._refuse("a stream can't be deleted", key)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield  # nothing can be changed, and what is appended is durable at each flush

    def revision(self) -> int:
        with self._lock:
            found = self._find().values()
            return sum(file.size for file in found if isinstance(file, ArrowFile))  # files only ever grow

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        for found in self._below(key):
            with self._lock:
                file = self._find()[found]
            if isinstance(file, Corrupt):
                yield Problem(found, None, file.message)
                continue
            expected = file.checksums()
            for name in file.stat().arrays:
                problem = _verify(file, name, expected.get(name))
                if problem:
                    yield Problem(found, name, problem)

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        for found in self.verify(key):
            yield Repair(*found, mended=False)

    def compact(self) -> int:
        return 0

    def append(self, key: Key, spec: Stat) -> ArrowAppender:
        if not self._writable:
            self._refuse("it was opened for reading", key)
        if not check(key):
            raise BadKey("the root holds no record; give the stream a name", key=key)
        if not spec.arrays:
            raise NotStorable(f"{show(key)!r} has no array: an Arrow file needs a column", key=key)
        media.check_json(spec.meta)
        with self._lock:
            self._check_free(key, spec)
            path = self._path.with_name(f"{self._path.stem}.{_joined(key)}{self._path.suffix}")
            appender = ArrowAppender(str(path), key, spec, durable=self._durable)
            self._appenders.append(appender)
            return appender

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for appender in self._appenders:
                appender.close({})
            self._files.clear()

    def _check_free(self, key: Key, spec: Stat) -> None:
        names = {*spec.arrays, *(dim for info in spec.arrays.values() for dim in info.dims)}
        for other, file in self._find().items():
            if other == key:
                raise AlreadyExists(f"there is a record at {show(key)!r} already in {self.url}", key=key)
            if isinstance(file, Corrupt):
                continue
            if key[: len(other)] == other and key[len(other)] in file.stat().arrays:
                raise AlreadyExists(f"{show(other)!r} has an array named {key[len(other)]!r}", key=key)
            if other[: len(key)] == key and other[len(key)] in names:
                raise AlreadyExists(f"{show(key)!r} has a child named {other[len(key)]!r}", key=key)

    def _below(self, prefix: Key) -> list[Key]:
        with self._lock:
            found = sorted(key for key in self._find() if key[: len(prefix)] == check(prefix))
        if prefix and not found:
            raise NotFound(f"there is nothing at {show(prefix)!r} in {self.url}", key=prefix)
        return found

    def _file(self, key: Key) -> ArrowFile | None:
        file = self._find().get(check(key))
        if isinstance(file, Corrupt):
            raise file
        return file

    def _find(self) -> dict[Key, ArrowFile | Corrupt]:
        """Find the files of the store, each looked at again if it has grown.

        One that is damaged stands under the key that its name says, and hides none of the others. One whose
        writer was killed before the schema was written holds nothing, and is no stream yet.
        """
        if self._closed:
            raise EngineError(f"{self.url} is closed", key=self.url)
        found: dict[Key, ArrowFile | Corrupt] = {}
        for path in self._candidates():
            key = _split(path.name[len(self._path.stem) + 1 : -len(path.suffix)])
            try:
                file = self._look(path)
            except (Foreign, Corrupt) as error:
                if path == self._path:
                    raise
                if isinstance(error, Corrupt) and not isinstance(error, Unfinished):
                    found[key] = error
                continue
            if path == self._path or path.name == f"{self._path.stem}.{_joined(file.key)}{path.suffix}":
                found[file.key] = file
        return found

    def _candidates(self) -> list[Path]:
        """List the files that may belong to the store, without following links out of its folder."""
        start, end = f"{self._path.stem}.", self._path.suffix
        beside = [
            Path(entry.path)
            for entry in os.scandir(self._path.parent)
            if entry.name.startswith(start)
            and entry.name.endswith(end)
            and len(entry.name) > len(start) + len(end)
            and entry.is_file(follow_symlinks=False)
        ]
        return [*([self._path] if self._path.is_file() else []), *sorted(beside)]

    def _look(self, path: Path) -> ArrowFile:
        file = self._files.get(str(path))
        if file is None:
            file = self._files[str(path)] = ArrowFile(str(path))
        else:
            file.refresh()
        return file

    def _refuse(self, what: str, key: Key) -> NoReturn:
        raise ReadOnly(
            f"{what} in {self.url}: Arrow files only take streams, opened with mode 'a'; "
            "to change what is there, copy it into an HDF5 or Zarr store with merge_from()",
            key=key,
        )


def _joined(key: Key) -> str:
    """Give the part of a file's name that says its key; a dot within a part is escaped."""
    return ".".join(media.escape_file(part).replace(".", "%2E") for part in key)


def _split(name: str) -> Key:
    """Undo `_joined`, for files that can't say their key themselves."""
    return tuple(media.unescape_file(part) or part for part in name.split("."))


def _verify(file: ArrowFile, name: str, expected: str | None) -> str | None:
    digest = xxhash.xxh3_128()
    try:
        for batch in file.batches():
            media.add_checksum(digest, file.column(name, batch))
    except (LabError, pa.ArrowException) as error:
        return str(error)
    if expected is not None and digest.hexdigest() != expected:
        return "the checksum differs from the one that was stored"
    return None
