"""Arrays that the cache has handed out: their content is known, so that they are keyed without reading them.

Such an array is read only, and so is the memory behind it. What is known of it counts for as long as the file
that it is mapped from is as it was when it was read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Known(NamedTuple):
    owner: weakref.ref[NDArray[Any]]
    digest: bytes
    unchanged: Callable[[], bool]


_known: dict[int, _Known] = {}


def remember(owner: NDArray[Any], digest: bytes, unchanged: Callable[[], bool] = lambda: True) -> None:
    """Note the digest of the bytes of an array of which only views are handed out.

    Parameters
    ----------
    owner : ndarray
        C-contiguous and read only.
    digest : bytes
        XXH3-128 of its bytes.
    unchanged : callable
        Tells whether what lies behind its memory is still what it was.
    """
    number = id(owner)
    known = weakref.ref(owner, lambda _gone: _known.pop(number, None))
    _known[number] = _Known(known, digest, unchanged)


def digest_of(array: NDArray[Any]) -> bytes | None:
    """Give the digest of the bytes of an array if it is all of one that was handed out, and unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> owner = np.arange(3.0)
    >>> owner.flags.writeable = False
    >>> remember(owner, b"digest")
    >>> digest_of(owner.view()), digest_of(owner[1:]), digest_of(owner.copy())
    (b'digest', None, None)
    """
    if array.flags.writeable:
        return None
    known = _known.get(id(array)) or _known.get(id(array.base))
    owner = None if known is None else known.owner()
    if known is None or owner is None or owner.flags.writeable or not _is_all_of(array, owner):
        return None
    return known.digest if known.unchanged() else None


def _is_all_of(array: NDArray[Any], owner: NDArray[Any]) -> bool:
    return (
        array.flags.c_contiguous
        and array.dtype == owner.dtype
        and array.nbytes == owner.nbytes
        and array.__array_interface__["data"][0] == owner.__array_interface__["data"][0]
    )
