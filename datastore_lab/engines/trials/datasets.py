"""Reading what `HDF5Arrays` wrote: rows against their sums, from files that stay open for the next trial."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab.engines.trials.arrays import rows_per_sum, sums_of
from datastore_lab.errors import Corrupt, LabError, NotFound
from datastore_lab.records import ARRAYS, Selection, Stat, default_dims
from datastore_lab.registry import ENGINES
from datastore_lab.streams import parts
from datastore_lab.streams.ipc.read import info as describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from datastore_lab.engines.trials.arrays import Held
    from datastore_lab.keys import Key
    from datastore_lab.records import ArrayInfo

DATA = "data"
_MOST = 4
_TYPE = b"lab_dtype"


class _Open(NamedTuple):
    file: Any
    state: tuple[int, ...] | None
    close: Callable[[], None]


class Datasets:
    """A few files that are open for reading.

    One that nobody writes is read by h5py, ten times faster to open; one with a journal beside it, which a
    writer has or left, by the engine that knows what of it counts.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def read(self, path: str, name: str, selection: Selection) -> NDArray[Any]:
        """Read a dataset, or a part of it.

        Raises
        ------
        Corrupt
        """
        from h5py import h5a

        one = self._at(path)
        if one.state is None:
            return one.file.read_dataset(name, selection)  # type: ignore[no-any-return]
        try:
            dataset = one.file[name]
            if not h5a.exists(dataset.id, _TYPE):
                return _values(dataset, selection)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise Corrupt(
                f"{name!r} in {path!r} can't be read: {error}; restore it from a copy", key=path
            ) from error
        return self._engine(path).file.read_dataset(name, selection)  # type: ignore[no-any-return]

    def _at(self, path: str) -> _Open:
        state = None if os.path.lexists(f"{path}-journal") else _state(path)
        one = self._open.get(path)
        if one is not None and one.state == state:
            return one
        self._forget(path)
        while len(self._open) >= _MOST:
            self._forget(next(iter(self._open)))
        one = self._open[path] = self._engine(path) if state is None else _plain(path, state)
        return one

    def _engine(self, path: str) -> _Open:
        found = self._open.get(f"{path}\0")
        if found is None:
            engine = ENGINES.load("hdf5")(path, "r")
            found = self._open[f"{path}\0"] = _Open(engine, None, engine.close)
        return found

    def _forget(self, path: str) -> None:
        for name in (path, f"{path}\0"):
            if (one := self._open.pop(name, None)) is not None:
                one.close()

    def close(self) -> None:
        """Let go of all."""
        for path in list(self._open):
            self._forget(path)


def _values(dataset: Any, selection: Selection) -> NDArray[Any]:
    if dataset.shape:
        return np.asarray(dataset[selection])
    made = np.empty((), dataset.dtype)  # (taken as a scalar it would lose its byte order)
    dataset.read_direct(made)
    return made


def _state(path: str) -> tuple[int, ...]:
    found = os.stat(path)  # noqa: PTH116
    return found.st_ino, found.st_size, found.st_mtime_ns


def _plain(path: str, state: tuple[int, ...]) -> _Open:
    import h5py

    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise Corrupt(f"{path!r} is no HDF5 file that can be read: {error}", key=path) from error
    return _Open(file, state, file.close)


def described(held: Held) -> ArrayInfo:
    """Describe an array as its row says it is."""
    assert held.dtype is not None
    return describe(held.dtype, held.shape, default_dims(DATA, len(held.shape)), None)


class HeldDataset:
    """The array of one trial, as its row says it is."""

    def __init__(self, path: str, key: Key, held: Held, files: Datasets) -> None:
        self.path, self.key, self.trusting, self.layout = path, key, False, None
        self._held, self._files = held, files
        self._dtype: np.dtype[Any] = held.dtype or np.dtype("V")

    def stat(self) -> Stat:
        """Describe the array; the file is not opened for it."""
        return Stat(ARRAYS, {DATA: described(self._held)}, {})

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of the array; of rows in order only about 1 MB more than these are read."""
        if name != DATA:
            raise NotFound(f"{self.path!r} has only {DATA!r}, no {name!r}", key=self.key)
        shape = self._held.shape
        if not shape:
            return np.array(self._checked(()), dtype=self._dtype)
        if not selection:
            return self._rows(0, shape[0])
        return parts.pick(
            [0, shape[0]], shape, self._dtype, selection, lambda _piece, start, stop: self._rows(start, stop)
        )

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        step, rows = rows_per_sum(self._dtype, self._held.shape), self._held.shape[0]
        low = start - start % step
        return self._checked((slice(low, min(rows, -(-stop // step) * step)),))[start - low : stop - low]

    def _checked(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        found = self._files.read(self.path, self.key[-1], selection)
        shape, first = self._held.shape, 0
        if selection:
            step = rows_per_sum(self._dtype, shape)
            first, shape = selection[0].start // step, (selection[0].stop - selection[0].start, *shape[1:])
        sums = [int(one, 16) for one in sums_of(found)] if found.dtype == self._dtype else []
        wanted = self._held.sums[first : first + len(sums)]
        if found.dtype != self._dtype or found.shape != shape or (sums != wanted and not self.trusting):
            raise Corrupt(
                f"{self.key[-1]!r} in {self.path!r} is not as it was written; restore it from a copy",
                key=self.key,
            )
        return found

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Yield what is not as it was written."""
        rows, step = (*self._held.shape, 1)[0], rows_per_sum(self._dtype, self._held.shape)
        for start in range(0, max(1, rows), step):
            try:
                self.read(DATA, (slice(start, start + step),) if self._held.shape else ())
            except LabError as error:
                yield DATA, error.message, False

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        return False

    def loose_end(self) -> str | None:
        """Nothing: it was whole before its trial counted."""
        return None
