"""Values that have no parts, as bytes, and how bytes are put together."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import xxhash


def join(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Put parts together such that no other parts give the same bytes."""
    pieces = [tag, b"("]
    for part in parts:
        pieces += (b"%d:" % len(part), part)
    pieces.append(b")")
    return b"".join(pieces)


def hexdigest(raw: bytes) -> str:
    """Give the 128-bit XXH3 of bytes, as 32 hexadecimal digits."""
    return str(xxhash.xxh3_128_hexdigest(raw))


def of_text(value: str) -> bytes:
    """Encode text, with its length."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(raw), raw)


def of_bytes(value: bytes) -> bytes:
    """Encode bytes; many of them by their digest."""
    raw = value if len(value) < 1024 else xxhash.xxh3_128_digest(value)
    return b"b%d:%b" % (len(value), raw)


ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    type(...): lambda value: b".",
    type(NotImplemented): lambda value: b"!",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%x;" % value,
    float: lambda value: b"f" + struct.pack("<d", value),
    complex: lambda value: b"c" + struct.pack("<dd", value.real, value.imag),
    str: of_text,
    bytes: of_bytes,
    bytearray: lambda value: b"B" + of_bytes(bytes(value)),
}
"""The encoder of each type; subclasses have more to say than this."""
