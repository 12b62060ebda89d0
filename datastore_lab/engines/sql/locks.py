"""Locks of a database server, which other computers see, and which end with the process that holds them."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import xxhash
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from datastore_lab.engines.sql.faults import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from datastore_lab.engines.sql.connect import Database

_TAKE = {True: "SELECT pg_try_advisory_lock(:number)", False: "SELECT GET_LOCK(:name, 0)"}
_GIVE = {True: "SELECT pg_advisory_unlock(:number)", False: "SELECT RELEASE_LOCK(:name)"}


class ServerLocks:
    """Advisory locks, held by a connection of their own: the server releases them when that ends.

    Parameters
    ----------
    database : Database
        On a server.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sa.Connection | None = None
        self._process = -1
        self._lock = threading.Lock()
        self._held = 0
        self._closed = False

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Take a lock if nobody holds it, see `datastore_lab.records.Locks`."""
        taken = bool(self._ask(_TAKE, name))
        self._held += taken
        try:
            yield taken
        finally:
            self._held -= taken
            if taken:
                with suppress(Exception):  # (one that was lost with its connection is free already)
                    self._ask(_GIVE, name)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Leave the server, as soon as no lock is held any more."""
        self._closed = True
        if not self._held:
            self._lose()

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            with suppress(SQLAlchemyError):
                connection.close()

    def _ask(self, statements: dict[bool, str], name: str) -> Any:
        digest = xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) >> 1
        with self._lock, spoken(self._database.address):
            if self._connection is None or self._process != os.getpid():
                self._connection = self._database.connection()
                self._process = os.getpid()
            is_postgresql = self._connection.dialect.name == "postgresql"
            given = {"number": digest} if is_postgresql else {"name": f"datastore_lab {digest:x}"}
            try:
                return self._connection.execute(text(statements[is_postgresql]), given).scalar()
            except SQLAlchemyError:
                self._connection.invalidate()
                self._lose()
                raise
