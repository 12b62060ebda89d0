"""Where the arrays of a task's trials lie, and what the row of a trial says of them.

Either ``<array>/<trial>.npy``, a file each, or ``<array>.hdf5`` with a dataset per trial. The row tells
which: a list has the sums of a file, a mapping type, shape and sums of a dataset.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import dtypes, media
from datastore_lab.engines.trials import npy
from datastore_lab.errors import Corrupt, EngineError
from datastore_lab.integrity import BLOCK
from datastore_lab.registry import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

HDF5 = ".hdf5"


class Held(NamedTuple):
    """What a row says of an array.

    Attributes
    ----------
    sums : list of int
        Of the blocks of its file; of a dataset those of `rows_per_sum` rows each.
    dtype : dtype or None
        None for one in a file of its own, which says it.
    shape : tuple of int
    """

    sums: list[int]
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()


def said(cell: str) -> dict[str, Held]:
    """Read what a row says of the arrays of its trial.

    Raises
    ------
    Corrupt

    Examples
    --------
    >>> said('{"emg": {"dtype": "<f8", "shape": [3], "sums": ["0f"]}}')
    {'emg': Held(sums=[15], dtype=dtype('float64'), shape=(3,))}
    """
    try:
        return {name: _held(one) for name, one in media.from_json(cell or "{}").items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Corrupt(f"{cell[:80]!r} says nothing about arrays of a trial") from error


def _held(one: Any) -> Held:
    sums = [int(text, 16) for text in (one["sums"] if isinstance(one, dict) else one)]
    if not isinstance(one, dict):
        return Held(sums)
    return Held(sums, dtypes.parse(one["dtype"]), tuple(map(int, one["shape"])))


def rows_per_sum(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Say how many rows of an array one sum covers: about 1 MB."""
    return max(1, BLOCK // max(1, math.prod(shape[1:]) * dtype.itemsize))


def sums_of(rows: NDArray[Any]) -> Iterator[str]:
    """Give the sums of an array, or of some rows that begin where a sum does.

    Examples
    --------
    >>> import numpy as np
    >>> len(list(sums_of(np.zeros((3, 1 << 17))))), len(list(sums_of(np.zeros(()))))
    (3, 1)
    """
    if not rows.ndim:
        yield media.checksum(rows)[:16]
        return
    step = rows_per_sum(rows.dtype, rows.shape)
    for start in range(0, len(rows), step):
        yield media.checksum(rows[start : start + step])[:16]


class NpyArrays:
    """A file per array and trial."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder, self._durable = folder, durable

    def put(self, name: str, number: int, array: NDArray[Any]) -> Any:
        """Write an array, and give what its row has to say of it."""
        place = self._place(name, number)
        make_plain_folder(place.parent, durable=self._durable)
        return [f"{one:016x}" for one in npy.save(str(place), array, durable=self._durable)]

    def drop(self, names: Mapping[str, Any], number: int) -> None:
        """Remove what was written for a trial that is not to be."""
        for name in names:
            place = self._place(name, number)
            if not place.parent.is_symlink():
                with contextlib.suppress(OSError):  # (it does not count without its row)
                    place.unlink()

    def tidy(self, rows: int) -> None:
        """Nothing: a file that does not count is written over."""

    def has(self, name: str) -> bool:
        """Whether any trial has an array of this name."""
        return (self._folder / media.escape_file(name)).is_dir()

    def strangers(self) -> str | None:
        """Nothing: files without a table are nobody's."""

    def close(self) -> None:
        """Nothing is open."""

    def _place(self, name: str, number: int) -> Path:
        return self._folder / media.escape_file(name) / f"{number}.npy"


class HDF5Arrays:
    """A file per array, with a dataset per trial; each dataset is there completely or not at all."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder, self._durability = folder, "disk" if durable else "process"
        self._files: dict[str, Any] = {}

    def put(self, name: str, number: int, array: NDArray[Any]) -> Any:
        """Write an array, and give what its row has to say of it."""
        self._file(name).put_dataset(str(number), array)
        about = {"dtype": dtypes.name(array.dtype), "shape": list(array.shape)}
        return {**about, "sums": list(sums_of(array))}

    def drop(self, names: Mapping[str, Any], number: int) -> None:
        """Remove what was written for a trial that is not to be."""
        for name in names:
            with contextlib.suppress(OSError):  # (it does not count without its row)
                self._file(name).put_dataset(str(number), None)

    def tidy(self, rows: int) -> None:
        """Remove what a writer that was stopped left of a trial that does not count."""
        for place in self._places():
            name = media.unescape_file(place.name.removesuffix(HDF5)) or place.name
            file = self._file(name)
            for other in file.dataset_names():
                if other.isdecimal() and int(other) >= rows:
                    file.put_dataset(other, None)
        self.close()

    def has(self, name: str) -> bool:
        """Whether any trial has an array of this name."""
        return (self._folder / f"{media.escape_file(name)}{HDF5}").exists()

    def strangers(self) -> str | None:
        """Name a file that is there before any trial."""
        return next((str(place) for place in self._places()), None)

    def _places(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{HDF5}"))

    def close(self) -> None:
        """Let go of the files."""
        for name in list(self._files):
            self._files.pop(name).close()

    def _file(self, name: str) -> Any:
        if name not in self._files:
            place = self._folder / f"{media.escape_file(name)}{HDF5}"
            if place.is_symlink():
                raise EngineError(f"{str(place)!r} is a link that is not followed", key=str(place))
            self._files[name] = ENGINES.load("hdf5")(place, "a", durability=self._durability)
        return self._files[name]


FORMS: dict[str, Any] = {"npy": NpyArrays, "hdf5": HDF5Arrays}


def make_plain_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder that is not a link to elsewhere."""
    if folder.is_symlink():
        raise EngineError(f"{str(folder)!r} is a link that is not followed", key=str(folder))
    if not folder.is_dir():
        make_folder(folder, durable=durable)


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder, if it is not there, whose name is durable; else there is none."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    try:
        if durable:
            media.sync_folder(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # (an empty folder is nothing to anybody)
            folder.rmdir()
        raise
