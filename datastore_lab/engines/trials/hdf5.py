"""Arrays of trials in ``<array>.hdf5``, one dataset per trial, as earlier programs keep them: for reading."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import Corrupt, Foreign, Locked, NotFound
from datastore_lab.records import ARRAYS, Selection, Stat, default_dims, normalise_selection
from datastore_lab.streams import limits
from datastore_lab.streams.ipc.read import info as describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

DATA = "data"


def _ascending(one: int | slice) -> range:
    """Give what a selection takes along an axis, in the order that HDF5 can read."""
    if isinstance(one, int):
        return range(one, one + 1)
    taken = range(one.start, -1 if one.stop is None else one.stop, one.step)
    return taken if taken.step > 0 else taken[::-1]


def _sign(one: slice) -> int:
    return 1 if one.step > 0 else -1


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(path, "r", locking="best-effort")
    except BlockingIOError as error:
        raise Locked(
            f"{path!r} is open for writing in another program; close it there, then read it", key=path
        ) from error
    except OSError as error:
        raise Corrupt(f"{path!r} is no HDF5 file that can be read: {error}", key=path) from error
    with file:
        yield file


def names(path: str) -> list[str]:
    """List the datasets of a file, in order of their numbers."""
    import h5py

    with _opened(path) as file:
        found = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    return sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


class Dataset:
    """One dataset as a record of its own.

    Raises
    ------
    NotFound
        If there is none of this name.
    Foreign
        If its values are elsewhere, or no array.
    """

    def __init__(self, path: str, name: str, key: Key) -> None:
        self.path, self.key, self.trusting, self.layout = path, key, False, None
        self._name = name
        with self._dataset() as dataset:
            self._dtype, self._shape = dataset.dtype, dataset.shape
            stored = dataset.id.get_storage_size()
        if self._dtype.hasobject or self._shape is None:
            raise Foreign(f"{name!r} in {path!r} is no array of numbers", key=key)
        declared = math.prod(self._shape) * self._dtype.itemsize
        limits.check_size(declared, max(stored, os.path.getsize(path)), path)  # noqa: PTH202

    @contextmanager
    def _dataset(self) -> Iterator[Any]:
        import h5py

        with _opened(self.path) as file:
            if not isinstance(file.get(self._name, getlink=True), h5py.HardLink):
                raise NotFound(f"{self.path!r} has no {self._name!r} of its own", key=self.key)
            dataset = file[self._name]
            if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
                raise Foreign(f"{self._name!r} in {self.path!r} has no values in this file", key=self.key)
            yield dataset

    def stat(self) -> Stat:
        """Describe the array."""
        dims = default_dims(DATA, len(self._shape))
        return Stat(ARRAYS, {DATA: describe(self._dtype, self._shape, dims, None)}, {})

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Copy a part of the array, reading no other rows, columns or chunks."""
        if name != DATA:
            raise NotFound(f"{self.path!r} has only {DATA!r}, no {name!r}", key=self.key)
        wanted = normalise_selection(selection, self._shape)
        source = tuple(_ascending(one) for one in wanted)
        part = np.empty(tuple(len(one) for one in source), self._dtype)
        with self._dataset() as dataset:
            try:
                if part.size:
                    dataset.read_direct(part, tuple(slice(one.start, one.stop, one.step) for one in source))
            except OSError as error:
                raise Corrupt(
                    f"{self._name!r} in {self.path!r} can't be read: {error}", key=self.key
                ) from error
        turned = tuple(0 if isinstance(one, int) else slice(None, None, _sign(one)) for one in wanted)
        return np.array(part[(*turned, ...)], order="C")

    def verify(self) -> Iterator[tuple[str | None, str, bool]]:
        """Read it: the file may have checksums of its own."""
        try:
            self.read(DATA)
        except Corrupt as error:
            yield DATA, error.message, False

    def refresh(self) -> bool:
        """Say whether the file is still the same."""
        return False

    def loose_end(self) -> str | None:
        """Nothing: files of other programs are left alone."""
        return None
