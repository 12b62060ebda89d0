"""Experiments as readable folders: participants, tasks, trials.

``root/<participant>/<task>/trials.csv`` has a row per trial, with its attributes; the arrays of a trial are
``root/<participant>/<task>/<array>/<trial>.npy``, or datasets in ``<array>.hdf5`` that an earlier program
wrote. A task is a record whose arrays are the columns; the array of a trial is a record at
``(participant, task, array, trial)``.
"""

from __future__ import annotations

import os
import secrets
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from datastore_lab import media
from datastore_lab.engines.trials import hdf5
from datastore_lab.engines.trials.arrays import HDF5, Held, make_folder, said
from datastore_lab.engines.trials.datasets import DATA, Datasets, HeldDataset, described
from datastore_lab.engines.trials.npy import NpyFile
from datastore_lab.engines.trials.task import SUMS, TABLE, TaskAppender
from datastore_lab.errors import AlreadyExists, BadKey, Corrupt, EngineError, Foreign, NotFound, ReadOnly
from datastore_lab.keys import Key, check, show
from datastore_lab.locks import FileLock
from datastore_lab.records import ArrayInfo, Stat, Traits
from datastore_lab.streams import disk
from datastore_lab.streams.names import LOCK
from datastore_lab.streams.text import sidecar
from datastore_lab.streams.text.engine import TextEngine
from datastore_lab.streams.text.foreign import ForeignTable
from datastore_lab.streams.text.read import TextFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datastore_lab.streams.protocols import StreamFile
    from datastore_lab.streams.text.write import TextAppender

GONE = ".gone"
"""Ending of a folder that was a task, and is deleted as soon as may be."""


