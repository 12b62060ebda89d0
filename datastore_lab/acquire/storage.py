"""How the arrays of a recording are to be kept: rows that lie together, compression, shuffle."""

from __future__ import annotations

import math
from typing import NamedTuple

from datastore_lab import dtypes, units
from datastore_lab.records import ArrayInfo, Packing

_LEAST = 4096  # bytes of a chunk, and of what is worth compressing


class Storage(NamedTuple):
    """How arrays are to be kept, where that is not left to the engine.

    Attributes
    ----------
    rows : int or None
        Samples that lie together: a chunk of HDF5 and Zarr, a batch of Arrow, a row group of Parquet.
    packing : Packing or None
        Of the chunks of HDF5 and Zarr.
    """

    rows: int | None = None
    packing: Packing | None = None

    def applied(self, info: ArrayInfo) -> ArrayInfo:
        """Say of an array that is to grow how it is to be kept.

        Examples
        --------
        >>> info = ArrayInfo("<f8", (0, 16), ("time", "channel"), 0, None)
        >>> Storage(rows=1024).applied(info).chunks
        (1024, 16)
        """
        if self.rows is not None:
            info = info._replace(chunks=(self.rows, *(max(1, length) for length in info.shape[1:])))
        if info.dtype == dtypes.STRING or self.packing is None:
            return info  # text of variable length lies apart from its chunk, and can't be packed with it
        packing = self.packing
        if self.rows is not None:
            row = dtypes.parse(info.dtype).itemsize * math.prod(info.shape[1:])
            packing = packing._replace(chunk=max(_LEAST, self.rows * row))
        return info._replace(packing=packing)


USUAL = Storage()
"""All is left to the engine."""


def as_storage(
    chunk_size: int | None = None,
    compression: str | None = None,
    compression_level: int | None = None,
    shuffle: str | None = None,
    shard_size: int | str | None = None,
) -> Storage:
    """Read what users say of storage.

    Parameters
    ----------
    chunk_size : int, optional
        Samples that lie together.
    compression : {"none", "gzip", "lz4", "zstd", "blosc"}, optional
    compression_level : int, optional
    shuffle : {"none", "byte", "bit"}, optional
    shard_size : int or str, optional
        Bytes of one file of Zarr, as a number or such as ``"64 MB"``.

    Raises
    ------
    ValueError
        If there is a level or a shuffle and no compression, or a size is none.
    """
    if chunk_size is not None and not (_is_count(chunk_size) and chunk_size > 0):
        raise ValueError(f"chunk_size={chunk_size!r} is not a number of samples")
    if compression is None and (compression_level is not None or shuffle is not None):
        raise ValueError("there is a level or a shuffle, and no compression that it is of")
    if compression is None and shard_size is None:
        return Storage(chunk_size)
    shard = None if shard_size is None else units.parse_size(shard_size)
    level = None if compression == "none" else compression_level
    return Storage(chunk_size, Packing(compression or "none", level, shuffle, None, shard))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
