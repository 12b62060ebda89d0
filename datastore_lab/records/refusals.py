"""The errors that every engine raises alike: each names the key, the store and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datastore_lab.errors import AlreadyExists, BadKey, NotFound
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from collections.abc import Iterable


def nothing_at(key: Key, url: str) -> NotFound:
    """Make the error for a key that holds nothing.

    Examples
    --------
    >>> print(nothing_at(("run", "x"), "lab.h5"))
    there is nothing at 'run/x' in lab.h5
    """
    return NotFound(f"there is nothing at {show(key)!r} in {url}", key=key)


def no_array(key: Key, name: str, names: Iterable[str], url: str) -> NotFound:
    """Make the error for an array that a record does not have, but others."""
    there = sorted(names)
    return NotFound(
        f"{show(key)!r} in {url} has no array {name!r}; it has {there if there else 'none at all'}", key=key
    )


def something_at(key: Key, url: str) -> AlreadyExists:
    """Make the error for a place to move to that is taken."""
    return AlreadyExists(
        f"there is something at {show(key)!r} in {url} already; delete it first, or choose another key",
        key=key,
    )


def record_at(key: Key, url: str) -> AlreadyExists:
    """Make the error for a record that is to begin where there is one."""
    return AlreadyExists(
        f"there is a record at {show(key)!r} in {url} already; delete it first, or choose another key",
        key=key,
    )


def array_above(key: Key, depth: int, url: str) -> AlreadyExists:
    """Make the error for a key whose part at a depth is the name of an array or dimension."""
    return AlreadyExists(
        f"{show(key[:depth])!r} in {url} has an array or dimension named {key[depth]!r}, so there can be no "
        f"{show(key)!r}; choose another key",
        key=key,
    )


def child_named(key: Key, name: str, url: str) -> AlreadyExists:
    """Make the error for an array or dimension with the name of a child."""
    return AlreadyExists(
        f"{show(key)!r} in {url} has a child named {name!r}, so that no array or dimension of it can have "
        "this name; choose another one",
        key=key,
    )


def into_itself(old: Key, new: Key, url: str) -> BadKey:
    """Make the error for a move to a place below."""
    return BadKey(
        f"{show(old)!r} in {url} can't be moved into itself, to {show(new)!r}; move it elsewhere first",
        key=new,
    )


def refuse_root(key: Key, url: str) -> None:
    """Raise `BadKey` for the root, where no record may be."""
    if not key:
        raise BadKey(f"the root of {url} holds no record and can't be moved or deleted; give a name", key=key)
