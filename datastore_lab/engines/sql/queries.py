"""Statements that are asked for every item: compiled once, and given to the driver as they are.

An item of a kilobyte is read in less time than SQLAlchemy takes to execute a statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
import sqlalchemy.exc as sae
from sqlalchemy.dialects import sqlite

from datastore_lab.engines.sql.tables import as_stored

_SQLITE = sqlite.dialect(paramstyle="named")


class _Compiled(NamedTuple):
    """A statement in the words of one database; with `places` its parameters go by position."""

    text: str
    places: tuple[str, ...]


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
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[list[Any]]:
        """Give all rows."""
        dialect = connection.dialect
        text, places = self._compiled.get(dialect.name) or self._compile(dialect)
        if dialect.name == "sqlite":
            return self._checked(_from_sqlite(connection, text, values))
        given: Any = tuple(values[name] for name in places) if places else values
        return self._checked(connection.exec_driver_sql(text, given).all())

    def _compile(self, dialect: sa.Dialect) -> _Compiled:
        words = _SQLITE if dialect.name == "sqlite" else dialect
        made: Any = self._statement.compile(dialect=words)
        found = _Compiled(str(made), tuple(made.positiontup or ()))
        self._compiled[dialect.name] = found
        return found

    def _checked(self, rows: Sequence[Any]) -> list[list[Any]]:
        checked = [list(row) for row in rows]
        for row in checked:
            for number in self._bytes:
                if type(row[number]) is not bytes:
                    row[number] = as_stored(row[number])
        return checked


def _from_sqlite(connection: sa.Connection, text: str, values: Mapping[str, Any]) -> list[Any]:
    raw: Any = connection.connection.dbapi_connection
    try:
        return list(raw.execute(text, values).fetchall())
    except sqlite3.Error as error:
        raise sae.DBAPIError(None, None, error) from error
