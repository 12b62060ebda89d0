"""What writers are told of compression and chunks: each what it can do, and nothing passes unheard."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NAMES = {"chunk_size": ("chunk_size", "batch_rows", "row_group_rows")}
"""What samples that lie together are called by writers."""


def share_out(
    options: Mapping[str, Any], writers: Sequence[tuple[str, Callable[..., Any]]]
) -> list[dict[str, Any]]:
    """Give each writer what it knows of some options.

    Parameters
    ----------
    options : mapping of str to value
    writers : sequence of (str, callable)
        What each writes, and what makes it.

    Returns
    -------
    list of dict
        Keyword arguments, in the order of the writers.

    Raises
    ------
    ValueError
        If none of them knows an option.

    Examples
    --------
    >>> def packed(path, *, compression=None): ...
    >>> def plain(path, batch_rows=None): ...
    >>> share_out({"compression": "gzip", "chunk_size": 9}, [("a.h5", packed), ("a.arrow", plain)])
    [{'compression': 'gzip'}, {'batch_rows': 9}]
    >>> share_out({"compression": "gzip"}, [("a.arrow", plain)])
    Traceback (most recent call last):
    ValueError: compression='gzip' is not known to what writes a.arrow; leave it out, or choose another format
    """
    known = [inspect.signature(make).parameters for _, make in writers]
    shares: list[dict[str, Any]] = [{} for _ in writers]
    for option, value in options.items():
        heard = False
        for parameters, share in zip(known, shares, strict=True):
            for name in _NAMES.get(option, (option,)):
                if name in parameters:
                    share[name], heard = value, True
        if not heard and writers and not (option == "compression" and value == "none"):
            places = ", ".join(place for place, _ in writers)
            raise ValueError(
                f"{option}={value!r} is not known to what writes {places}; leave it out, or choose another "
                "format"
            )
    return shares
