"""Attributes of texts and lists of varying length: how much they take, told before any is read.

An attribute holds a reference for each text: its length, and where it lies. Many may lead to the same text,
and HDF5 reads an attribute as a whole or not at all, so that a small file could ask for any amount of memory.
HDF5 does not tell the lengths, but they stand in the attribute's message, which it reads when it opens the
attribute. So where much could be asked for, the file is opened once more, through the same file object,
and the message is looked for in what HDF5 reads meanwhile. It then makes no difference where HDF5
keeps the message: in a header of version 1 or 2, in a block that continues it, or in a fractal heap. What
only looks like the message counts too, so that none can hide it, and what is not found is not read.

Format: HDF5 File Format Specification 3.0, sections IV.A.2.m "The Attribute Message" and
IV.A.2.d "The Datatype Message" (variable-length), and VIII.B for the references.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import struct
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np
from h5py import h5a, h5f, h5i, h5o, h5t

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUSPICIOUS = 256 << 20
_MOST_FOUND = 16
_STRANGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, struct.error)


class Bytes(Protocol):
    """The bytes of a file as they are now, as `datastore_lab.engines.hdf5.pages.PagedFile` gives them."""

    @property
    def size(self) -> int:
        """Length of the file, in bytes."""

    def read_at(self, view: memoryview, at: int) -> int:
        """Fill a buffer as far as the file goes; returns how many bytes there were."""


_FILES: weakref.WeakValueDictionary[int, Bytes] = weakref.WeakValueDictionary()
"""The bytes of every open file, by the number that HDF5 has for it."""


def know(root: Any, content: Bytes) -> None:
    """Remember the bytes of a file that was opened, for as long as they are held elsewhere."""
    _FILES[h5o.get_info(root).fileno] = content


def exceed(owner: Any, raw: bytes, attribute: Any) -> bool:
    """Say whether the texts of an attribute would take more than the file has, or might and can't be told.

    Parameters
    ----------
    owner : h5py.h5g.GroupID or h5py.h5d.DatasetID
    raw : bytes
        Name of the attribute.
    attribute : h5py.h5a.AttrID
        Of texts or of anything else, which is passed over.
    """
    levels = _levels(attribute.get_type())
    if not levels:
        return False
    content, width = _FILES[h5o.get_info(owner).fileno], _width(owner)
    most = attribute.get_storage_size() // width  # references; as many again may lie in each list
    if most * content.size * (content.size // width) ** (levels - 1) <= _SUSPICIOUS:
        return False
    return levels > 1 or _are_too_long(owner, raw, attribute, content)


def _are_too_long(owner: Any, raw: bytes, attribute: Any, content: Bytes) -> bool:
    """Add up the lengths that the references state; what looks like the attribute too often is not told."""
    kind, count, width = attribute.get_type(), math.prod(attribute.shape), _width(owner)
    try:
        found = list(_found(owner, raw, attribute.get_storage_size(), content))
        total = max(_total(_rows(data, count), kind, width) for data in found)
    except _STRANGE:
        return True
    return len(found) > _MOST_FOUND or total > max(_SUSPICIOUS, content.size)


def _levels(kind: Any) -> int:
    """Say how many times a reference has to be followed: 2 for lists of texts."""
    if isinstance(kind, h5t.TypeStringID):
        return int(kind.is_variable_str())
    if isinstance(kind, h5t.TypeVlenID):
        return 1 + _levels(kind.get_super())
    if isinstance(kind, h5t.TypeArrayID):
        return _levels(kind.get_super())
    if isinstance(kind, h5t.TypeCompoundID):
        return max(_levels(kind.get_member_type(number)) for number in range(kind.get_nmembers()))
    return 0


def _width(owner: Any) -> int:
    """Give the bytes of a reference: length, address and number in the heap."""
    address, _size = h5i.get_file_id(owner).get_create_plist().get_sizes()
    return 4 + int(address) + 4


def _rows(data: memoryview, count: int) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(count, -1)


def _total(items: NDArray[np.uint8], kind: Any, width: int) -> int:
    """Add up what all references in items of a type lead to, in bytes; each item is a row."""
    if items.shape[1] != _size(kind, width):
        raise ValueError("the items are not as long as their type says")
    if not _levels(kind):
        return 0
    if isinstance(kind, h5t.TypeArrayID):
        base = kind.get_super()
        return _total(items.reshape(-1, _size(base, width)), base, width)
    if isinstance(kind, h5t.TypeCompoundID):
        return sum(
            _total(items[:, at : at + size], member, width) for member, at, size in _members(kind, width)
        )
    lengths = np.ascontiguousarray(items[:, :4]).view("<u4")
    unit = kind.get_super().get_size() if isinstance(kind, h5t.TypeVlenID) else 1
    return int(lengths.sum(dtype=np.uint64)) * unit


def _size(kind: Any, width: int) -> int:
    """Give the bytes of an item in the file, where references are not as long as pointers in memory."""
    if not _levels(kind):
        return int(kind.get_size())
    if isinstance(kind, h5t.TypeArrayID):
        dims: tuple[int, ...] = kind.get_array_dims()
        return math.prod(dims) * _size(kind.get_super(), width)
    if isinstance(kind, h5t.TypeCompoundID):
        longer: list[int] = [size - member.get_size() for member, _at, size in _members(kind, width)]
        return int(kind.get_size()) + sum(longer)
    return width


def _members(kind: Any, width: int) -> Iterator[tuple[Any, int, int]]:
    """Yield type, place and size in the file of each member: all that differs moves what comes after it."""
    numbers, moved = range(kind.get_nmembers()), 0
    for number in sorted(numbers, key=kind.get_member_offset):
        member = kind.get_member_type(number)
        size = _size(member, width)
        yield member, kind.get_member_offset(number) + moved, size
        moved += size - member.get_size()


class _Watched:
    """A file for HDF5 to read, which notes where it does."""

    def __init__(self, content: Bytes) -> None:
        self._content, self._at = content, 0
        self._ranges: list[tuple[int, int]] = []

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        """Exist, by which h5py recognises a file."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        got = self._content.read_at(view, self._at)
        view[got:] = bytes(len(view) - got)
        self._ranges.append((self._at, self._at + got))
        self._at += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing: nothing is written."""

    def passed(self) -> Iterator[bytes]:
        """Yield all that was read, with what adjoins in one piece."""
        begin = end = 0
        for first, last in sorted(self._ranges):
            if first > end:
                yield self._piece(begin, end)
                begin = first
            end = max(end, last)
        yield self._piece(begin, end)

    def _piece(self, begin: int, end: int) -> bytes:
        buffer = bytearray(end - begin)
        return bytes(buffer[: self._content.read_at(memoryview(buffer), begin)])


def _found(owner: Any, raw: bytes, size: int, content: Bytes) -> Iterator[memoryview]:
    """Yield the data of everything that looks like a message of an attribute of this name and size."""
    h5f.flush(owner)  # what is not committed yet
    watched, path, address = _Watched(content), h5i.get_name(owner), h5o.get_info(owner).addr
    with contextlib.closing(h5py.File(watched, "r")) as file:
        again = h5o.open(file.id, path)
        if h5o.get_info(again).addr != address:
            raise ValueError("the object has another name by now")
        h5a.open(again, raw)
    pattern = re.compile(rb"(?s)(?=(?:[\x01\x02].{7}|\x03.{8})(%s)\x00)" % re.escape(raw))
    every = (_data(piece, hit, size) for piece in watched.passed() for hit in pattern.finditer(piece))
    yield from itertools.islice((data for data in every if data is not None), _MOST_FOUND + 1)


def _data(piece: bytes, hit: re.Match[bytes], size: int) -> memoryview | None:
    """Give the data of a message if there is as much after it; name, type and space come before."""
    sizes = struct.unpack_from("<HHH", piece, hit.start() + 2)
    if piece[hit.start()] == 1:
        sizes = tuple((one + 7) // 8 * 8 for one in sizes)
    at = hit.start(1) + sum(sizes)
    return memoryview(piece)[at : at + size] if at + size <= len(piece) else None
