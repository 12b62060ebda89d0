"""Single arrays in HDF5 files, and folders: for scripts that keep something beside an experiment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore_lab import dtypes, media
from datastore_lab.registry import ENGINES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def read_hdf5(path: str | os.PathLike[str], dataset: str = "data") -> NDArray[Any]:
    """Read an array from an HDF5 file.

    Parameters
    ----------
    path : path-like
    dataset : str, default ``"data"``
        Its name in the root of the file.

    Raises
    ------
    NotFound
        If there is no such file, or no such dataset in it.
    Foreign, Corrupt
        If it is no HDF5 file, or damaged.
    """
    engine = ENGINES.load("hdf5")(path, "r")
    try:
        return engine.read_dataset(dataset)  # type: ignore[no-any-return]
    finally:
        engine.close()


def write_hdf5(path: str | os.PathLike[str], data: ArrayLike, dataset: str = "data") -> None:
    """Write an array to an HDF5 file: all of it or nothing, other datasets of the file stay.

    Parameters
    ----------
    path : path-like
        Made if it is not there.
    data : array-like
    dataset : str, default ``"data"``
        Its name in the root of the file; one of this name is replaced.

    Raises
    ------
    NotStorable, Foreign, ReadOnly, EngineError

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_hdf5(pathlib.Path(folder) / "gain.hdf5", [1.0, 2.5])
    ...     read_hdf5(pathlib.Path(folder) / "gain.hdf5")
    array([1. , 2.5])
    """
    import numpy as np

    array = np.asarray(data)
    dtypes.check(array.dtype)
    engine = ENGINES.load("hdf5")(path, "a")
    try:
        engine.put_dataset(dataset, array)
    finally:
        engine.close()


def makedirs(path: str | os.PathLike[str], exist_ok: bool = False) -> None:
    """Make a folder and all those above it that are missing, so that their names survive a power cut.

    Raises
    ------
    FileExistsError
        If it is there and `exist_ok` is not given, or if it is no folder.
    """
    folder = Path(path)
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for place in missing:
        media.sync_folder(place.parent)
