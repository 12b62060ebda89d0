"""Saying what there is like it, where there is nothing at a key."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datastore_lab.errors import LabError, NotFound
from datastore_lab.keys import Key, show

if TYPE_CHECKING:
    from datastore_lab.records import Engine

_MOST = 300
"""Names that are looked at: a mistake must not cost the listing of a large store."""

_LONGEST = 100


@contextmanager
def explained(engine: Engine, key: Key, seen_from: int = 0) -> Iterator[None]:
    """Let `NotFound` of a key name the store and what is there under a similar name.

    Parameters
    ----------
    engine : Engine
    key : Key
        As the engine knows it.
    seen_from : int, default 0
        How many of its parts the user did not give, but the view that was asked.
    """
    try:
        yield
    except NotFound as error:
        if not key or error.key != key:
            raise
        raise NotFound(_words(engine, key, seen_from), key=key) from None


def _words(engine: Engine, key: Key, seen_from: int) -> str:
    found, missing = f"there is nothing at {show(key)!r} in {engine.url}", 0
    try:
        missing = _first_missing(engine, key)
        names = _like(engine, key[:missing], key[missing])
    except LabError:  # the place itself is damaged: what was asked for is not there all the same
        names = []
    meant = [repr(show((*key[seen_from:missing], name, *key[missing + 1 :]))) for name in names]
    if meant and missing >= seen_from:
        return f"{found}; did you mean {' or '.join(meant)}?"
    return f"{found}; list(store) gives the keys, store.children() one level of them"


def _first_missing(engine: Engine, key: Key) -> int:
    """Give the number of the first part that leads nowhere."""
    for depth in range(1, len(key)):
        try:
            engine.stat(key[:depth])
        except NotFound:
            return depth - 1
    return len(key) - 1


def _like(engine: Engine, above: Key, name: str) -> list[str]:
    names = [found for found in itertools.islice(engine.children(above), _MOST) if len(found) <= _LONGEST]
    alike = [found for found in names if found != name and found.casefold() == name.casefold()]
    return alike or difflib.get_close_matches(name[:_LONGEST], names, n=3)
