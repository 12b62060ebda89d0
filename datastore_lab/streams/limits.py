"""How much a file may ask for before anything is allocated."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from datastore_lab.errors import EngineError

if TYPE_CHECKING:
    from datastore_lab.streams.ipc import head

LARGEST = 256 << 20
"""Bytes that a file of any size may unpack into."""

RATIO = 200
"""Times its own size that a larger one may unpack into."""


def check_size(declared: int, size: int, path: str) -> None:
    """Refuse what unpacks into much more than it is.

    Raises
    ------
    EngineError
    """
    if declared < 0 or declared > max(LARGEST, RATIO * size):
        raise EngineError(
            f"{path!r} has {size} bytes and says that it unpacks into {declared}: that would fill the "
            "memory, and is refused; if you trust it, open it with the program that made it",
            key=path,
        )


def check_unpacked(raw: bytes, found: head.Head, path: str) -> None:
    """Add up what the compressed buffers of an Arrow message unpack into."""
    if not found.compressed:
        return
    places = [found.size + offset for offset, length in found.buffers if length >= 8]
    sizes = [struct.unpack_from("<q", raw, place)[0] for place in places if place + 8 <= len(raw)]
    check_size(max([sum(size for size in sizes if size != -1), *map(abs, sizes)], default=0), len(raw), path)
