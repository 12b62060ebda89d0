"""Arrays that the cache has handed out: their content is known, so that they are keyed without reading them.

Such an array is read only, and so is the memory behind it. What is known of it counts for as long as the file
that it is mapped from is as it was when it was read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Known(NamedTuple):
    memory: weakref.ref[NDArray[Any]]
    start: int
    nbytes: int
    dtype: np.dtype[Any]
    digest: bytes
    unchanged: Callable[[], bool]


_known: dict[int, _Known] = {}
"""By the number of the array that holds the memory, which views of views name as their base."""


def protected(array: NDArray[Any]) -> NDArray[Any]:
    """Let nobody write to an array that is the cache's own, nor to the one whose memory it uses.

    Returns
    -------
    ndarray
        The same, or a copy where the memory is a buffer that could still be written to.
    """
    memory = _memory(array)
    if memory.base is not None and not _is_read_only(memory.base):
        array = memory = array.copy()
    array.flags.writeable = memory.flags.writeable = False
    return array


def remember(array: NDArray[Any], digest: bytes, unchanged: Callable[[], bool] = lambda: True) -> None:
    """Note the digest of the bytes of an array of which only views are handed out.

    Parameters
    ----------
    array : ndarray
        C-contiguous and protected.
    digest : bytes
        XXH3-128 of its bytes.
    unchanged : callable
        Tells whether what lies behind its memory is still what it was.
    """
    memory = _memory(array)
    number = id(memory)
    known = weakref.ref(memory, lambda _gone: _known.pop(number, None))
    _known[number] = _Known(known, _start(array), array.nbytes, array.dtype, digest, unchanged)


def digest_of(array: NDArray[Any]) -> bytes | None:
    """Give the digest of the bytes of an array if it is all of one that was handed out, and unchanged.

    Examples
    --------
    >>> own = protected(np.arange(3.0))
    >>> remember(own, b"digest")
    >>> digest_of(own.view()), digest_of(own[1:]), digest_of(own.copy())
    (b'digest', None, None)
    """
    if array.flags.writeable or not array.flags.c_contiguous:
        return None
    memory = _memory(array)
    known = _known.get(id(memory))
    if known is None or known.memory() is not memory or memory.flags.writeable:
        return None
    same = (_start(array), array.nbytes, array.dtype) == (known.start, known.nbytes, known.dtype)
    return known.digest if same and known.unchanged() else None


def is_own(array: NDArray[Any]) -> bool:
    """Tell whether an array uses the memory of one that the cache has handed out."""
    memory = _memory(array)
    known = _known.get(id(memory))
    return known is not None and known.memory() is memory


def _is_read_only(buffer: Any) -> bool:
    try:
        return memoryview(buffer).readonly
    except TypeError:
        return False


def _memory(array: NDArray[Any]) -> NDArray[Any]:
    """Give the array whose memory another one uses."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _start(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
