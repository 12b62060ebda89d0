"""Free pages of a SQLite file: when they are so many that it is written anew as it is closed.

SQLite uses free pages again, but never gives them back by itself. VACUUM does, in one transaction of SQLite's
own, so that a crash leaves the file as it was or as it is to be.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy.exc as sae

from datastore_lab.engines.sql import care, mending
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from datastore_lab.engines.sql.connect import Database

LEAST = 64 << 20
"""With fewer free bytes than this a file is not written anew on its own."""


def give_back(database: Database, number: int, share: float | None) -> None:
    """Compact a file more than a share of which is free. If that fails it stays as it is: it is whole.

    Nobody is waited for: while another one is writing, it is left to whoever closes the file next.
    """
    if share is None or not database.is_sqlite:
        return
    with suppress(LabError, sae.SQLAlchemyError, sqlite3.Error, OSError):
        if _is_due(database, share):
            with database.impatient():
                mending.compact(database, number)


def _is_due(database: Database, share: float) -> bool:
    """Say whether much of a file is free, there is room for a new one and its copy, and it is not damaged."""
    with database.reading(snapshot=False) as connection:
        page = _pragma(connection, "page_size")
        size, free = page * _pragma(connection, "page_count"), page * _pragma(connection, "freelist_count")
        if free < LEAST or free <= share * size:
            return False
        room = shutil.disk_usage(Path(str(database.address.path)).parent).free
        return room > 2 * (size - free) and not care.integrity(connection)


def _pragma(connection: sa.Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
