"""The tables, the version of their layout, and the way from an older one to this.

All names are fixed; names of the user are values. ``name`` and ``kind`` are UTF-8 in binary columns: a text
column would fold case and trailing blanks on one database, and refuse NUL on another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from datastore_lab.integrity import LAYOUT, check_layout

ROOT = 1
"""Number of a store's root node; numbers below belong to nothing."""

metadata = sa.MetaData()

_NEVER = b"\xff"
"""No UTF-8, and so no name and no kind."""


def as_stored(value: Any) -> bytes:
    """Give what a column of bytes holds; what is no longer bytes, by damage, passes for nothing written."""
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else _NEVER


class _Bytes(sa.LargeBinary):
    """Bytes, never made of a number: SQLite may give one after damage, and as many zeros would be made."""

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], bytes]:
        return as_stored


_BYTES = _Bytes().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_TEXT = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
_INNODB: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB", "mysql_charset": "utf8mb4"}

store = sa.Table(
    "lab_store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("lab_layout", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("next", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.String(32), nullable=False),
    **_INNODB,
)
"""One row per store: its name, its revision, and the next free number for nodes and arrays."""

node = sa.Table(
    "lab_node",
    metadata,
    sa.Column("store", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.BigInteger, nullable=False),
    sa.Column("name", _BYTES, nullable=False),
    sa.Column("mark", sa.BigInteger, nullable=False),
    sa.Column("kind", _BYTES, nullable=False),
    sa.Column("record", _TEXT, nullable=False),
    sa.Column("spill", sa.BigInteger),
    sa.Column("seal", sa.String(32), nullable=False),
    sa.Column("children", sa.BigInteger, nullable=False),
    sa.Column("tally", sa.BigInteger, nullable=False),
    sa.Index("lab_node_hash", "store", "parent", "hash"),
    sa.Index("lab_node_order", "store", "parent", "position"),
    **_INNODB,
)
"""One row per node. ``record`` is JSON; one of more than a megabyte lies in the parts numbered ``spill``."""

part = sa.Table(
    "lab_part",
    metadata,
    sa.Column("store", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("array", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("codec", sa.Integer, nullable=False),
    sa.Column("sum", sa.BigInteger, nullable=False),
    sa.Column("bytes", _BYTES, nullable=False),
    **_INNODB,
)
"""One row per part of an array: at most a megabyte of its bytes in C order, compressed where that gains."""

sa.event.listen(  # what is compressed already is not worth another try
    part,
    "after_create",
    sa.DDL(  # type: ignore[no-untyped-call]
        "ALTER TABLE lab_part ALTER COLUMN bytes SET STORAGE EXTERNAL"
    ).execute_if(dialect="postgresql"),
)

MIGRATIONS: tuple[Callable[[sa.Connection, int], None], ...] = ()
"""Step number n takes the store of a given id from layout n + 1 to n + 2, inside one transaction."""


def migrate(connection: sa.Connection, number: int, layout: int, url: str) -> int:
    """Bring a store to the layout of this version, step by step; gives the layout that it has then."""
    check_layout(layout, url)
    for step in MIGRATIONS[layout - 1 :]:
        step(connection, number)
    return max(layout, LAYOUT)
