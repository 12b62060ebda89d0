"""Texts of variable length: how much they take, told by the references to them, before any is read.

A dataset holds a reference for each text: its length, and where it lies. Many may lead to the same text, so
that a small file could ask for any amount of memory. Format: "Variable-Length" in the HDF5 File Format
Specification 3.0, sections IV.A.2.d and VIII.B.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5d, h5i, h5z

from datastore_lab.errors import Corrupt, Foreign
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.payload import Array, Source

_SUSPICIOUS = 256 << 20
_PART = 1 << 16


def check(array: Array, begin: tuple[int, ...], end: tuple[int, ...], key: Key, source: Source) -> None:
    """Refuse a box of texts that take more than the file has, before they are read.

    Parameters
    ----------
    array : Array
        Of texts or of anything else, which is passed over.
    begin, end : tuple of int
        First and one after the last index of each axis.
    key : Key
    source : Source

    Raises
    ------
    Foreign
        Also if the references are packed by a filter that is not known here.
    Corrupt
        If the array was written by this package, which refers to each text once.
    """
    if not array.native.hasobject:
        return
    total = sum(_lengths(array.dataset, begin, end, source))
    if total > max(_SUSPICIOUS, source.size):
        what = f"texts of an array of {show(key)!r} would take {total} bytes, but {source.url} is smaller: "
        if array.own:
            raise Corrupt(f"{what}it is damaged; restore it from a copy", key=key)
        raise Foreign(f"{what}many refer to the same; read it in parts", key=key)


def _lengths(dataset: Any, begin: tuple[int, ...], end: tuple[int, ...], source: Source) -> Iterator[int]:
    """Give the lengths of all texts in a box, or in somewhat more, added up part by part."""
    width, plist = _width(dataset), dataset.get_create_plist()
    kind = plist.get_layout()
    parts: Iterator[bytes] = iter(())
    if kind == h5d.CHUNKED:
        parts = _chunks(dataset, width, begin, end)
    elif kind == h5d.CONTIGUOUS:
        parts = _piece(dataset, width, begin, end, source)
    for raw in parts:  # none in an object header, which has room for a few thousand only
        whole = len(raw) // width
        items = np.frombuffer(raw, np.uint8, whole * width).reshape(whole, width)
        yield int(items[:, :4].copy().view("<u4").sum(dtype=np.uint64))


def _width(dataset: Any) -> int:
    """Give the bytes of a reference: length, address and number in the heap."""
    address, _size = h5i.get_file_id(dataset).get_create_plist().get_sizes()
    return 4 + int(address) + 4


def _piece(
    dataset: Any, width: int, begin: tuple[int, ...], end: tuple[int, ...], source: Source
) -> Iterator[bytes]:
    """Read rows of a dataset in one piece, as it lies in the file."""
    offset, row = dataset.get_offset(), width * math.prod(dataset.shape[1:])
    if offset is None:
        return
    at, stop = offset + (begin[0] * row if begin else 0), offset + (end[0] * row if end else row)
    for start in range(at, stop, _PART * width):
        buffer = bytearray(min(_PART * width, stop - start))
        yield bytes(buffer[: source.read_at(memoryview(buffer), start)])


def _chunks(dataset: Any, width: int, begin: tuple[int, ...], end: tuple[int, ...]) -> Iterator[bytes]:
    plist = dataset.get_create_plist()
    chunk = plist.get_chunk()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    ranges = [range(a // c * c, b, c) for a, b, c in zip(begin, end, chunk, strict=True)]
    for at in itertools.product(*ranges):
        if dataset.get_chunk_info_by_coord(at).byte_offset is not None:
            skipped, raw = dataset.read_direct_chunk(at)
            whole = _unpacked(raw, filters, skipped, math.prod(chunk) * width)
            if len(whole) == math.prod(chunk) * width:  # else it is damaged, and HDF5 says so
                items = np.frombuffer(whole, f"V{width}").reshape(chunk)
                inside = [slice(max(b - c, 0), e - c) for b, e, c in zip(begin, end, at, strict=True)]
                yield items[tuple(inside)].tobytes()


def _unpacked(raw: bytes, filters: list[int], skipped: int, most: int) -> bytes:
    """Undo the filters of a chunk; what comes out is at most as large as it may be."""
    for number, code in reversed(list(enumerate(filters))):
        if skipped >> number & 1:  # as is shuffling, which HDF5 does not do to texts
            continue
        if code != h5z.FILTER_DEFLATE:
            raise Foreign(f"texts packed by the filter {code} are not read: it is not known what they take")
        raw = _inflated(raw, most)
    return raw


def _inflated(raw: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(raw, most)
    except zlib.error as error:
        raise Corrupt(f"a chunk can't be unpacked: {error}") from error
