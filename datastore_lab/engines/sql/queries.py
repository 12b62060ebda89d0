"""Statements that are asked for every item: compiled once, and on SQLite given to its driver as they are.

An item of a kilobyte is read in less time than SQLAlchemy takes to execute a statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc as sae
from sqlalchemy.dialects import sqlite

from datastore_lab.engines.sql.tables import as_stored


class Query:
    """A statement with named parameters, whose rows come as plain tuples.

    Parameters
    ----------
    statement : sqlalchemy.Select
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        kinds = [isinstance(column.type, sa.LargeBinary) for column in statement.selected_columns]
        self._bytes = [number for number, is_bytes in enumerate(kinds) if is_bytes]

    @cached_property
    def _text(self) -> str:
        return str(self._statement.compile(dialect=sqlite.dialect(paramstyle="named")))

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Give all rows."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).all()
        raw: Any = connection.connection.dbapi_connection
        try:
            found = raw.execute(self._text, values).fetchall()
        except sqlite3.Error as error:
            raise sae.DBAPIError(None, None, error) from error
        return [self._checked(list(row)) for row in found]

    def _checked(self, row: list[Any]) -> list[Any]:
        for number in self._bytes:
            row[number] = as_stored(row[number])
        return row
