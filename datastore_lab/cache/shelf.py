"""The shelf: finds, keeps, locks, lists and evicts the entries of a cache, whoever makes their keys.

An entry has an owner (the name of a function or of cells), a key, a value, attributes, and items below it
where it consists of several values. The function cache and the cells of a notebook share one kind of shelf.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from datastore_lab import units
from datastore_lab.cache import entries, why
from datastore_lab.cache.entries import Found, Stored
from datastore_lab.cache.hashing import immutable
from datastore_lab.cache.index import Line, line_of
from datastore_lab.cache.place import Place
from datastore_lab.cache.turns import Lock, ServerLocks, Turn, file_locks
from datastore_lab.cache.upkeep import Swept, Upkeep
from datastore_lab.errors import LabError, NotFound, NotStorable
from datastore_lab.records import Locks, Record

if TYPE_CHECKING:
    from datastore_lab.cache.key import Code
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

ITEMS = "variables"
"""Where the items of an entry lie, below it."""

_AT_HAND = 4096
"""So many entries are remembered, those that were looked up last."""

_COMPARED = 1000
"""So many entries, those that were used last, are looked at to say why a call misses."""

_SMALL = 1 << 14
"""Arrays of an entry that stay in memory for as long as it is remembered, in bytes; larger ones only while
somebody uses them, unless they are mapped from the file."""


class _Known(NamedTuple):
    revision: int
    stored: Stored | None
    arrays: Mapping[str, weakref.ref[Any]]
    value: Any


class Shelf:
    """The entries of a cache in one place.

    Parameters
    ----------
    storage : Store, path or None, default None
        None is memory for this session.
    copy : bool, default False
        Give arrays as copies that can be written to, instead of views that can't.
    verify : bool, default True
        Hold an entry against its checksum the first time that this process meets it.
    lock : bool, default True
        Let processes wait for each other in `turn`; threads and tasks of this one always do.
    max_size : int, optional
        Bytes: when more is kept, the entries that were not used for longest are deleted.

    Examples
    --------
    >>> shelf = Shelf()
    >>> with shelf.turn("fit", "k1"):
    ...     size = shelf.keep("fit", "k1", {"gain": 2.0}, {"seconds": 3.1})
    >>> shelf.find("fit", "k1").value
    {'gain': 2.0}
    """

    def __init__(
        self,
        storage: Store | str | os.PathLike[str] | None = None,
        *,
        copy: bool = False,
        verify: bool = True,
        lock: bool = True,
        max_size: int | None = None,
    ) -> None:
        self.place = Place(storage)
        self.max_size = max_size
        self.copy, self.verify = copy, verify
        self._lock = lock
        self._locks: Lock | None = None
        self._known: dict[Key, _Known] = {}
        self._upkeep = Upkeep(self.place)

    @property
    def store(self) -> Store:
        """The store to look into; for writing there is ``place.writing()``."""
        return self.place.store

    # -- one entry ------------------------------------------------------------------------------------

    def find(
        self, owner: str, key: str, *, ttl: float | None = None, copy: bool | None = None
    ) -> Found | None:
        """Give an entry; None if there is none, if it is too old, or if it is damaged, which is warned about.

        Parameters
        ----------
        owner, key : str
        ttl : float, optional
            The greatest age, in seconds.
        copy : bool, optional
            Other than the shelf does it.

        Returns
        -------
        Found or None
            Changing the value changes nothing here: what it holds is new, or can't be written to.
        """
        found = self._look(entries.entry_key(owner, key), copy)
        if found is None or expired(found.attrs, ttl):
            return None
        self._upkeep.use(owner, key)
        return found

    def item(self, owner: str, key: str, name: str, *, copy: bool | None = None) -> Found | None:
        """Give one item of an entry, like `find`."""
        return self._look((*entries.entry_key(owner, key), ITEMS, name), copy)

    def keep(
        self,
        owner: str,
        key: str,
        value: Any,
        attrs: Mapping[str, Any],
        *,
        items: Mapping[str, Any] | None = None,
        code: Code | None = None,
    ) -> int:
        """Keep a value under a key, with items below it: all of it, or nothing. Replaces what is there.

        Parameters
        ----------
        owner, key : str
        value : object
        attrs : mapping of str to JSON value
            ``function``, ``created``, ``seconds``, ``arguments``, ``parts``, ``ttl`` are understood here.
        items : mapping of str to object, optional
            Values, or records from `entries.encoded`.
        code : Code, optional
            The state of the code that made the value, which is kept once for all entries made with it.

        Returns
        -------
        int
            Size in bytes.

        Raises
        ------
        NotStorable
            Naming the path inside the value.
        ReadOnly, Locked, EngineError
            If it can't be written.
        """
        below = {name: _encoded(item, {"variable": name}) for name, item in (items or {}).items()}
        own = {"created": entries.now(), **attrs}
        if items:
            own["total"] = sum(map(entries.nbytes, below.values()))
        if code is not None:
            own["code"] = code.digest
        record = entries.encoded(value, own)
        size = entries.nbytes(record) + sum(map(entries.nbytes, below.values()))
        self._refuse_too_large(size)
        line = line_of(owner, key, entries.unpacked(record.meta))
        with self._upkeep.changing(put=[line]), self.place.writing() as store, store.transaction():
            if code is not None:
                why.keep_code(store, code)
            _replace(store, entries.entry_key(owner, key), record, below)
        if self.max_size is not None:
            self._upkeep.limit(self.max_size)
        return size

    def forget(self, owner: str, key: str) -> bool:
        """Delete an entry; tells whether there was one."""
        place = entries.entry_key(owner, key)
        if not self.has(owner, key):
            return False
        gone = self._upkeep.changing(drop=[(owner, key)])
        with gone, self.place.writing() as store, contextlib.suppress(NotFound):
            store.delete(place)
        return True

    def has(self, owner: str, key: str, *, ttl: float | None = None) -> bool:
        """Tell whether there is an entry, without reading it."""
        store = self.place.reading()
        if store is None:
            return False
        try:
            attrs = entries.about(store, entries.entry_key(owner, key))
        except NotFound:
            return False
        return "checksum" in attrs and not expired(attrs, ttl)

    def turn(self, owner: str, key: str, tell: Callable[[str], None] | None = None) -> Turn:
        """Give the right to compute an entry, for ``with`` and ``async with``; then look again.

        Parameters
        ----------
        owner, key : str
        tell : callable, optional
            Is told who is waited for.
        """
        if self._lock and self._locks is None:
            self._locks = self._make_locks()
        return Turn(self.place.shared, f"{owner}\0{key}", self._locks if self._lock else None, tell)

    # -- all entries ----------------------------------------------------------------------------------

    def ls(self, owner: str | None = None) -> list[Line]:
        """List the entries, those first that were not used for longest; reads no values."""
        return self._upkeep.lines(owner)

    def size(self) -> int:
        """Give the bytes that all entries take in memory."""
        return sum(line.nbytes for line in self.ls())

    def limit(self, max_size: int) -> Swept:
        """Delete the entries that were not used for longest, until the rest takes no more than `max_size`."""
        return self._upkeep.limit(max_size)

    def gc(self, older: float | None = None, max_size: int | None = None) -> Swept:
        """Delete what is damaged, left over, too old or too much, and give back the space.

        Parameters
        ----------
        older : float, optional
            The greatest age, in seconds; entries with a `ttl` of their own go by that too.
        max_size : int, optional
            Bytes, as for `limit`.
        """
        return self._upkeep.sweep(older, max_size)

    def clear(self, owner: str | None = None) -> int:
        """Delete all entries, or those of one owner; returns how many there were."""
        return self._upkeep.clear(owner)

    def why(self, owner: str, own: Mapping[str, str], code: Code) -> str:
        """Say how a call differs from the nearest entry, see `datastore_lab.cache.why.explain`."""
        store = self.place.reading()
        if store is None:
            return f"nothing of {owner} is in the cache yet"
        latest = [line.key for line in self.ls(owner)[-_COMPARED:]]
        return why.explain(store, owner, own, code, latest)

    def accept(self, owner: str, code: Code, version: str) -> int:
        """Take the newest entries as made by the code as it is now, see `datastore_lab.cache.why.accept`."""
        if self.place.reading() is None:
            return 0
        with self.place.writing() as store:
            return why.accept(store, owner, code, version)

    # -- inside ---------------------------------------------------------------------------------------

    def _look(self, key: Key, copy: bool | None) -> Found | None:
        store = self.place.reading()
        if store is None:
            return None
        try:
            revision = store.revision()
        except (LabError, OSError):
            store = self.place.again()
            if store is None:
                return None
            revision = store.revision()
        copy = self.copy if copy is None else copy
        known = self._known.get(key)
        if known is not None and known.revision == revision:
            if known.stored is None:
                return known.value  # type: ignore[no-any-return]
            if (stored := _revived(known)) is not None and stored.unchanged():
                return Found(stored.value(copy=copy), stored.attrs)
        return self._read(store, key, revision, copy=copy)

    def _read(self, store: Store, key: Key, revision: int, *, copy: bool) -> Found | None:
        stored = entries.read(store, key, verify=self.verify)
        if stored is None:
            self._known.pop(key, None)
            return None
        try:
            found = Found(stored.value(copy=copy), stored.attrs)
        except LabError as error:
            entries.damaged(store, key, str(error))
            return None
        if len(self._known) >= _AT_HAND:
            self._known.clear()
        self._known[key] = _known(revision, stored, found)
        return found

    def _refuse_too_large(self, size: int) -> None:
        if self.max_size is not None and size > self.max_size:
            what = units.format_size(size), units.format_size(self.max_size)
            raise NotStorable(f"it takes {what[0]}, and the whole cache may take max_size={what[1]}")

    def _make_locks(self) -> Lock | None:
        folder = self.place.folder()
        if folder is not None:
            return file_locks(folder / "locks")
        if self.place.shared == self.place.address or not isinstance(self.store.engine, Locks):
            return None
        return ServerLocks(lambda: cast("Locks", self.store.engine))


def expired(attrs: Mapping[str, Any], ttl: float | None) -> bool:
    """Tell whether an entry is older than it may be, by whoever asks or by whoever kept it."""
    own = attrs.get("ttl")
    limits = [limit for limit in (ttl, own) if limit is not None]
    return bool(limits) and entries.age(attrs) > min(limits)


def _replace(store: Store, place: Key, record: Record, below: Mapping[str, Record]) -> None:
    with contextlib.suppress(NotFound):
        if below or any(store.children(place)):
            store.delete(place)
    for name, item in below.items():
        store.write((*place, ITEMS, name), item)
    store.write(place, record)


def _encoded(item: Any, attrs: Mapping[str, Any]) -> Record:
    return item if isinstance(item, Record) else entries.encoded(item, attrs)


def _known(revision: int, stored: Stored, found: Found) -> _Known:
    if immutable(found.value):
        return _Known(revision, None, {}, found)
    if stored.in_memory <= _SMALL:
        return _Known(revision, stored, {}, None)
    weak = {name: weakref.ref(array) for name, array in stored.record.arrays.items()}
    return _Known(revision, stored._replace(record=stored.record._replace(arrays={})), weak, None)


def _revived(known: _Known) -> Stored | None:
    """Give what is known of an entry with its arrays, if they are still in memory."""
    stored = known.stored
    if stored is None or not known.arrays:
        return stored
    arrays: dict[str, Any] = {name: weak() for name, weak in known.arrays.items()}
    if any(array is None for array in arrays.values()):
        return None
    return stored._replace(record=stored.record._replace(arrays=arrays))
