"""Writers by the name of their format: runs and bluesky documents into files, one call each."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from datastore_lab.acquire.storage import USUAL, Storage, as_storage
from datastore_lab.acquire.store_writer import StoreWriter
from datastore_lab.errors import EngineError, ReadOnly
from datastore_lab.store import open_store

__all__ = [
    "ArrowDocumentWriter",
    "CSVWriter",
    "HDF5Writer",
    "ParquetDocumentWriter",
    "StoreWriter",
    "ZarrWriter",
]


def HDF5Writer(  # noqa: N802 (the name that users know)
    path: str | os.PathLike[str],
    *,
    compression: str | None = None,
    compression_level: int | None = None,
    shuffle: str | None = None,
    chunk_size: int | None = None,
) -> StoreWriter:
    """Write runs or bluesky documents into an HDF5 file, ``.h5``; see `StoreWriter`.

    Parameters
    ----------
    path : path-like
    compression : {"none", "gzip", "lz4", "zstd", "blosc"}, optional
        Every HDF5 reads ``"gzip"``; the others need a plugin, such as the Python package hdf5plugin. Not
        compressed if it is left out.
    compression_level : int, optional
        A fast one if it is left out.
    shuffle : {"none", "byte", "bit"}, optional
        How bytes are sorted before; of numbers that have several, by byte, if it is left out.
    chunk_size : int, optional
        Samples that lie together; about 1 MB if it is left out.
    """
    storage = as_storage(chunk_size, compression, compression_level, shuffle)
    return file_writer(path, {".h5", ".hdf5", ".hdf", ".nc"}, storage)


def ZarrWriter(  # noqa: N802
    path: str | os.PathLike[str],
    *,
    compression: str | None = None,
    compression_level: int | None = None,
    shuffle: str | None = None,
    chunk_size: int | None = None,
    shard_size: int | str | None = None,
) -> StoreWriter:
    """Write runs or bluesky documents into a Zarr folder, ``.zarr``; see `StoreWriter`.

    Parameters
    ----------
    path : path-like
    compression, compression_level, shuffle, chunk_size
        As for `HDF5Writer`; zstd if they are left out.
    shard_size : int or str, optional
        Bytes of one file, into which several chunks go.
    """
    storage = as_storage(chunk_size, compression, compression_level, shuffle, shard_size)
    return file_writer(path, {".zarr"}, storage)


def ArrowDocumentWriter(path: str | os.PathLike[str], batch_rows: int | None = None) -> StoreWriter:  # noqa: N802
    """Write runs or bluesky documents into Arrow files; see `StoreWriter`.

    An Arrow file has one schema, so each stream has a file of its own: ``data/run.arrow`` becomes
    ``data/run.camera.arrow``, ``data/run.marks.arrow`` and so on; `open_store` of ``data/run.arrow`` shows
    them together, and each of them opens alone too.

    Parameters
    ----------
    path : path-like
    batch_rows : int, optional
        Rows of a record batch; about 4 MB if it is left out. A flush ends a batch.
    """
    return file_writer(path, {".arrow", ".feather"}, as_storage(batch_rows))


def ParquetDocumentWriter(  # noqa: N802
    path: str | os.PathLike[str], row_group_rows: int | None = None
) -> StoreWriter:
    """Write runs or bluesky documents into Parquet files, one per stream; see `StoreWriter`.

    ``data/run.parquet`` becomes ``data/run.camera.parquet`` and so on. While a run goes on, its rows are in
    a spool beside it, which is made a Parquet file when the run ends.

    Parameters
    ----------
    path : path-like
    row_group_rows : int, optional
        Rows of a row group; about 2 MB if it is left out.
    """
    return file_writer(path, {".parquet", ".pq"}, as_storage(row_group_rows))


def CSVWriter(path: str | os.PathLike[str]) -> StoreWriter:  # noqa: N802
    """Write runs or bluesky documents into CSV files, one per stream; see `StoreWriter`.

    ``data/run.csv`` becomes ``data/run.daq.csv`` and so on, each with a sidecar ``data/run.daq.csv.json``
    that says types, units and sums.
    """
    return file_writer(path, {".csv"})


def file_writer(path: str | os.PathLike[str], suffixes: set[str], storage: Storage = USUAL) -> StoreWriter:
    """Open a file, or make it with its folder, and a writer to it.

    Raises
    ------
    EngineError
        If the suffix is another one, or the folder can't be made.
    """
    place = Path(path)
    if place.suffix.lower() not in suffixes:
        raise EngineError(f"{str(place)!r} should end in {' or '.join(sorted(suffixes))}", key=str(place))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = ReadOnly if isinstance(error, PermissionError) or error.errno == errno.EROFS else EngineError
        folder = str(place.parent)
        raise kind(f"the folder {folder!r} can't be made: {error.strerror}", key=folder) from error
    return StoreWriter(open_store(place, "a"), owned=True, storage=storage)
