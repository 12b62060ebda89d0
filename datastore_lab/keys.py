"""Keys: where a record lives in the tree.

A key is a tuple of non-empty text parts, from the root down; the root itself is ``()``. Any text is
allowed in a part: engines escape what their medium can't hold. For people there is the path form
``"run/camera"``, which has no escapes: a part that contains ``/``, or that is ``.`` or ``..``, can only
be given as a tuple.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from datastore_lab.errors import BadKey

Key: TypeAlias = tuple[str, ...]
"""A node of the tree, from the root down; ``()`` is the root."""

KeyLike: TypeAlias = str | Sequence[str]
"""What users may write where a key is wanted: ``"a/b"`` or ``("a", "b")``."""

_CLIMBING = {".", ".."}

DEEPEST = 200
"""Largest number of parts in a key."""


def parse(path: KeyLike) -> Key:
    """Turn what a user wrote into a key.

    Parameters
    ----------
    path : str or sequence of str
        ``"a/b"`` is split at the slashes; one leading and one trailing slash are ignored. The parts of
        a sequence are taken as they are.

    Returns
    -------
    Key
        The parts, from the root down.

    Raises
    ------
    BadKey
        If a part is empty, not text, or not encodable (a lone surrogate), or if a path string contains
        ``.`` or ``..``.

    Examples
    --------
    >>> parse("run/camera")
    ('run', 'camera')
    >>> parse(("a/b", ".."))
    ('a/b', '..')
    >>> parse("/")
    ()
    """
    if not isinstance(path, str):
        return check(path)
    trimmed = path.removeprefix("/").removesuffix("/")
    parts = tuple(trimmed.split("/")) if trimmed else ()
    if path == "" or "" in parts:
        raise BadKey(f"the path {path!r} has an empty part; write 'a/b', or () for the root", key=path)
    if climbing := _CLIMBING.intersection(parts):
        raise BadKey(
            f"the path {path!r} contains {climbing.pop()!r}, which could leave the store; "
            "give the parts as a tuple if that really is the name",
            key=path,
        )
    return check(parts)


def check(parts: Sequence[str]) -> Key:
    """Check the parts of a key and return them as a tuple.

    Raises
    ------
    BadKey
        If a part is empty, not text, or holds a lone surrogate, or if there are more than `DEEPEST` parts.

    Examples
    --------
    >>> check(["a", "b"])
    ('a', 'b')
    """
    if not isinstance(parts, (tuple, list)):
        raise BadKey(f"a key is text or a tuple of text, not {type(parts).__name__}", key=parts)
    if len(parts) > DEEPEST:
        raise BadKey(f"a key has at most {DEEPEST} parts, not {len(parts)}; join some of them", key=parts[:3])
    for part in parts:
        if not (type(part) is str and part and part.isascii()):  # as most are
            _check_part(part, parts)
    return tuple(parts)


def _check_part(part: object, parts: Sequence[str]) -> None:
    if not isinstance(part, str):
        raise BadKey(
            f"part {part!r} of the key {tuple(parts)!r} is {type(part).__name__}, not text", key=parts
        )
    if not part:
        raise BadKey(f"the key {tuple(parts)!r} has an empty part", key=parts)
    try:
        part.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadKey(
            f"part {part!r} of the key {tuple(parts)!r} holds a lone surrogate", key=parts
        ) from error


def show(key: Key) -> str | Key:
    """Give a key in the form that a user would write: a path where that is unambiguous.

    ``parse(show(key)) == key`` holds for every key.

    Examples
    --------
    >>> show(("run", "camera"))
    'run/camera'
    >>> show(("a/b", "c"))
    ('a/b', 'c')
    """
    if not key or any("/" in part or part in _CLIMBING for part in key):
        return key
    return "/".join(key)
