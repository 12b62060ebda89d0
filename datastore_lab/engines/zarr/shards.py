"""Shards: several chunks in one file, with an index at its end, packed and unpacked in threads.

Source: the codec ``sharding_indexed`` of the Zarr specification version 3, with the codecs bytes, gzip, zstd,
blosc and crc32c. A shard is cut along its first axis only; each of its chunks ends with its crc32c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from datastore_lab import packing as packs
from datastore_lab.engines.zarr.crc import crc32c
from datastore_lab.errors import NotStorable
from datastore_lab.records import Packing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

PACKING = "shard"
"""What `ArrayDoc.packing` is where a file holds several chunks."""

CAN = ("none", "gzip", "zstd", "blosc")
"""The compressions that the chunks of a shard may have."""

CHUNK, SHARD = 1 << 20, 8 << 20
"""Bytes in a chunk and in a shard, before compression, if nothing else was asked for."""

_PLAIN = Packing(shuffle="none")
_NAME = "sharding_indexed"
_CRC = {"name": "crc32c"}
_INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, _CRC]
_SHUFFLES = {"none": "noshuffle", "byte": "shuffle", "bit": "bitshuffle"}
_MISSING = (1 << 64) - 1
_ENTRY, _SUM = 16, 4


class Shard(NamedTuple):
    """How a shard is made.

    Attributes
    ----------
    rows : int
        In each of its chunks.
    packing : Packing
    """

    rows: int
    packing: Packing

    def codec(self, chunks: tuple[int, ...], first: dict[str, Any], itemsize: int) -> dict[str, Any]:
        """Say it as the metadata of an array do; `chunks` is the shape of a whole shard."""
        packed = [_codec(self.packing, itemsize)] if self.packing.compression != "none" else []
        return {
            "name": _NAME,
            "configuration": {
                "chunk_shape": [self.rows, *chunks[1:]],
                "codecs": [first, *packed, _CRC],
                "index_codecs": _INDEX,
                "index_location": "end",
            },
        }


def check(packing: Packing) -> Packing:
    """Give a packing as far as Zarr has it, with all that was left open.

    Raises
    ------
    NotStorable
    """
    checked = packs.check(packing, CAN, "Zarr", shards=True)
    if checked.compression != "blosc" and checked.shuffle == "byte":
        raise NotStorable(
            "Zarr shuffles bytes with blosc only; choose that, or leave shuffle out", key="Zarr"
        )
    return checked if checked.compression == "blosc" else checked._replace(shuffle="none")


def shapes(packing: Packing, row: int, size: float) -> tuple[int, int]:
    """Choose the rows in a chunk and in a shard, which is to have about `size` bytes if nothing was said.

    Examples
    --------
    >>> shapes(Packing(), 300_000, 8 << 20)
    (3, 27)
    """
    whole = packing.shard or max(size, packing.chunk or 0)
    rows = max(1, int(min(packing.chunk or CHUNK, whole)) // row)
    return rows, rows * max(1, int(whole) // (rows * row))


def _codec(packing: Packing, itemsize: int) -> dict[str, Any]:
    name, level = packing.compression, packing.level
    if name == "gzip":
        return {"name": "gzip", "configuration": {"level": level}}
    if name == "zstd":
        return {"name": "zstd", "configuration": {"level": level, "checksum": False}}
    how = packing.shuffle or ("byte" if itemsize > 1 else "none")
    settings = {
        "cname": "lz4",
        "clevel": level,
        "shuffle": _SHUFFLES[how],
        "typesize": itemsize,
        "blocksize": 0,
    }
    return {"name": "blosc", "configuration": settings}


def parse(codecs: Any, chunks: tuple[int, ...], itemsize: int) -> Shard | None:
    """Understand what `Shard.codec` wrote; None for anything else."""
    try:
        settings = codecs[0]["configuration"]
        inner, own = settings["chunk_shape"], settings["codecs"]
        packing = _PLAIN if len(own) == 2 else _packing(own[1])
        shard = Shard(inner[0], packing)
        same = [shard.codec(chunks, own[0], itemsize)] == codecs
    except (KeyError, IndexError, TypeError):
        return None
    fits = same and type(shard.rows) is int and shard.rows > 0 and chunks[0] % shard.rows == 0
    return shard if fits and own[0]["name"] == "bytes" else None


def _packing(codec: dict[str, Any]) -> Packing:
    settings = codec["configuration"]
    if codec["name"] != "blosc":
        return Packing(codec["name"], settings["level"], "none")
    shuffle = {there: here for here, there in _SHUFFLES.items()}[settings["shuffle"]]
    return Packing("blosc", settings["clevel"], shuffle)


def pack(chunk: NDArray[Any], packing: Packing) -> bytes:
    """Make of a chunk what is to be in the shard."""
    packed = packs.pack(chunk, packing, as_file=True)
    return b"".join((packed, crc32c(packed)))


def joined(chunks: Sequence[Any], count: int) -> list[Any]:
    """Give the buffers that make up a shard of `count` chunks, of which the first ones are there."""
    index, at = np.full((count, 2), _MISSING, "<u8"), 0
    for number, chunk in enumerate(chunks):
        index[number] = at, len(chunk)
        at += len(chunk)
    raw = index.tobytes()
    return [*chunks, raw, crc32c(raw)]


def sum_of(buffers: Sequence[Any]) -> int:
    """Give the sum of a shard."""
    state = xxhash.xxh3_64()
    for buffer in buffers:
        state.update(buffer)
    return state.intdigest()


def decode(raw: bytes, shard: Shard, out: NDArray[Any]) -> None:
    """Unpack a shard into an array of its shape.

    Raises
    ------
    ValueError
        If it is not a whole shard of this shape, or a chunk is not as it was written.
    """
    count, view = len(out) // shard.rows, memoryview(raw)
    end = len(view) - count * _ENTRY - _SUM
    if end < 0 or crc32c(view[end:-_SUM]) != view[-_SUM:]:
        raise ValueError("its index is damaged")
    begun: list[Future[None]] = []
    for number, (at, size) in enumerate(np.frombuffer(view[end:-_SUM], "<u8").reshape(-1, 2).tolist()):
        part = out[number * shard.rows : (number + 1) * shard.rows]
        if (at, size) == (_MISSING, _MISSING):
            packs.as_bytes(part)[:] = 0
            continue
        if at + size > end or size < _SUM:
            raise ValueError("its index leads out of it")
        begun.append(packs.begin(_unpack, view[at : at + size], shard.packing, part))
    for unpacking in begun:
        unpacking.result()


def _unpack(raw: memoryview, packing: Packing, out: NDArray[Any]) -> None:
    if crc32c(raw[:-_SUM]) != raw[-_SUM:]:
        raise ValueError("the checksum of a chunk in it differs")
    packs.unpack(raw[:-_SUM], packing, out)
