"""Chunks as they lie in the file: what the filters of HDF5 would make of them, made and undone here.

HDF5 runs its filters one chunk after the other, under one lock. Chunks that were packed in threads are
handed to it as they are to be in the file, and fetched from it in the same way. Other programs need nothing
for gzip; for lz4, zstd and blosc they need the filters of their registered numbers, as the package hdf5plugin
has them.

Sources: HDF5 File Format Specification 3.0, IV.A.2.l; registered filters 32001 (blosc), 32004 (lz4) and 32015
(zstd) of the HDF Group.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from h5py import h5z

from datastore_lab import packing as packs
from datastore_lab.engines.hdf5 import szip

if TYPE_CHECKING:
    from datastore_lab.records import Packing

_HAS_SZIP = h5z.filter_avail(h5z.FILTER_SZIP) and h5z.get_filter_info(h5z.FILTER_SZIP) & (
    h5z.FILTER_CONFIG_ENCODE_ENABLED
)
CAN = ("none", "gzip", *(("szip",) if _HAS_SZIP else ()), "lz4", "zstd", "blosc")
"""The compressions that a growing array may have."""

_NUMBERS = {"gzip": h5z.FILTER_DEFLATE, "szip": h5z.FILTER_SZIP, "blosc": 32001, "lz4": 32004, "zstd": 32015}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_LZ4 = struct.Struct(">QII")
_LZ4_OWN = 4  # bytes of the length that stands before the block here, but not there
_SKIPPED = struct.Struct("<II")
_SKIP_MARK = 0x184D2A50  # RFC 8878, 3.1.2: a frame that decoders pass over
_MOST = 16
_RATIO = 1100  # deflate, the common filter, shrinks at most to 1/1032
_RATIOS = {"zstd": 1 << 15}  # (what it makes of zeros)


class Filters(NamedTuple):
    """The filters of a dataset.

    Attributes
    ----------
    name : str
        The compression, ``"none"`` without one.
    shuffled : bool
        Whether bytes are shuffled before.
    values : tuple of int
        What HDF5 keeps of the compression.
    """

    name: str
    shuffled: bool
    values: tuple[int, ...] = ()

    @property
    def every(self) -> int:
        """The mask that says of a chunk that none of them was used."""
        return (1 << self.shuffled + (self.name != "none")) - 1


def declare(plist: Any, packing: Packing, itemsize: int) -> None:
    """Say in the properties of a new dataset how its chunks are packed."""
    if packs.byte_shuffle(packing, itemsize):
        plist.set_shuffle()
    if packing.compression == "gzip":
        plist.set_deflate(packing.level)
    elif packing.compression == "szip":
        plist.set_szip(h5z.SZIP_NN_OPTION_MASK, szip.PIXELS)
    elif packing.compression != "none":  # optional, as it need not be there for those who only write
        plist.set_filter(_NUMBERS[packing.compression], h5z.FLAG_OPTIONAL, _values(packing, itemsize))


def _values(packing: Packing, itemsize: int) -> tuple[int, ...]:
    if packing.compression == "blosc":
        return (2, 2, min(itemsize, 255), 0, packing.level or 1, 1, 1)  # versions, sizes, level, shuffle, lz4
    return () if packing.compression == "lz4" else ((packing.level or 1) & 0xFFFFFFFF,)


def known(plist: Any) -> Filters | None:
    """Give the filters of a dataset; None if they are others than those that can be undone here."""
    found = [plist.get_filter(index) for index in range(min(plist.get_nfilters(), _MOST))]
    shuffled = [one[0] for one in found[:1]] == [h5z.FILTER_SHUFFLE]
    rest = found[shuffled:]
    if not rest:
        return Filters("none", shuffled)
    name, values = _NAMES.get(rest[0][0]), tuple(rest[0][2])
    if len(rest) > 1 or name is None or (name == "szip" and not _knows_szip(values)):
        return None
    return Filters(name, shuffled, values)


def _knows_szip(values: tuple[int, ...]) -> bool:
    return szip.library() is not None and len(values) == 4 and 0 < values[1] <= szip.PIXELS


def most(plist: Any) -> int:
    """Give how many times smaller the chunks of a dataset may be than what they hold."""
    found = known(plist)
    return _RATIO if found is None else _RATIOS.get(found.name, _RATIO)


def pack(data: Any, packing: Packing, values: tuple[int, ...] = ()) -> Any:
    """Make of a chunk what is to be in the file; szip needs what HDF5 keeps of it."""
    if packing.compression == "szip":
        return szip.pack(packs.as_bytes(data), values)
    packed = packs.pack(data, packing)
    if packing.compression != "lz4":
        return packed
    block, size = memoryview(packed)[_LZ4_OWN:], data.nbytes
    if len(block) >= size:  # a block as long as before is one that was left as it was
        block = memoryview(packs.pack(data, packing._replace(compression="none")))
    return _LZ4.pack(size, size, len(block)) + bytes(block)


def fits(packed: Any, name: str, size: int) -> bool:
    """Say whether `padded` can bring a packed chunk to a size."""
    spare = size - len(packed)
    return spare == 0 or spare >= (_SKIPPED.size if name == "zstd" else 0)


def padded(packed: Any, name: str, size: int) -> bytes:
    """Make a packed chunk longer by what whoever unpacks it passes over."""
    spare = size - len(packed)
    head = _SKIPPED.pack(_SKIP_MARK, spare - _SKIPPED.size) if name == "zstd" and spare else b""
    return bytes(packed) + head + bytes(spare - len(head))


def unpack(raw: Any, filters: Filters, mask: int, out: Any) -> None:
    """Undo what was made of a chunk, into an array of its size.

    Raises
    ------
    ValueError
        If that is not possible, or would take more memory than the array.
    """
    if mask & filters.every:
        raise ValueError(f"it was packed by some of its filters only ({mask})")
    target = packs.as_bytes(out)
    plain = _unpacked(memoryview(raw), filters, target.nbytes)
    if filters.shuffled:
        packs.unshuffle(plain, out.dtype.itemsize, target)
    else:
        target[:] = np.frombuffer(plain, np.uint8)


def _unpacked(view: memoryview, filters: Filters, size: int) -> Any:
    if filters.name == "szip":
        return szip.unpack(view, filters.values, size)
    return _plain_lz4(view, size) if filters.name == "lz4" else packs.decompress(view, filters.name, size)


def _plain_lz4(view: memoryview, size: int) -> Any:
    """Undo the filter of lz4, whose blocks are all of one size but for the last."""
    total, each = int.from_bytes(view[:8], "big"), int.from_bytes(view[8:12], "big")
    if total != size or (size and not each):
        raise ValueError(f"it claims to hold {total} bytes, not {size}")
    out, at, done = np.empty(size, np.uint8), 12, 0
    while done < size:
        want, length = min(each, size - done), int.from_bytes(view[at : at + 4], "big")
        block = view[at + 4 : at + 4 + length]
        if len(block) < length or not length:
            raise ValueError("it ends too early")
        whole = length == want
        own = block if whole else want.to_bytes(4, "little") + block.tobytes()
        part = packs.decompress(own, "none" if whole else "lz4", want)
        out[done : done + want] = np.frombuffer(part, np.uint8)
        at, done = at + 4 + length, done + want
    return out
