"""A list of what is in a cache, so that listing and evicting need not open every entry.

It is a SQLite file beside the store, written after the fact and never the truth: whether an entry is there
is asked of the store, and what the list lacks, or has too much, is put right when it is next looked at. It
may be deleted at any time; only when results were last used is then forgotten.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datastore_lab import media

_LAYOUT = 2
_PUT = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LINES = "SELECT * FROM entry ORDER BY used"
_LINES_OF = "SELECT * FROM entry WHERE owner = ? ORDER BY used"


class Line(NamedTuple):
    """What is said of an entry in a list.

    Attributes
    ----------
    owner, key : str
    nbytes : int
        Of the value, its items and its attributes.
    created : str
        UTC, ISO 8601.
    seconds : float
        How long it took to compute.
    arguments : str
        For people: the arguments of a function, the variables of a cell.
    code : str
        Digest of the state of the code that made it.
    expires : float or None
        When it is too old by its own `ttl`, in seconds since 1970.
    used : float
        When it was last used, in seconds since 1970.
    """

    owner: str
    key: str
    nbytes: int
    created: str
    seconds: float
    arguments: str
    code: str
    expires: float | None
    used: float


def line_of(owner: str, key: str, attrs: Mapping[str, Any], used: float | None = None) -> Line:
    """Make the line of an entry from its attributes."""
    import datetime as dt

    created = str(attrs.get("created", ""))
    try:
        since = dt.datetime.fromisoformat(created).timestamp()
    except ValueError:
        since = 0.0
    ttl = attrs.get("ttl")
    about = attrs.get("arguments") or ", ".join(map(str, attrs.get("variables", ())))
    return Line(
        owner,
        key,
        int(attrs.get("nbytes", 0)) + int(attrs.get("total", 0)) + len(media.to_json(attrs)),
        created,
        float(attrs.get("seconds", 0.0)),
        str(about),
        str(attrs.get("code", "")),
        None if ttl is None else since + float(ttl),
        since if used is None else used,
    )


class Index:
    """The list of one cache.

    Parameters
    ----------
    path : Path or None
        The file; None keeps it in memory. One that can't be used is kept in memory too.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = -1

    def put(self, lines: Iterable[Line]) -> None:
        """Add lines, or replace them."""
        with self._changing() as connection:
            connection.executemany(_PUT, lines)

    def use(self, used: Mapping[tuple[str, str], float]) -> None:
        """Note when entries were last used."""
        rows = [(when, *place, when) for place, when in used.items()]
        with self._changing() as connection:
            connection.executemany("UPDATE entry SET used = ? WHERE owner = ? AND key = ? AND used < ?", rows)

    def drop(self, places: Iterable[tuple[str, str]]) -> None:
        """Remove lines."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM entry WHERE owner = ? AND key = ?", places)

    def keys(self, owner: str) -> set[str]:
        """Give the keys that are listed for an owner."""
        with self._looking() as connection:
            return {key for (key,) in connection.execute("SELECT key FROM entry WHERE owner = ?", (owner,))}

    def owners(self) -> set[str]:
        """Give the owners that are listed."""
        with self._looking() as connection:
            return {owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM entry")}

    def lines(self, owner: str | None = None) -> list[Line]:
        """Give the lines of an owner, or all, in the order in which they were last used."""
        with self._looking() as connection:
            rows = connection.execute(
                _LINES if owner is None else _LINES_OF, () if owner is None else (owner,)
            )
            return list(map(Line._make, rows))

    def total(self) -> int:
        """Give the bytes of all entries."""
        with self._looking() as connection:
            return int(connection.execute("SELECT coalesce(sum(nbytes), 0) FROM entry").fetchone()[0])

    def seen(self, token: str) -> bool:
        """Tell whether the list was put right when the store was in this state."""
        with self._looking() as connection:
            row = connection.execute("SELECT value FROM about WHERE name = 'seen'").fetchone()
            return row is not None and row[0] == token

    def see(self, token: str) -> None:
        """Note in which state of the store the list was put right."""
        with self._changing() as connection:
            connection.execute("INSERT OR REPLACE INTO about VALUES ('seen', ?)", (token,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                _close(self._connection, self._process)
            self._connection = None

    @contextlib.contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._connected()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Change in one transaction; a list that is damaged is begun anew."""
        with self._lock:
            connection = self._connected()
            with connection:
                yield connection

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():
            self._connection = self._connect()
            self._process = os.getpid()
            weakref.finalize(self, _close, self._connection, self._process).atexit = False
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self._path is None:
            return _prepared(":memory:")
        try:
            self._path.parent.mkdir(exist_ok=True)  # (not its parents: a place that is gone stays gone)
            return _prepared(str(self._path))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # can't be opened or written, or is in use
                return _prepared(":memory:")
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            return _prepared(str(self._path))
        except OSError:
            return _prepared(":memory:")


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():  # what the parent of this process has open is of no use here
        connection.close()


def _prepared(path: str) -> sqlite3.Connection:
    """Open a list, or make it; one of another layout is emptied."""
    connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        with connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                connection.execute("DROP TABLE IF EXISTS entry")
                connection.execute("DROP TABLE IF EXISTS about")
                connection.execute(
                    "CREATE TABLE entry (owner TEXT, key TEXT, nbytes INTEGER, created TEXT, seconds REAL, "
                    "arguments TEXT, code TEXT, expires REAL, used REAL, PRIMARY KEY (owner, key)) "
                    "WITHOUT ROWID"
                )
                connection.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT)")
                connection.execute(f"PRAGMA user_version = {_LAYOUT}")
    except BaseException:
        connection.close()
        raise
    return connection
