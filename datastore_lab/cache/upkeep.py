"""What keeps a cache in order: listing it, and deleting what is too old, too much, damaged or left over."""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from datastore_lab.cache import entries, why
from datastore_lab.cache.index import Index, Line, line_of
from datastore_lab.errors import LabError, NotFound

if TYPE_CHECKING:
    from datastore_lab.cache.place import Place
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

_WAITING = 512
"""So many notes wait in memory before they are written into the list."""

_NOTHING = "nothing"
"""Names the state of a place where nothing was kept yet."""

_WASTE = 16 << 20
"""Deleted bytes that are not worth writing a file anew for."""


class Swept(NamedTuple):
    """What was deleted.

    Attributes
    ----------
    entries : int
    nbytes : int
        What they took in memory.
    left_over : int
        Parts of entries, and states of code, that nothing refers to.
    given_back : int
        Bytes that the store's file is smaller now.
    """

    entries: int = 0
    nbytes: int = 0
    left_over: int = 0
    given_back: int = 0


class Upkeep:
    """The list of a cache, and its broom.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._index = Index(_index_path(place))
        self._used: dict[tuple[str, str], float] = {}
        self._lock = threading.RLock()
        self._waste = 0
        _all.add(self)

    # -- notes ----------------------------------------------------------------------------------------

    def use(self, owner: str, key: str) -> None:
        """Note that an entry was used just now."""
        self._used[owner, key] = time.time()
        if len(self._used) > _WAITING:
            self.write()

    @contextlib.contextmanager
    def changing(self, *, put: Iterable[Line] = (), drop: Iterable[tuple[str, str]] = ()) -> Iterator[None]:
        """Note what a change of the store does, once it is done.

        If the list was right before, it is right afterwards: what others change meanwhile they note
        themselves. A list that can't be written is put right later.
        """
        before = self._is_right()
        yield
        with contextlib.suppress(sqlite3.Error, OSError):
            self._index.drop(drop)
            self._index.put(put)
            if before and (store := self._place.reading()) is not None:
                self._index.see(_token(store))

    def _is_right(self) -> bool:
        """Tell whether the list was put right for what is in the store now."""
        with contextlib.suppress(sqlite3.Error, OSError, LabError):
            store = self._place.reading()
            return self._index.seen(_NOTHING if store is None else _token(store))
        return False

    def write(self) -> None:
        """Write what was noted into the list; one that can't be written is put right later."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError):
            used, self._used = self._used, {}
            if used:
                self._index.use(used)

    def close(self) -> None:
        """Close the list, until it is needed again."""
        self._index.close()

    # -- lists ----------------------------------------------------------------------------------------

    def lines(self, owner: str | None = None) -> list[Line]:
        """List the entries as they are in the store, those first that were not used for longest."""
        self.settle()
        return self._index.lines(owner)

    def settle(self) -> None:
        """Put the list right."""
        self.write()
        store = self._place.reading()
        token = _NOTHING if store is None else _token(store)
        if self._index.seen(token):
            return
        present = set() if store is None else owners(store)
        for owner in self._index.owners() - present:
            self._index.drop((owner, key) for key in self._index.keys(owner))
        if store is not None:
            for owner in present:
                self._settle_owner(store, owner)
        self._index.see(token)

    def _settle_owner(self, store: Store, owner: str) -> None:
        listed, there = self._index.keys(owner), set(names(store, owner))
        self._index.drop((owner, key) for key in listed - there)
        self._index.put(_lines(store, owner, there - listed))

    # -- the broom ------------------------------------------------------------------------------------

    def limit(self, max_size: int) -> Swept:
        """Delete the entries that were not used for longest, until the rest takes no more than `max_size`."""
        self.write()
        excess = self._index.total() - max_size
        if excess <= 0:
            return Swept()
        doomed: list[Line] = []
        for line in self.lines():
            if excess <= 0:
                break
            doomed.append(line)
            excess -= line.nbytes
        swept = self._delete(doomed)
        self._waste += swept.nbytes
        if self._waste > max(_WASTE, max_size // 2):
            swept = swept._replace(given_back=self.compact())
        return swept

    def sweep(self, older: float | None = None, max_size: int | None = None) -> Swept:
        """Delete what is damaged, left over, or too old by its own or by this age; give back the space."""
        now, lines = time.time(), self.lines()
        doomed = [line for line in lines if _is_old(line, now, older)]
        swept = self._delete(doomed)
        left = self._delete(self._damaged())
        swept = Swept(swept.entries + left.entries, swept.nbytes + left.nbytes, self._left_over())
        if max_size is not None:
            more = self.limit(max_size)
            swept = swept._replace(entries=swept.entries + more.entries, nbytes=swept.nbytes + more.nbytes)
        self.settle()
        return swept._replace(given_back=self.compact())

    def clear(self, owner: str | None = None) -> int:
        """Delete all entries, or those of one owner; returns how many there were."""
        doomed = self.lines(owner)
        self._delete(doomed)
        self._left_over()
        return len(doomed)

    def compact(self) -> int:
        """Give back the space of what was deleted; returns bytes."""
        if self._place.reading() is None:
            return 0
        with self._place.writing() as store:
            self._waste = 0
            return store.compact()

    def _delete(self, lines: Iterable[Line]) -> Swept:
        lines = list(lines)
        if not lines:
            return Swept()
        places = [(line.owner, line.key) for line in lines]
        with self.changing(drop=places), self._place.writing() as store, store.transaction():
            for owner, key in places:
                with contextlib.suppress(NotFound):
                    store.delete(entries.entry_key(owner, key))
        return Swept(len(lines), sum(line.nbytes for line in lines))

    def _damaged(self) -> Iterator[Line]:
        store = self._place.reading()
        for line in self._index.lines() if store is not None else ():
            assert store is not None
            if not _is_whole(store, entries.entry_key(line.owner, line.key)):
                yield line

    def _left_over(self) -> int:
        """Delete what is not part of any entry, and states of code without one."""
        store = self._place.reading()
        if store is None:
            return 0
        wanted = {line.code for line in self.lines()}
        doomed = [why.code_place(name) for name in names(store, why.CODE) if name not in wanted]
        for owner in owners(store):
            doomed += [
                entries.entry_key(owner, name) for name in names(store, owner) if _is_bare(store, owner, name)
            ]
        if doomed:
            with self._place.writing() as writable, writable.transaction():
                for place in doomed:
                    with contextlib.suppress(NotFound):
                        writable.delete(place)
        return len(doomed)


def _token(store: Store) -> str:
    """Name the state of a store."""
    return f"{store.url} {store.revision()}"


def owners(store: Store) -> set[str]:
    """Name those who have entries."""
    try:
        return set(store.children((entries.PREFIX,))) - {why.CODE}
    except NotFound:
        return set()


def names(store: Store, owner: str) -> list[str]:
    """Give the keys of the entries of an owner."""
    try:
        return list(store.children((entries.PREFIX, owner)))
    except NotFound:
        return []


def _lines(store: Store, owner: str, keys: Iterable[str]) -> Iterator[Line]:
    for key in keys:
        with contextlib.suppress(LabError):
            attrs = entries.about(store, entries.entry_key(owner, key))
            if "checksum" in attrs:
                yield line_of(owner, key, attrs)


def _is_old(line: Line, now: float, older: float | None) -> bool:
    import datetime as dt

    if line.expires is not None and line.expires <= now:
        return True
    try:
        age = now - dt.datetime.fromisoformat(line.created).timestamp()
    except ValueError:
        return older is not None
    return older is not None and age > older


def _is_bare(store: Store, owner: str, name: str) -> bool:
    """Tell whether there is no entry at the place of one: items without what belongs to them."""
    try:
        return "checksum" not in entries.about(store, entries.entry_key(owner, name))
    except NotFound:
        return False
    except LabError:
        return True


def _is_whole(store: Store, place: Key) -> bool:
    """Tell whether an entry and its items can be read and are what was stored."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", entries.CacheWarning)
        if entries.read(store, place) is None:
            return False
        try:
            below = [key for key in store.keys_below(place) if key != place]
        except LabError:
            return False
        return all(entries.read(store, key) is not None for key in below)


def _index_path(place: Place) -> Path | None:
    """Name the file of the list: beside the store, or among the user's caches."""
    if place.address.startswith("memory://"):
        return None
    name = xxhash.xxh3_64_hexdigest(place.address.encode("utf-8", "surrogatepass"))
    folder = place.folder()
    if folder is not None and os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return folder / ("index.sqlite" if place.address == place.base else f"index-{name}.sqlite")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    return home / "datastore-lab" / f"{name}.sqlite"


_all: weakref.WeakSet[Upkeep] = weakref.WeakSet()


@atexit.register
def _write_all() -> None:
    for upkeep in list(_all):
        upkeep.write()
        upkeep.close()
