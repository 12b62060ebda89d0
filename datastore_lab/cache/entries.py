"""Where results lie in a store, and what stands beside them.

An entry is the record at ``("cache", <function>, <key>)``, readable by any tool that opens the file, with
the attributes ``function``, ``created`` (UTC), ``seconds`` (what it took), ``nbytes``, ``arguments`` (as
text, for people), ``parts`` (the digest of everything that the key is made of) and ``checksum`` (of the
content).
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab import media, objects
from datastore_lab.cache.walk import digest
from datastore_lab.errors import Corrupt, LabError, NotFound, ReadOnly
from datastore_lab.records import CODEC_STATE, Record
from datastore_lab.store import Store, open_store

if TYPE_CHECKING:
    from datastore_lab.keys import Key

PREFIX = "cache"


class CacheWarning(UserWarning):
    """Something kept the cache from keeping a result, or from giving one; the value itself is right."""


class Found(NamedTuple):
    """A stored result and its attributes."""

    value: Any
    attrs: dict[str, Any]


class Home:
    """The store of a cache: given, or opened on first use.

    Parameters
    ----------
    storage : Store, path or None
        None is a memory store of its own.
    """

    def __init__(self, storage: Store | str | os.PathLike[str] | None) -> None:
        self._given = storage
        self._store = storage if isinstance(storage, Store) else None
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """The store; a place that can't be written is opened for reading."""
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    def _open(self) -> Store:
        place = "memory://" if self._given is None else self._given
        assert not isinstance(place, Store)
        try:
            return open_store(place)
        except ReadOnly:
            return open_store(place, "r")


def entry_key(owner: str, key: str) -> Key:
    """Give the place of one entry."""
    return (PREFIX, owner, key)


def fetch(store: Store, key: Key) -> Found | None:
    """Read an entry; None if there is none, or if it is damaged, which is warned about.

    Returns
    -------
    Found or None
        The value is the caller's own: changing it changes nothing in the store.
    """
    try:
        record = store.record(key)
    except NotFound:
        return None
    except (Corrupt, OSError) as error:
        _damaged(store, key, str(error))
        return None
    attrs = dict(record.meta)
    if "checksum" not in attrs:
        return None  # (a group of entries, or a record that is not ours)
    if attrs["checksum"] != checksum(record):
        _damaged(store, key, "its content is not what was stored")
        return None
    try:
        return Found(objects.decode(objects.without_attributes(record)), attrs)
    except LabError as error:
        _damaged(store, key, str(error))
        return None


def keep(store: Store, key: Key, value: Any, attrs: Mapping[str, Any]) -> int:
    """Store a value with attributes; returns its size in bytes.

    Raises
    ------
    NotStorable
        Naming the path inside the value.
    """
    record = objects.encode(value)
    size = nbytes(record)
    own = {**attrs, "nbytes": size, "checksum": checksum(record)}
    store.write(key, objects.with_attributes(record, own))
    return size


def checksum(record: Record) -> str:
    """Digest what a record's value is decoded from."""
    state = media.to_json(record.meta.get(CODEC_STATE), sort=True)
    return digest([record.kind, state, dict(record.arrays)], "the record")


def nbytes(record: Record) -> int:
    """Give the size of the arrays of a record in memory, in bytes."""
    return sum(int(array.nbytes) for array in record.arrays.values())


def listed(store: Store, owner: str) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Yield the entries of a function, without reading results."""
    try:
        names = list(store.children((PREFIX, owner)))
    except NotFound:
        return
    for name in names:
        key = entry_key(owner, name)
        attrs = dict(store.stat(key).meta)
        if "checksum" in attrs:
            yield key, attrs


def now() -> str:
    """Give the time in UTC as text, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Say in words how two sets of parts differ.

    Examples
    --------
    >>> compare({"code of f": "1", "version of x": "2.4.5"}, {"code of f": "2", "version of x": "2.4.6"})
    ['code of f changed', 'version of x 2.4.5 → 2.4.6']
    """
    differences = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None:
            differences.append(f"{name} is new")
        elif new is None:
            differences.append(f"{name} is gone")
        elif old != new:
            differences.append(
                f"{name} {old} → {new}" if name.startswith("version of") else f"{name} changed"
            )
    return differences


def why(store: Store, owner: str, key: str, parts: Mapping[str, str]) -> str:
    """Say why a call misses, against the entry of the same function that differs least."""
    if entry_key(owner, key) in store:
        return "this call is in the cache"
    known: list[list[str]] = [compare(attrs.get("parts", {}), parts) for _, attrs in listed(store, owner)]
    if not known:
        return f"nothing of {owner} is in the cache yet"
    _, nearest = min((len(found), found) for found in known)
    return "; ".join(nearest) or "the entry was written by another version of the cache"


def warn(message: str, depth: int = 3) -> None:
    """Warn the caller of the cache."""
    warnings.warn(message, CacheWarning, stacklevel=depth)


def _damaged(store: Store, key: Key, what: str) -> None:
    warn(f"the cache entry {'/'.join(key)} of {store.url} is damaged and will be computed again: {what}", 6)
