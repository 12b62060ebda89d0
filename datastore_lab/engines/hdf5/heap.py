"""Global heaps, where texts of varying length lie: those that would send HDF5 round in circles.

HDF5 walks the objects of a heap by the sizes that they state, and checks none of them: a size of nothing, or
one so large that the sum wraps round, never ends. Format: "Global Heap" in the HDF5 File Format
Specification 3.0, section III.E.
"""

from __future__ import annotations

import struct

_HEAD = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")
_SIGNATURE = b"GCOL"


def spoil_endless(view: memoryview) -> None:
    """Take the signature from a heap that would never end, so that HDF5 refuses it.

    Parameters
    ----------
    view : memoryview
        What was read from a file: a heap, the beginning of one, or anything else.
    """
    if view[:4] == _SIGNATURE and len(view) >= _HEAD.size and _is_endless(view):
        view[:4] = bytes(4)


def _is_endless(view: memoryview) -> bool:
    _signature, version, whole = _HEAD.unpack_from(view)
    if version != 1:
        return False
    at, end = _HEAD.size, min(whole, len(view))
    while at + _OBJECT.size <= end:
        index, _references, size = _OBJECT.unpack_from(view, at)
        if size > whole or (index == 0 and size < _OBJECT.size):
            return True
        at += size if index == 0 else _OBJECT.size + (size + 7) // 8 * 8
    return False
