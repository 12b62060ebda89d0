"""Arrays of any number of dimensions in a Zarr folder, written chunk by chunk, in any order.

They are plain arrays of Zarr, as other programs make them: a chunk that was not written has no file, and
reads as the fill value. Each chunk carries a checksum of its own (zstd's, or crc32c), so that every reader
notices damage.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.acquire import documents, ranges
from datastore_lab.errors import AlreadyExists, EngineError, NotFound, StreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING, WRITTEN = "missing_chunks", "written_chunks"
"""Attributes of an array: ``[first, last]`` of chunks without a file, in C order; and how many have one."""

_OURS = "lab_kind"


class ChunkedArrays:
    """The arrays of a Zarr folder that are written chunk by chunk.

    Parameters
    ----------
    path : Path
        Made when the first array is.
    compressed : bool
        By zstd; else chunks are plain bytes.
    metadata : mapping
        Attributes of the folder.
    """

    def __init__(self, path: Path, *, compressed: bool, metadata: Mapping[str, Any]) -> None:
        self._path, self._compressed, self._metadata = path, compressed, metadata
        self._arrays: dict[str, Any] = {}
        self._written: dict[str, set[tuple[int, ...]]] = {}
        self._unsynced: set[Path] = set()

    def __len__(self) -> int:
        return len(self._arrays)

    def create(
        self,
        name: str,
        shape: Sequence[int],
        chunks: Sequence[int],
        dimensions: Sequence[str],
        *,
        dtype: Any,
        attributes: Mapping[str, Any],
    ) -> None:
        """Make an array without chunks; see `ZarrWriter.create_array`."""
        _check(name, shape, chunks, dimensions)
        kind = np.dtype(dtype)
        if kind.kind not in "biufc":
            raise StreamError(f"the array {name!r} can't hold {kind}: chunks are of numbers", key=name)
        own = documents.plain(attributes, f"the attributes of {name!r}")
        root = self._root()
        if name in root:
            raise AlreadyExists(f"{str(self._path)!r} has an array or group {name!r} already", key=name)
        self._arrays[name] = root.create_array(
            name,
            shape=tuple(map(int, shape)),
            chunks=tuple(map(int, chunks)),
            dtype=kind,
            dimension_names=list(dimensions),
            attributes=own,
            compressors=[self._codec()],
            fill_value=np.nan if kind.kind in "fc" else 0,
            config={"write_empty_chunks": True},  # a chunk of fill values was written, too
        )
        self._written[name] = set()
        self._note(name)
        self._unsynced |= {self._path / "zarr.json", self._path / name / "zarr.json"}

    def _codec(self) -> Any:
        from zarr.codecs import Crc32cCodec, ZstdCodec

        return ZstdCodec(level=1, checksum=True) if self._compressed else Crc32cCodec()

    def _root(self) -> Any:
        """Open the folder, or make it, with its attributes."""
        import zarr

        place = str(self._path)

        try:
            root = zarr.open_group(place, mode="a", zarr_format=3)
        except (OSError, ValueError, TypeError) as error:
            raise EngineError(f"{place!r} can't be opened as Zarr: {error}", key=place) from error
        if _OURS in root.attrs:
            raise EngineError(
                f"streams were written into {place!r} before: a folder takes arrays first, and streams then; "
                "create arrays before, or choose another folder",
                key=place,
            )
        if not self._arrays and self._metadata:
            root.attrs.update(self._metadata)
        return root

    def write(self, name: str, index: Sequence[int], data: Any, *, overwrite: bool) -> None:
        """Write a chunk; see `ZarrWriter.write_chunk`."""
        if name not in self._arrays:
            known = ", ".join(map(repr, self._arrays)) or "none"
            raise NotFound(f"there is no array {name!r} to write a chunk of; created are {known}", key=name)
        array, place = self._arrays[name], tuple(index)
        where = _where(name, array, place)
        if place in self._written[name] and not overwrite:
            raise AlreadyExists(f"the chunk {place} of {name!r} was written before", key=name)
        fitting = _fitting(name, data, tuple(cut.stop - cut.start for cut in where), array.dtype)
        try:
            array[where] = fitting
        except OSError as error:
            raise StreamError(f"the chunk {place} of {name!r} can't be written: {error}", key=name) from error
        self._written[name].add(place)
        self._unsynced.add(self._path.joinpath(name, "c", *map(str, place)))

    def flush(self) -> None:
        """Make everything written durable."""
        folders: set[Path] = set()
        for file in self._unsynced:
            _sync(file)
            folders |= set(itertools.takewhile(lambda folder: folder != self._path.parent, file.parents))
        for folder in folders:
            media.sync_folder(folder)
        self._unsynced.clear()

    def close(self) -> None:
        """Note in each array which chunks it lacks, and make all durable."""
        import zarr

        for name in self._arrays:
            self._note(name)
            self._unsynced.add(self._path / name / "zarr.json")
        if self._arrays:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # (that Zarr of version 3 does not prescribe it)
                zarr.consolidate_metadata(str(self._path))
            self._unsynced.add(self._path / "zarr.json")
        self.flush()
        self._arrays.clear()

    def _note(self, name: str) -> None:
        array, written = self._arrays[name], self._written[name]
        missing: list[ranges.Range] = []
        for number, place in enumerate(np.ndindex(*_counts(array.shape, array.chunks))):
            if place not in written:
                ranges.add(missing, number, number)
        array.attrs.update({WRITTEN: len(written), MISSING: [list(found) for found in missing]})


def _where(name: str, array: Any, index: tuple[int, ...]) -> tuple[slice, ...]:
    """Give the part of an array that a chunk is."""
    counts = _counts(array.shape, array.chunks)
    fits = len(index) == len(counts) and all(0 <= at < count for at, count in zip(index, counts, strict=True))
    if not fits:
        raise StreamError(f"the array {name!r} has {counts} chunks, and none at {index}", key=name)
    return tuple(
        slice(at * size, min((at + 1) * size, length))
        for at, size, length in zip(index, array.chunks, array.shape, strict=True)
    )


def _counts(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.ceil(length / size) for length, size in zip(shape, chunks, strict=True))


def _check(name: str, shape: Sequence[int], chunks: Sequence[int], dimensions: Sequence[str]) -> None:
    if not name or "/" in name or name.startswith((".", "__")) or name == "zarr.json":
        raise StreamError(f"an array can't be named {name!r}", key=name)
    if not len(shape) == len(chunks) == len(dimensions) > 0 or len(set(dimensions)) < len(dimensions):
        raise StreamError(
            f"the array {name!r} has the shape {tuple(shape)}, chunks of {tuple(chunks)} and the dimensions "
            f"{tuple(dimensions)}: these go together one by one, each dimension with a name of its own",
            key=name,
        )
    if any(not _is_length(length) for length in (*shape, *chunks)):
        raise StreamError(f"the array {name!r} has a length that is no whole number above 0", key=name)


def _is_length(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) > 0


def _fitting(name: str, data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give data as the chunk that it has to be; flat data is taken in C order."""
    given = np.asarray(data)
    if given.shape != shape:
        if given.ndim != 1 or given.size != math.prod(shape):
            raise StreamError(f"the chunk of {name!r} has the shape {shape}, not {given.shape}", key=name)
        given = given.reshape(shape)
    return dtypes.fit(given, dtype, name)


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
