"""crc32c, without keeping the other threads waiting while a large buffer is summed up."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np

_LARGE = 64 << 10
_KNOWN = (b"123456789", 0xE3069283)  # RFC 3720, B.4, has the polynomial; this is its usual check value


def crc32c(buffer: Any) -> bytes:
    """Give the crc32c of a buffer, as the four bytes that end a chunk of Zarr.

    Examples
    --------
    >>> crc32c(b"123456789").hex()
    '839206e3'
    """
    raw = np.frombuffer(buffer, np.uint8)
    extend = _library() if raw.nbytes >= _LARGE else None
    value: int = google_crc32c.value(raw) if extend is None else extend(0, raw.ctypes.data, raw.nbytes)
    return value.to_bytes(4, "little")


@functools.cache
def _library() -> Callable[[int, Any, int], int] | None:
    """Find the C function that the package calls; None where it is linked in another way.

    The package keeps Python's lock while it counts, and ctypes does not.
    """
    module = getattr(google_crc32c, "_crc32c", None)
    try:
        extend = ctypes.CDLL(module.__file__).crc32c_extend  # type: ignore[union-attr]
    except (AttributeError, OSError, TypeError):
        return None
    extend.restype = ctypes.c_uint32
    extend.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t]
    sample, expected = _KNOWN
    return extend if extend(0, sample, len(sample)) == expected else None
