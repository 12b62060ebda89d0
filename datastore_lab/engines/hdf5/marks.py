"""The mark of a file that a program has open for writing, and what a killed one left behind.

Files of the latest formats (superblock version 2 or 3) carry flags that HDF5 sets while it writes, and a
checksum over them. A writer that lets others read along (SWMR) also leaves the end of the file in the
superblock as it was when it began: what was added since lies past that end, and would be written over.
HDF5 file format specification, section II.A; the checksum is Bob Jenkins' lookup3, as section II says.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.engines.hdf5.disk import bytes_at
from datastore_lab.errors import Locked

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.disk import Disk

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WRITING, _SWMR = 1, 4
_HEAD = 12
_LONGEST = _HEAD + 4 * 8 + 4
_MASK = 0xFFFFFFFF


class Mark(NamedTuple):
    """A superblock that says that a program is writing the file.

    Attributes
    ----------
    at : int
        Where the superblock begins, in bytes.
    raw : bytes
        The whole of it, with its checksum.
    swmr : bool
        Whether the writer lets others read along, so that the end that is noted is that of its beginning.
    """

    at: int
    raw: bytes
    swmr: bool

    def cleared(self, size: int) -> bytes:
        """Give the superblock without the mark, for a file of `size` bytes."""
        width = self.raw[9]
        flags = self.raw[11] & ~(_WRITING | _SWMR)
        body = bytearray(self.raw[:-4])
        body[11] = flags
        if self.swmr:
            body[_HEAD + 2 * width : _HEAD + 3 * width] = (size - self.at).to_bytes(width, "little")
        return bytes(body) + struct.pack("<I", lookup3(bytes(body)))


def find(disk: Disk, handle: int) -> Mark | None:
    """Give the mark of a file; None if it has none, or its superblock is damaged."""
    size, at = disk.size(handle), 0
    while at < size:
        raw = bytes_at(disk, handle, at, _LONGEST)
        if raw.startswith(_SIGNATURE):
            return _mark(raw, at)
        at = max(512, at * 2)
    return None


def refuse(disk: Disk, handle: int, path: str) -> None:
    """Refuse to write a file that says it is being written.

    Raises
    ------
    Locked
    """
    if find(disk, handle) is not None:
        raise Locked(
            f"{path} is marked as being written by another program. If that program was stopped, "
            "recover() brings the file back to order; opened with mode 'r' it can be read as it is",
            key=path,
        )


def _mark(raw: bytes, at: int) -> Mark | None:
    if len(raw) < _HEAD or raw[8] not in {2, 3} or raw[9] not in {2, 4, 8}:
        return None
    whole = raw[: _HEAD + 4 * raw[9] + 4]
    if not raw[11] & _WRITING or struct.pack("<I", lookup3(whole[:-4])) != whole[-4:]:
        return None
    return Mark(at, whole, bool(raw[11] & _SWMR))


def lookup3(data: bytes) -> int:
    """Give the 32-bit checksum of HDF5's metadata: Bob Jenkins' lookup3 with the initial value 0.

    Examples
    --------
    >>> f"{lookup3(b'Four score and seven years ago'):08x}"
    '17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        data = data[12:]
    if not data:
        return c
    x, y, z = struct.unpack("<III", data.ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _turn(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in ((4, 6, 8), (16, 19, 4)):
        a = (a - c & _MASK) ^ _turn(c, bits[0])
        c = c + b & _MASK
        b = (b - a & _MASK) ^ _turn(a, bits[1])
        a = a + c & _MASK
        c = (c - b & _MASK) ^ _turn(b, bits[2])
        b = b + a & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _turn(b, 14) & _MASK
    a = (a ^ c) - _turn(c, 11) & _MASK
    b = (b ^ a) - _turn(a, 25) & _MASK
    c = (c ^ b) - _turn(b, 16) & _MASK
    a = (a ^ c) - _turn(c, 4) & _MASK
    b = (b ^ a) - _turn(a, 14) & _MASK
    return (c ^ b) - _turn(b, 24) & _MASK
