"""Connections: how each database is set up, when it is left, and whose transaction one waits for."""

from __future__ import annotations

import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc as sae
from sqlalchemy.pool import NullPool

from datastore_lab.engines.sql.faults import Again, may_be_tried_again, sort, spoken, translated
from datastore_lab.errors import EngineError, Locked
from datastore_lab.interrupts import Uninterrupted

if TYPE_CHECKING:
    from datastore_lab.engines.sql.address import Address

T = TypeVar("T")
PATIENCE = 15.0
"""How long to wait for another writer's transaction, in seconds, unless a longer timeout is given."""

_PAGE = 4096
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "foreign_keys=ON", "mmap_size=0", "cache_size=-8192")
_LONGEST_VALUE = 1 << 26
_ATTACHED = 7  # sqlite3.SQLITE_LIMIT_ATTACHED; VACUUM attaches a database of its own
_INTERRUPTIONS = (KeyboardInterrupt, SystemExit)


class Database:
    """Two connections to one database: one that changes, and one that reads beside it.

    Parameters
    ----------
    address : Address
    writable : bool
    patience : float
        How long to wait for another writer, in seconds.
    durable : bool
        Whether a commit is on the disk when it returns.
    """

    def __init__(self, address: Address, *, writable: bool, patience: float, durable: bool) -> None:
        self.address, self.writable = address, writable
        self.is_sqlite = address.path is not None
        self._patience, self._durable = patience, durable
        self._process = os.getpid()
        self._read_lock = threading.RLock()
        self._reader: sa.Connection | None = None
        self._writer: sa.Connection | None = None
        self._immutable = False
        self._logs = False
        self._file: tuple[int, int] | None = None
        self.makes_file = False
        self._engine = self._make_engine()

    # -- reading and changing -----------------------------------------------------------------------

    def look(self, action: Callable[[sa.Connection], T]) -> T:
        """Read without a snapshot around it: each statement sees what was last committed."""
        with self._read_lock:
            self._check_process()
            try:
                return action(self._reader or self._connected())
            except (sae.SQLAlchemyError, UnicodeDecodeError, *_INTERRUPTIONS):
                self._lose_reader()
                with spoken(self.address):
                    raise

    def _connected(self) -> sa.Connection:
        self._reader = self._connect("AUTOCOMMIT").execution_options(lab_begin=None)
        return self._reader

    def _lose_reader(self) -> None:
        """Nobody knows where it stopped."""
        if self._reader is not None:
            _drop(self._reader)
        self._reader = None

    @contextmanager
    def reading(self, *, snapshot: bool = True) -> Iterator[sa.Connection]:
        """Read in one snapshot: what others commit meanwhile is not seen; else each statement has its own."""
        with self._read_lock, spoken(self.address):
            self._check_process()
            connection = self._reader or self._connected()
            try:
                if snapshot:
                    self._begin_reading(connection)
                try:
                    yield connection
                finally:
                    if snapshot:
                        self._end_reading(connection)
            except (sae.SQLAlchemyError, *_INTERRUPTIONS):
                self._lose_reader()
                raise

    def _begin_reading(self, connection: sa.Connection) -> None:
        if not self.is_sqlite:
            connection.exec_driver_sql(_SNAPSHOT[connection.dialect.name == "postgresql"])
            return
        try:  # by the driver: SQLAlchemy's own way takes longer than reading a small item
            connection.connection.dbapi_connection.execute("BEGIN")  # type: ignore[union-attr]
        except sqlite3.Error as error:
            raise sae.DBAPIError(None, None, error) from error

    def _end_reading(self, connection: sa.Connection) -> None:
        """Leave the snapshot, unless the connection was lost in it."""
        if connection.invalidated:
            return
        if not self.is_sqlite:
            connection.exec_driver_sql("ROLLBACK")
            return
        raw: Any = connection.connection.dbapi_connection
        if raw.in_transaction:
            raw.rollback()

    @contextmanager
    def changing(self) -> Iterator[sa.Connection]:
        """Change in one transaction, which ends in a commit or, by an exception, in nothing.

        Raises
        ------
        Again
            If the database undid it because of a deadlock.
        Locked
            If another writer held on too long; the message names it where the database knows.
        """
        self._check_process()
        self._check_file()
        try:
            if self._writer is None:
                self._logs = self.is_sqlite  # only now: a store that is not changed keeps every byte
                self._writer = self._connect("READ COMMITTED").execution_options(lab_begin="BEGIN IMMEDIATE")
            with self._writer.begin():
                yield self._writer
        except sae.SQLAlchemyError as error:
            self._lose_writer()
            if may_be_tried_again(error):
                raise Again from None
            holder = self._holder() if sort(getattr(error, "orig", error) or error) is Locked else ""
            raise translated(error, self.address, holder) from None
        except _INTERRUPTIONS:
            self._lose_writer()
            raise
        except BaseException:
            if self._writer is not None and (self._writer.invalidated or self._writer.closed):
                self._lose_writer()
            raise

    @contextmanager
    def outside(self) -> Iterator[sa.Connection]:
        """Give a connection for what can't be done in a transaction, such as VACUUM."""
        self._check_process()
        self.leave()
        with spoken(self.address), self._engine.connect() as connection:
            if self.is_sqlite:
                connection.connection.dbapi_connection.setlimit(_ATTACHED, 1)  # type: ignore[union-attr]
                yield connection.execution_options(lab_begin=None)
            else:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Wait for nobody inside: what another one holds is `Locked` at once."""
        self.leave()
        patience, self._patience = self._patience, 0.0
        try:
            yield
        finally:
            self._patience = patience

    def uninterrupted(self) -> AbstractContextManager[None]:
        """Hold back Ctrl-C, but not from a server, which may not answer."""
        return Uninterrupted() if self.is_sqlite else nullcontext()

    def leave(self) -> None:
        """Let go of both connections; the next use connects again."""
        with self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    _drop(connection, gently=True)
            self._reader = self._writer = None

    def close(self) -> None:
        """Leave the database; a SQLite file is left as one file, without its write-ahead log."""
        if os.getpid() != self._process:
            return  # a forked child must not speak over its parent's connections
        self.leave()
        if self._logs:
            # the log stays while others use it, and what lies there now may be another file
            others = sae.SQLAlchemyError, sqlite3.OperationalError, EngineError
            with suppress(*others), self._engine.connect() as connection:
                connection.connection.dbapi_connection.execute("PRAGMA journal_mode=DELETE")  # type: ignore[union-attr]
        self._engine.dispose()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise EngineError(
                f"{self.address.shown} was opened by the parent of this process; open it here anew",
                key=self.address.shown,
            )

    def _check_file(self) -> None:
        """Refuse to change a file that is no longer at its path: what is written there is lost."""
        if not self.is_sqlite:
            return
        try:
            found = Path(str(self.address.path)).stat()
        except FileNotFoundError:
            found = None
        now = (found.st_dev, found.st_ino) if found else None
        if self._file is not None and now != self._file:
            raise EngineError(
                f"{self.address.shown} was removed or replaced while it was open; open it again",
                key=self.address.shown,
            )
        self._file = now

    def _lose_writer(self) -> None:
        if self._writer is not None:
            _drop(self._writer)
        self._writer = None

    def connection(self) -> sa.Connection:
        """Give a connection of its own, on which each statement is a transaction."""
        return self._connect("AUTOCOMMIT")

    def _connect(self, isolation: str) -> sa.Connection:
        try:
            connection = self._engine.connect()
        except (TypeError, ValueError) as error:
            if self.is_sqlite:
                raise
            raise self._refused(error) from None
        return connection if self.is_sqlite else connection.execution_options(isolation_level=isolation)

    # -- engines of SQLAlchemy ----------------------------------------------------------------------

    def _make_engine(self) -> sa.Engine:
        options: dict[str, Any] = {"hide_parameters": True, "poolclass": NullPool}
        if self.is_sqlite:
            engine = sa.create_engine(self.address.url, creator=self._sqlite, **options)
            sa.event.listen(engine, "begin", _begin_sqlite)
            return engine
        try:
            engine = sa.create_engine(self.address.url, **options, connect_args=self._arguments())
        except ModuleNotFoundError as error:
            raise EngineError(
                f"{self.address.shown} needs the package {error.name!r}: pip install 'datastore-lab[sql]'",
                key=self.address.shown,
            ) from error
        except (TypeError, ValueError) as error:
            raise self._refused(error) from None
        sa.event.listen(engine, "connect", self._set_up_server)
        return engine

    def _refused(self, error: Exception) -> EngineError:
        """Make the error for an option that a driver does not take; its own may show the password."""
        said = self.address.masked(str(error))
        return EngineError(
            f"{self.address.shown}: the driver does not take an option in the address: {said}",
            key=self.address.shown,
        )

    def _arguments(self) -> dict[str, Any]:
        program = f"datastore_lab on {platform.node()}, process {os.getpid()}"
        if self.address.url.get_backend_name() == "postgresql":
            return {"application_name": program[:63], "connect_timeout": 10}
        return {"program_name": program, "connect_timeout": 10, "charset": "utf8mb4"}

    def _set_up_server(self, raw: Any, _record: Any) -> None:
        with raw.cursor() as cursor:
            for statement in self._server_settings():
                cursor.execute(statement)
        raw.commit()

    def _server_settings(self) -> list[str]:
        if self.address.url.get_backend_name() == "postgresql":
            commit = [] if self._durable else ["SET synchronous_commit = off"]
            return [f"SET lock_timeout = {int(self._patience * 1000)}", *commit]
        return [
            f"SET SESSION innodb_lock_wait_timeout = {max(1, round(self._patience))}",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        ]

    # -- SQLite -------------------------------------------------------------------------------------

    def _sqlite(self) -> Any:
        import sqlite3

        path = Path(str(self.address.path))
        if self.writable:
            self._check_file()
        change = "rwc" if self.makes_file else "rw"  # a place that has vanished gets no new, empty file
        mode = change if self.writable else "ro&immutable=1" if self._immutable else "ro"
        raw = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=self._patience,
        )
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        raw.setlimit(_ATTACHED, 0)
        for pragma in _PRAGMAS:
            raw.execute(f"PRAGMA {pragma}")
        if self.writable:
            self._set_up_writer(raw)
        return raw

    def _set_up_writer(self, raw: Any) -> None:
        raw.execute(f"PRAGMA page_size={_PAGE}")
        if self._logs:
            self._begin_log(raw)
        raw.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
        raw.execute("PRAGMA journal_size_limit=67108864")

    def _begin_log(self, raw: Any) -> None:
        """Have changes go to a log; SQLite itself does not wait while another one is at that, or writes."""
        until = time.monotonic() + self._patience
        while True:
            try:
                raw.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if sort(error) is not Locked or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    # -- who holds it -------------------------------------------------------------------------------

    def _holder(self) -> str:
        """Say who is changing the store, as far as the database or the system tells."""
        try:
            found = _sqlite_holder(str(self.address.path)) if self.is_sqlite else self._server_holder()
        except (sae.SQLAlchemyError, OSError, ValueError):
            found = ""
        who = f"by {found}" if found else "by another writer"
        return f"the store is held {who}; wait for its transaction to end, or give a longer timeout"

    def _server_holder(self) -> str:
        backend = self.address.url.get_backend_name()
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.text(_HOLDERS[backend if backend == "postgresql" else "mysql"])
            ).all()
        return "; ".join(" ".join(str(value) for value in row if value) for row in rows[:3])


_SNAPSHOT = {
    True: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    False: "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
}

_HOLDERS = {
    "postgresql": (
        "SELECT DISTINCT 'session ' || a.pid, a.usename, a.application_name "
        "FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.relation = to_regclass('lab_store') AND l.mode = 'RowShareLock' "
        "AND a.pid <> pg_backend_pid()"
    ),
    "mysql": (
        "SELECT CONCAT('session ', p.id), p.user, p.host FROM information_schema.innodb_trx t "
        "JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
        "WHERE p.id <> CONNECTION_ID()"
    ),
}


def _sqlite_holder(path: str) -> str:
    """Find the process that holds SQLite's lock on writing; looking at the lock itself would drop our own."""
    inode, write_lock = str(os.stat(f"{path}-shm").st_ino), "120"  # noqa: PTH116
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[-3].rpartition(":")[2] == inode and fields[-2] == write_lock and "WRITE" in fields:
            return f"process {fields[-4]}"
    return ""


def _drop(connection: sa.Connection, *, gently: bool = False) -> None:
    with suppress(sae.SQLAlchemyError):  # it may be broken already
        if not gently:
            connection.invalidate()
        connection.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    begin = connection.get_execution_options().get("lab_begin", "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)
