"""Stores in SQLite files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datastore_lab.engines.sql.engine import SQLEngine

if TYPE_CHECKING:
    from datastore_lab.records import Traits


class SQLiteEngine(SQLEngine):
    """A store in a SQLite file."""

    traits: ClassVar[Traits] = SQLEngine.traits._replace(
        label="SQLite",
        structure="hierarchy in one file",
    )
