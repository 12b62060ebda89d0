"""Writers by the name of their format: runs and bluesky documents into files, one call each."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datastore_lab.acquire import documents
from datastore_lab.acquire.chunked import ChunkedArrays
from datastore_lab.acquire.storage import USUAL, Storage, as_storage
from datastore_lab.acquire.store_writer import StoreWriter
from datastore_lab.errors import EngineError, ReadOnly
from datastore_lab.records import Packing
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
    if chunk_size is not None and storage.packing is None:
        storage = storage._replace(packing=Packing())
    return file_writer(path, {".h5", ".hdf5", ".hdf", ".nc"}, storage)


class ZarrWriter(StoreWriter):
    """Writes runs, bluesky documents, and arrays chunk by chunk, into a Zarr folder, ``.zarr``.

    Streams are written as by `StoreWriter`. Arrays of any number of dimensions, as a nested scan fills them,
    are made with `create_array` and written with `write_chunk`, in any order; ``xarray.open_zarr`` shows them
    with the names of their dimensions. An array has the attributes ``written_chunks``, how many, and
    ``missing_chunks``, which are not there, in C order, and read as NaN or zero.

    Parameters
    ----------
    path : path-like
    compression, compression_level, shuffle, chunk_size
        Of streams, as for `HDF5Writer`; zstd if they are left out.
    shard_size : int or str, optional
        Bytes of one file, into which several chunks of a stream go.
    metadata : mapping of str to JSON value, optional
        Attributes of the folder, where arrays are written into it.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, xarray
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name) / "experiment.zarr"
    >>> writer = ZarrWriter(path)
    >>> axes = ["wavelength", "position", "y", "x"]
    >>> writer.create_array("frames", (10, 5, 8, 8), (10, 1, 8, 8), axes, "uint16", {"units": "counts"})
    >>> writer.write_chunk("frames", (0, 2, 0, 0), np.ones((10, 1, 8, 8), "uint16"))
    >>> writer.close()
    >>> frames = xarray.open_zarr(path)["frames"]
    >>> frames.dims, int(frames.sum()), frames.attrs["missing_chunks"]
    (('wavelength', 'position', 'y', 'x'), 640, [[0, 1], [3, 4]])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compression: str | None = None,
        compression_level: int | None = None,
        shuffle: str | None = None,
        chunk_size: int | None = None,
        shard_size: int | str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        storage = as_storage(chunk_size, compression, compression_level, shuffle, shard_size)
        place = checked_place(path, {".zarr"})
        super().__init__(lambda: open_store(place, "a"), owned=True, storage=storage)
        plain = documents.plain(metadata or {}, "metadata")
        self._chunked = ChunkedArrays(place, compressed=compression != "none", metadata=plain)

    def create_array(  # noqa: PLR0917 (as its users call it)
        self,
        name: str,
        shape: Sequence[int],
        chunks: Sequence[int],
        dimensions: Sequence[str],
        dtype: Any,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an array of which no chunk is written yet.

        Parameters
        ----------
        name : str
        shape, chunks : sequence of int
            Of the whole, and of each chunk, but for those at the edge.
        dimensions : sequence of str
            One name per axis.
        dtype : dtype
            Of numbers.
        attributes : mapping of str to JSON value, optional

        Raises
        ------
        AlreadyExists
            If there is something of this name.
        StreamError
            If these do not go together.
        """
        self._chunked.create(name, shape, chunks, dimensions, dtype=dtype, attributes=attributes or {})

    def write_chunk(
        self, name: str, chunk_index: Sequence[int], data: Any, *, overwrite: bool = False
    ) -> None:
        """Write one chunk.

        Parameters
        ----------
        name : str
            Of an array that was created.
        chunk_index : sequence of int
            Which chunk, along each axis.
        data : array_like
            Of the shape of the chunk, smaller at the edge; also flat, in C order.
        overwrite : bool, default False
            Replace what was written there before.

        Raises
        ------
        NotStorable
            If a value is none that the array can hold.
        """
        self._chunked.write(name, chunk_index, data, overwrite=overwrite)

    def flush(self) -> None:
        """Make everything taken so far durable."""
        self._chunked.flush()
        super().flush()

    def close(self) -> None:
        """End all records, and note in each array which chunks it lacks."""
        try:
            self._chunked.close()
        finally:
            super().close()


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
    """Open a file, or make it with its folder, and a writer to it."""
    return StoreWriter(open_store(checked_place(path, suffixes), "a"), owned=True, storage=storage)


def checked_place(path: str | os.PathLike[str], suffixes: set[str]) -> Path:
    """Make the folder of a file that is to be written.

    Raises
    ------
    EngineError
        If its suffix is another one, or the folder can't be made.
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
    return place
