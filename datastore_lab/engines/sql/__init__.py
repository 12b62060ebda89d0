"""Records in a SQL database: a SQLite file, PostgreSQL or MariaDB.

Text and bytes of any kind are bound parameters; the names of tables and columns are fixed.
"""

from datastore_lab.engines.sql.engine import SQLEngine
from datastore_lab.engines.sql.sqlite import SQLiteEngine

__all__ = ["SQLEngine", "SQLiteEngine"]