class TrialsEngine(TextEngine):
    """A folder of participants and tasks, to which trials are appended.

    Nothing that was written is ever changed: `write`, `update`, `move` and `delete` raise `ReadOnly`.

    Parameters
    ----------
    path : path-like
        The folder.
    mode : {"r", "r+", "a", "w", "x"}
        As in h5py; ``"w"`` deletes the tables and arrays of all tasks, and leaves other files alone.
    timeout : float, default 0.0
        How long to wait for another writer of the same task, in seconds.
    durability : {"disk", "process"}
        What a trial survives: a power cut, or only the end of the process.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = TrialsEngine(pathlib.Path(folder.name) / "data")
    >>> task = engine.task(("p1", "reach"))
    >>> task.write({"block": 0, "hand": "left"}, {"emg": np.zeros((3, 2))})
    0
    >>> task.close({})
    >>> engine.read(("p1", "reach"), "hand").tolist(), engine.read(("p1", "reach", "emg", "0"), "data").shape
    (['left'], (3, 2))
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="Trials",
        structure="participants, tasks, trials",
        compresses=False,
        appends=True,
        hierarchical=True,
        n_dimensional=False,
        self_describing=False,
        parallel_write=False,
        cloud=False,
        opens_in=("Excel", "pandas", "NumPy", "R", "text editors"),
    )

    _summed: tuple[StreamFile, list[dict[str, Held]] | None] | None = None
    _datasets: Datasets | None = None

    @property
    def url(self) -> str:
        return f"trials://{self._path}"

    def task(self, key: Key, *, arrays: str = "npy") -> TaskAppender:
        """Begin a task, or go on with one after its last whole trial.

        Parameters
        ----------
        key : Key
            Such as ``("p1", "reach")``.
        arrays : {"npy", "hdf5"}
            Where arrays go: a file for each of them, or a file for all of one name.

        Raises
        ------
        Locked
            If another process is writing this task.
        Foreign
            If its table was made by another program: such a table is only read.
        """
        if not self._writable:
            self._refuse("it was opened for reading", key)
        with self._lock:
            self._check_open()
            path = self._path_of(check(key))
            self._make_folder(path)
            lock = self._claim(path, key)
            try:
                ended = partial(self._ended, key, lock)
                appender = TaskAppender(
                    path, key, ended, durable=self._durable, unsettled=self._unsettled, arrays=arrays
                )
            except BaseException:
                lock.release()
                raise
            self._appenders[key] = appender
            return appender

    @staticmethod
    def table(path: str | os.PathLike[str], *, timeout: float = 0.0) -> TaskAppender:
        """Begin a table of attributes without arrays, by its path, or go on with one after its last row."""
        place = Path(os.path.abspath(path))  # noqa: PTH100 (no link is followed)
        with disk.typed(str(place), "can't be locked"):
            lock = FileLock(f"{place}{LOCK}", f"the table {str(place)!r}", timeout)
        key = (place.parent.parent.name, place.parent.name) if place.name == TABLE else (place.stem,)
        try:
            return TaskAppender(str(place), key, lock.release, arrays=None)
        except BaseException:
            lock.release()
            raise

    def tasks(self) -> list[Key]:
        """List the tasks, also those of another program."""
        return [key for key, path in self._named() if key and self._stands(path)]

    def arrays_of(self, key: Key) -> dict[str, dict[str, ArrayInfo]]:
        """Describe the arrays of all trials of a task, by name and number; of ours without opening any."""
        with self._lock:
            found: dict[str, dict[str, ArrayInfo]] = {}
            for number, one in enumerate(self._held(check(key)) or ()):
                for name, held in one.items():
                    place = (*key, name, str(number))
                    info = self.stat(place).arrays[DATA] if held.dtype is None else described(held)
                    found.setdefault(name, {})[str(number)] = info
            if self._held(key) is None:
                for name in self._arrays(key):
                    trials = self._trials(key, name)
                    found[name] = {trial: self.stat((*key, name, trial)).arrays[DATA] for trial in trials}
        return found

    def foreign_files(self, key: Key) -> list[str]:
        """Tell apart the files with arrays of a task that another program made; none of one of ours."""
        if self._held(check(key)) is not None:
            return []
        places = [self._folder(key) / f"{media.escape_file(name)}{HDF5}" for name in self._arrays(key)]
        found = [(place.name, place.stat()) for place in places if place.is_file()]
        return [f"{name}:{one.st_size}:{one.st_mtime_ns}" for name, one in found]

    def drop_task(self, key: Key) -> None:
        """Remove a task with all its trials: at any moment all of it is there, or nothing."""
        if not self._writable:
            self._refuse("it was opened for reading", key)
        path = self._path_of(check(key))
        with self._lock, self._claimed(path):
            gone = self._path / f".{secrets.token_hex(8)}{GONE}"
            with disk.typed(path, "can't be removed"):
                Path(path).parent.rename(gone)
                media.sync_folder(Path(path).parent.parent)
            self._files.pop(path, None)
        self._sweep()

    def _sweep(self) -> None:
        """Delete what was removed, also by a program that was stopped before it could."""
        for place in self._path.glob(f".*{GONE}"):
            if len(place.name) == 17 + len(GONE) and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)  # (the next one does it)

    def _open(self, mode: str) -> None:
        if self._path.exists() and not self._path.is_dir():
            raise Foreign(f"{str(self._path)!r} is a file, not a folder of participants", key=self.url)
        if not self._path.parent.is_dir():
            raise NotFound(f"there is no folder {str(self._path.parent)!r}", key=self.url)
        filled = self._path.is_dir() and _filled(self._path)
        if mode in {"r", "r+"} and not self._path.is_dir():
            raise NotFound(f"there is no folder {str(self._path)!r}", key=self.url)
        if mode == "x" and filled:
            raise AlreadyExists(f"{str(self._path)!r} exists already", key=self.url)
        if mode == "w" and filled:
            self._remove_all()
        if mode in {"a", "w", "x"}:
            self._make(self._path)
        if self._writable and not os.access(self._path, os.W_OK):
            raise ReadOnly(f"{str(self._path)!r} can't be written", key=self.url)
        if self._writable:
            self._sweep()

    def _path_of(self, key: Key) -> str:
        names = [media.escape_file(part) for part in key]
        if any("%~" in name for name in names):
            raise BadKey(f"{show(key)!r} has a name that is too long for a folder", key=key)
        return str(self._path.joinpath(*names, TABLE))

    def _make_folder(self, path: str) -> None:
        folder = Path(path).parent
        missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
        for place in reversed(missing):
            self._make(place)
        for place in (folder, *folder.parents):
            if place == self._path:
                return
            if place.is_symlink() or not place.is_dir():
                raise EngineError(f"{str(place)!r} is no folder of this experiment", key=str(place))

    def _make(self, place: Path) -> None:
        with disk.typed(str(place), "can't be made"):
            make_folder(place, durable=self._durable)

    def _begin(self, path: str, key: Key, spec: Stat, release: Callable[[], None]) -> TextAppender:
        self._make_folder(path)
        return super()._begin(path, key, spec, release)

    def _claim(self, path: str, key: Key | None = None, timeout: float | None = None) -> Any:
        self._make_folder(path)
        return super()._claim(path, key, timeout)

    def _read_file(self, path: str) -> StreamFile:
        key = self._key_of(path)
        if os.path.lexists(sidecar.place(path)):
            file = TextFile(path)
            if file.key != key:
                raise Corrupt(f"{path!r} says that it is {show(file.key)!r}", key=path)
            return file
        return ForeignTable(path, key)

    def _key_of(self, path: str) -> Key:
        inside = Path(path).parent.relative_to(self._path).parts
        return tuple(media.unescape_file(part) or part for part in inside)

    def _paths(self, tail: str | None = None) -> list[str]:
        return sorted(self._below(self._path, tail))

    def _below(self, place: Path, tail: str | None = None) -> Iterator[str]:
        """Yield the paths of the tables in a folder and below it, or those whose locks are there."""
        ends = {TABLE + tail for tail in self.tails} if tail is None else {TABLE + LOCK}
        for folder, folders, files in os.walk(place):
            folders[:] = [name for name in folders if not name.startswith(".")]  # (no key has such a name)
            if ends.intersection(files):
                yield os.path.join(folder, TABLE)  # noqa: PTH118

    def _remove_all(self) -> None:
        """Remove tables and arrays of trials, and nothing else."""
        arrays = [place for key, _path in self._named() for place in self._array_files(key)]
        super()._remove_all()
        for place in arrays:
            place.unlink()

    def _array_files(self, key: Key) -> Iterator[Path]:
        """Yield the files with arrays of a task, but those of an earlier program."""
        folder = self._folder(key)
        ours = os.path.lexists(sidecar.place(str(folder / TABLE)))
        for array in self._arrays(key):
            place = folder / media.escape_file(array)
            together = place.with_name(f"{place.name}{HDF5}")
            if ours and together.is_file() and not together.is_symlink():
                yield together
            if not place.is_symlink():
                yield from (one for one in place.glob("*.npy") if not one.is_symlink())

    def _recover_all(self) -> None:
        """Nothing: a task is looked after when it is gone on with."""

    def _named(self, prefix: Key = ()) -> list[tuple[Key, str]]:
        try:
            folder = self._folder(prefix)
        except BadKey:  # (no folder has such a name)
            return []
        way = [folder, *folder.parents][: len(prefix)]
        if any(place.is_symlink() for place in way):  # it may lead out of the experiment
            return []
        return sorted((self._key_of(path), path) for path in self._below(folder))

    def _listed(self, prefix: Key = (), wanted: Callable[[Key], bool] = lambda key: True) -> Iterator[Key]:
        tasks = [key for key, path in self._named(prefix) if self._holds(key, path)]
        if prefix not in tasks:  # it may be an array of a task, or one of its trials
            above = [prefix[:-depth] for depth in (1, 2) if len(prefix) > depth]
            tasks += [key for key in above if self._is_task(key) and self._holds(key, self._path_of(key))]
        for key in tasks:
            if key[: len(prefix)] == prefix and wanted(key):
                yield key
            for array in self._arrays(key):
                if prefix[len(key) : len(key) + 1] not in {(), (array,)}:
                    continue
                for trial in self._trials(key, array):
                    below = (*key, array, trial)
                    if below[: len(prefix)] == prefix and wanted(below):
                        yield below

    def _is_task(self, key: Key) -> bool:
        return self._stands(self._path_of(key))

    def _arrays(self, key: Key) -> list[str]:
        """Name the arrays that the trials of a task have."""
        folder = Path(self._path_of(key)).parent
        found = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = media.unescape_file(entry.name.removesuffix(".hdf5"))
                if name is None or entry.is_symlink():
                    continue
                if entry.is_dir() and not os.path.lexists(os.path.join(entry.path, TABLE)):  # noqa: PTH118
                    found.add(name)
                if entry.is_file() and entry.name.endswith(".hdf5"):
                    found.add(name)
        return sorted(found)

    def _trials(self, key: Key, array: str) -> list[str]:
        """Name the trials of a task that have an array, as far as they count."""
        try:
            held = self._held(key)
            if held is not None:
                return [str(number) for number, one in enumerate(held) if array in one]
            old = self._folder(key) / f"{media.escape_file(array)}{HDF5}"
            return hdf5.names(str(old)) if old.is_file() and not old.is_symlink() else []
        except Corrupt:  # its table is named by what reads that
            return []

    def _held(self, key: Key) -> list[dict[str, Held]] | None:
        """Give what the rows of a task say of arrays; None for a table of another program."""
        file = self._look(self._path_of(key))
        if self._summed is None or self._summed[0] is not file:
            known = isinstance(file, TextFile) and SUMS in file.stat().arrays
            self._summed = file, [said(text) for text in file.read(SUMS).tolist()] if known else None
        return self._summed[1]

    def _folder(self, key: Key) -> Path:
        return Path(self._path_of(key)).parent

    def _file(self, key: Key) -> StreamFile | None:
        self._check_open()
        if len(check(key)) > 2 and not self._is_task(key) and self._is_task(key[:-2]):
            return self._array(key)
        return super()._file(key) if key else None

    def _array(self, key: Key) -> StreamFile | None:
        *task, array, trial = key
        held, folder = self._held(tuple(task)), self._folder(tuple(task))
        together = folder / f"{media.escape_file(array)}{HDF5}"
        if held is None:
            return _foreign(together, trial, key)
        number = int(trial) if trial.isdecimal() and trial == str(int(trial)) else len(held)
        if number >= len(held) or array not in held[number]:
            return None
        one = held[number][array]
        path = folder / media.escape_file(array) / f"{trial}.npy" if one.dtype is None else together
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise Corrupt(f"{str(path)!r} is missing, and its trial counts", key=key)
        if one.dtype is None:
            return NpyFile(str(path), key, one.sums)
        self._datasets = self._datasets or Datasets()
        return HeldDataset(str(path), key, one, self._datasets)

    def close(self) -> None:
        """Release the folder; may be called twice."""
        super().close()
        with self._lock:
            if self._datasets is not None:
                self._datasets.close()


def _foreign(path: Path, trial: str, key: Key) -> StreamFile | None:
    """Open a dataset of another program, if there is one: whatever its name, it lies in the root."""
    if "/" in trial or trial in {".", ".."} or path.is_symlink() or not path.is_file():
        return None
    try:
        return hdf5.Dataset(str(path), trial, key)
    except NotFound:
        return None


def _filled(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is not None
