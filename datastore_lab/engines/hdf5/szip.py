"""Chunks packed by szip, as HDF5's own filter of that name packs them, by the library that h5py brings along.

Called from here it lets other threads go on, which HDF5 does not. Where it is not found HDF5 does it.

Source: CCSDS 121.0-B-3; H5Zszip.c of HDF5 for the length that stands in front.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5z

TYPES = "biuf"
SIZES = (1, 2, 4, 8)
"""Kinds and sizes in bytes of the numbers that szip knows."""

PIXELS = 32
"""Numbers in a block; more than the 8 that h5py takes shrink smaller and in half the time."""

_HEAD = 4
_SAMPLE = np.arange(256, dtype=np.uint8)
_SAMPLE_VALUES = (
    h5z.SZIP_NN_OPTION_MASK | 137,
    PIXELS,
    8,
    256,
)  # (little-endian, without a header of its own)


class _Settings(ctypes.Structure):
    _fields_ = (
        ("options_mask", ctypes.c_int),
        ("bits_per_pixel", ctypes.c_int),
        ("pixels_per_block", ctypes.c_int),
        ("pixels_per_scanline", ctypes.c_int),
    )


@functools.cache
def library() -> Any:
    """Find the library; None where there is none that does what it should."""
    package = Path(h5py.__file__).parent
    for folder in (package.parent / "h5py.libs", package / ".dylibs", package):
        for path in sorted(folder.glob("libsz*")):
            try:
                found = ctypes.CDLL(str(path))
                _call(found.SZ_BufftoBuffDecompress, *_sampled(found))
            except (OSError, AttributeError, ValueError):
                continue
            return found
    return None


def _sampled(found: Any) -> tuple[Any, Any, tuple[int, ...]]:
    packed = np.empty(1024, np.uint8)
    size = _call(found.SZ_BufftoBuffCompress, packed, _SAMPLE, _SAMPLE_VALUES)
    return np.empty_like(_SAMPLE), packed[:size], _SAMPLE_VALUES


def _call(function: Any, out: Any, raw: Any, values: tuple[int, ...]) -> int:
    """Run one of its two functions; `values` are those of the filter: mask, block, bits, scanline."""
    mask, block, bits, scanline = values
    settings, size = _Settings(mask, bits, block, scanline), ctypes.c_size_t(out.nbytes)
    failed = function(
        ctypes.c_void_p(out.ctypes.data),
        ctypes.byref(size),
        ctypes.c_void_p(raw.ctypes.data),
        ctypes.c_size_t(raw.nbytes),
        ctypes.byref(settings),
    )
    if failed:
        raise ValueError(f"szip refuses it ({failed})")
    return size.value


def pack(raw: Any, values: tuple[int, ...]) -> Any:
    """Pack the bytes of a chunk."""
    out = np.empty(_HEAD + 2 * raw.nbytes + 1024, np.uint8)
    out[:_HEAD] = np.frombuffer(raw.nbytes.to_bytes(_HEAD, "little"), np.uint8)
    return out[: _HEAD + _call(library().SZ_BufftoBuffCompress, out[_HEAD:], raw, values)].tobytes()


def unpack(packed: Any, values: tuple[int, ...], size: int) -> Any:
    """Unpack a chunk that has to have so many bytes.

    Raises
    ------
    ValueError
        If it can't be unpacked, or has more or fewer.
    """
    raw, out = np.frombuffer(packed, np.uint8), np.empty(size, np.uint8)
    claimed = int.from_bytes(raw[:_HEAD].tobytes(), "little")
    if claimed != size or len(raw) <= _HEAD:
        raise ValueError(f"it claims to hold {claimed} bytes, not {size}")
    if (found := _call(library().SZ_BufftoBuffDecompress, out, raw[_HEAD:], values)) != size:
        raise ValueError(f"it holds {found} bytes, not {size}")
    return out
