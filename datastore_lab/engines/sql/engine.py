"""Stores in SQL databases."""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from datastore_lab import media
from datastore_lab.engines.sql import address, arrays, care, mending, opening, reading, space, walk
from datastore_lab.engines.sql.append import SQLAppender, empty_record
from datastore_lab.engines.sql.change import Change
from datastore_lab.engines.sql.connect import PATIENCE, Database
from datastore_lab.engines.sql.faults import Again, translated
from datastore_lab.engines.sql.locks import ServerLocks
from datastore_lab.engines.sql.lookup import Described, Lookup
from datastore_lab.errors import (
    Corrupt,
    EngineError,
    Locked,
    NotFound,
    ReadOnly,
)
from datastore_lab.keys import Key, check
from datastore_lab.records import (
    COMPACT_ABOVE,
    GROUP,
    Problem,
    Record,
    Repair,
    Selection,
    Stat,
    Traits,
    check_compact_above,
    check_durability,
    check_record,
    refusals,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import sqlalchemy as sa
    from numpy.typing import NDArray

T = TypeVar("T")
_TRIES = 8


class SQLEngine:
    """A store in a database: a SQLite file, PostgreSQL or MariaDB.

    Every transaction waits for its turn, so that several processes may have the store open for changes.

    Parameters
    ----------
    path : str or path-like
        A file for SQLite, or a URL: ``postgresql+psycopg://user@host/database``,
        ``mariadb+pymysql://user@host/database``. ``?lab=name`` keeps several stores in one database.
    mode : {"a", "r", "r+", "w", "x"}
        As in h5py; ``"w"`` empties the store, and leaves others in the same database alone.
    timeout : float, default 0.0
        How long to wait for the transaction of another writer, in seconds, if that is more than `PATIENCE`.
    durability : {"disk", "process"}
        What a commit survives. The settings of a server may promise less than ``"disk"``.
    compact_above : float or None, default 0.5
        When a SQLite file is closed and more than this share of it, and at least 64 MB, is free, `compact` is
        called; None leaves it to the caller. Of no effect on a server, which uses what is free by itself.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> engine = SQLEngine(pathlib.Path(folder.name) / "lab.sqlite")
    >>> engine.write(("a",), Record("array", {"data": np.arange(3)}, {}, {}))
    >>> engine.read(("a",), "data", (slice(1, None),))
    array([1, 2])
    >>> engine.close(); folder.cleanup()
    """

    traits: ClassVar[Traits] = Traits(
        label="SQL",
        structure="hierarchy in tables",
        compresses=True,
        appends=True,
        hierarchical=True,
        n_dimensional=True,
        self_describing=True,
        parallel_write=True,
        cloud=False,
        opens_in=("SQL clients (names and attributes)",),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        timeout: float = 0.0,
        durability: str = "disk",
        compact_above: float | None = COMPACT_ABOVE,
    ) -> None:
        self._compact_above = check_compact_above(compact_above)
        self._streams: weakref.WeakSet[SQLAppender] = weakref.WeakSet()
        place = address.parse(path)
        self._url, self._writable = place.shown, mode != "r"
        self._lock = threading.RLock()
        self._change: Change | None = None
        self._owner: int | None = None
        self._closed = False
        self._described = Described()
        self._sound: dict[int, tuple[int, int]] = {}
        self._database = Database(
            place,
            writable=self._writable,
            patience=max(timeout, PATIENCE),
            durable=check_durability(durability),
        )
        self._locks = ServerLocks(self._database)
        try:
            self._store = opening.open_store(self._database, mode)
        except BaseException:
            self._database.leave()
            raise

    @property
    def url(self) -> str:
        """Where it is, without password: opened again, that has to come from elsewhere."""
        return self._url

    @property
    def writable(self) -> bool:
        return self._writable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    # -- reading ------------------------------------------------------------------------------------

    def keys(self, prefix: Key = ()) -> Iterator[Key]:
        yield from walk.keys(self._reading, check(prefix))

    def children(self, prefix: Key = ()) -> Iterator[str]:
        yield from walk.children(self._reading, check(prefix))

    def stat(self, key: Key) -> Stat:
        check(key)
        return self._look(lambda lookup: lookup.node(key, self._described)).stat

    def read(self, key: Key, name: str, selection: Selection = ()) -> NDArray[Any]:
        check(key)
        return self._look(lambda lookup: reading.one(lookup, key, name, selection, self._described))

    def read_whole(self, key: Key) -> Record:
        check(key)
        return self._look(lambda lookup: reading.whole(lookup, key))

    def revision(self) -> int:
        return self._look(reading.revision)

    @property
    def layout(self) -> int | None:
        return self._look(reading.layout)

    def fingerprint(self, key: Key) -> str:
        with self._reading() as lookup:
            return lookup.fingerprint(check(key))

    def _look(self, action: Callable[[Lookup], T]) -> T:
        """Look at one node without a transaction around it, which takes longer than what is asked.

        Numbers of nodes and arrays are never used again, and everything is bound to its number. So what
        several statements found is as it was when the first one ran, or something is missing or does not
        fit; then it is looked at again, in one snapshot.
        """
        if not self._is_changing():
            with suppress(NotFound, Corrupt):
                return self._database.look(lambda connection: action(self._lookup(connection, brief=True)))
        with self._reading() as lookup:
            return action(lookup)

    def _lookup(self, connection: sa.Connection, *, brief: bool = False) -> Lookup:
        return Lookup(connection, self._store, self._url, brief=brief)

    @contextmanager
    def _reading(self) -> Iterator[Lookup]:
        """Read within one's own transaction, or else what was last committed."""
        if self._is_changing() and self._change is not None:
            with self._failing(self._change):
                yield self._lookup(self._change.connection)
            return
        with self._database.reading() as connection:
            yield self._lookup(connection)

    def _is_changing(self) -> bool:
        """Whether this thread has a transaction open."""
        self._check_open()
        return self._change is not None and self._owner == threading.get_ident()

    @property
    def _is_closed(self) -> bool:
        return self._closed

    # -- changing -----------------------------------------------------------------------------------

    def write(self, key: Key, record: Record) -> None:
        check_record(record)
        self._check_json(record.meta)
        check(key)
        data = {name: arrays.storable(array) for name, array in record.arrays.items()}
        names = {*data, *(dim for name in data for dim in record.dims.get(name, ()))}

        def put(change: Change) -> None:
            change.check_names(key, names)
            change.put(key, record, data)

        self._apply(put)

    def update(self, key: Key, meta: Mapping[str, Any], *, drop: tuple[str, ...] = ()) -> None:
        self._check_json(meta)
        check(key)
        self._apply(lambda change: change.merge(key, meta, drop))

    def move(self, old: Key, new: Key) -> None:
        for key in (old, new):
            refusals.refuse_root(check(key), self._url)
        self._apply(lambda change: change.move(old, new))

    def delete(self, key: Key) -> None:
        refusals.refuse_root(check(key), self._url)
        self._apply(lambda change: change.delete(key))

    def append(self, key: Key, spec: Stat) -> SQLAppender:
        record = empty_record(spec)
        check_record(record)
        self._check_json(spec.meta)
        check(key)
        names = {*record.arrays, *(dim for dims in record.dims.values() for dim in dims)}

        def begin(change: Change) -> SQLAppender:
            change.check_names(key, names)
            own = change.find(key)
            if own is not None and own.kind != GROUP:
                raise refusals.record_at(key, self._url)
            return SQLAppender(self, key, change.begin(key, record))

        with self._lock:
            appender = self._apply(begin)
            self._streams.add(appender)
            self._when_undone(appender.growth.undo)
        return appender

    def _when_undone(self, action: Callable[[], None]) -> None:
        """Call something if the transaction at hand is undone; to be called with the lock held."""
        if self._change is not None:
            self._change.undo.append(action)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            if self._change is not None:
                self._check_open()
                yield
                return
            try:
                with self._begun():
                    yield
            except Again:
                raise Locked(
                    f"{self._url}: the database undid this transaction because another one was in its way; "
                    "run it again",
                    key=self._url,
                ) from None

    def _apply(self, action: Callable[[Change], T]) -> T:
        """Do one thing in a transaction of its own, or in the one that is open."""
        with self._lock:
            self._refuse_read_only()
            if self._change is not None:
                with self._failing(self._change):
                    return action(self._change)
            for _ in range(_TRIES):
                try:
                    with self._begun() as change:
                        return action(change)
                except Again:
                    continue
        raise Locked(f"{self._url}: too many others change the store at once; try again", key=self._url)

    @contextmanager
    def _begun(self) -> Iterator[Change]:
        self._refuse_read_only()
        change = None
        try:
            with self._database.changing() as connection:
                change = self._change = Change(connection, self._store, self._url, self._sound)
                self._owner = threading.get_ident()
                yield change
                self._check_not_closed_inside()
                change.finish()
        except BaseException:
            for undo in reversed(change.undo if change else []):
                undo()
            raise
        finally:
            self._change = self._owner = None

    @contextmanager
    def _failing(self, change: Change) -> Iterator[None]:
        """Note that the open transaction can only be undone, unless a change was refused before it began."""
        if change.failed is not None:
            raise EngineError(
                f"{self._url}: an earlier change of this transaction failed ({change.failed!r}); it can only "
                "be undone",
                key=self._url,
            ) from change.failed
        with self._database.uninterrupted():  # Ctrl-C comes when it is done
            before = change.steps
            try:
                yield
            except BaseException as error:
                stopped = isinstance(error, SQLAlchemyError) or not isinstance(error, Exception)
                if stopped or change.steps != before:
                    change.failed = error
                if isinstance(error, SQLAlchemyError):
                    raise translated(error, self._database.address) from None
                raise

    def _check_not_closed_inside(self) -> None:
        if self._closed:
            raise EngineError(
                f"{self._url} was closed inside a transaction, which was undone; close it after the "
                "transaction",
                key=self._url,
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineError(f"{self._url} is closed; open it again", key=self._url)

    def _refuse_read_only(self) -> None:
        self._check_open()
        if not self._writable:
            raise ReadOnly(
                f"{self._url} was opened for reading; open it with mode 'a' to change it", key=self._url
            )

    def _check_json(self, meta: Mapping[str, Any]) -> None:
        media.check_json(meta)

    # -- care ---------------------------------------------------------------------------------------

    def verify(self, key: Key = ()) -> Iterator[Problem]:
        yield from care.verify(self._database, self._reading, check(key))

    def repair(self, key: Key = (), *, accept: bool = False) -> Iterator[Repair]:
        self._refuse_read_only()
        with self._lock:
            mender = mending.Mender(self._database, self._store, self._reading, self._raw, accept=accept)
            yield from mender.run(check(key))

    def _raw(self, action: Callable[[sa.Connection], T]) -> T:
        """Change rows as such; the store's own counters need not be well."""
        if self._change is not None:
            raise EngineError(f"{self._url}: repair after the transaction, not inside it", key=self._url)
        with self._database.changing() as connection:
            return action(connection)

    def lock(self, name: str) -> AbstractContextManager[bool] | None:
        self._check_open()
        return None if self._database.is_sqlite else self._locks.lock(name)

    def compact(self) -> int:
        self._refuse_read_only()
        with self._lock:
            if self._change is not None:
                raise EngineError(f"{self._url}: compact after the transaction, not inside it", key=self._url)
            return mending.compact(self._database, self._store)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._is_quiet():
                space.give_back(self._database, self._store, self._compact_above)
            self._closed = True
            self._locks.close()
            self._database.close()

    def _is_quiet(self) -> bool:
        """Whether nothing but the closing is going on: no transaction, no stream."""
        return self._writable and self._change is None and all(one.growth.closed for one in self._streams)
