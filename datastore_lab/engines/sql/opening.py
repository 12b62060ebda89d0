"""Finding a store in its database, or making it; what is another program's is left as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from datastore_lab.engines.sql.change import Change
from datastore_lab.engines.sql.connect import Database
from datastore_lab.engines.sql.nodes import Node, row_of, store_seal
from datastore_lab.engines.sql.tables import ROOT, metadata, migrate, node, store
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, Locked, NotFound, ReadOnly
from datastore_lab.integrity import LAYOUT, check_layout, known_layout

if TYPE_CHECKING:
    from datastore_lab.engines.sql.address import Address

MODES = ("r", "r+", "a", "w", "x")
_LOCK = 0x6C61625F73746F72
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""How a journal of SQLite ends that belongs to a change of several files, after their journal's name."""

_OWN = frozenset(metadata.tables)
_UNWANTED = re.compile(r"(?i)\b(virtual|generated|as|check|collate|default|references|where)\b")


def open_store(database: Database, mode: str) -> int:
    """Give the number of the store in its database, by the mode."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    fresh = database.is_sqlite and _check_file(database, mode)
    found = None if fresh else _find(database)
    if found is None:
        if mode in {"r", "r+"}:
            raise NotFound(
                f"there is no store {database.address.lab!r} in {database.address.shown}; mode 'a' makes it",
                key=database.address.shown,
            )
        number, made = _create(database)
        layout = LAYOUT
    else:
        (number, layout), made = found, False
    if mode == "x" and not made:
        raise AlreadyExists(f"{database.address.shown} exists already", key=database.address.shown)
    if database.writable and layout < LAYOUT:
        _migrate(database, number, layout)
    if mode == "w" and not made:
        _clear(database, number)
    return number


# -- the file ---------------------------------------------------------------------------------------


def _check_file(database: Database, mode: str) -> bool:
    """Look at a SQLite file without changing it; say whether there is none yet."""
    path, shown = Path(str(database.address.path)), database.address.shown
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {str(path.parent)!r}", key=shown)
    if path.is_dir():
        raise EngineError(f"{str(path)!r} is a folder, not a SQLite file", key=shown)
    if not path.exists():
        if mode in {"r", "r+"}:
            raise NotFound(f"there is no {str(path)!r}", key=shown)
        _refuse_unwritable(path.parent)
        return True
    _refuse_journal(path, shown)
    if mode == "x" and path.stat().st_size:
        raise AlreadyExists(f"{str(path)!r} exists already", key=shown)
    if database.writable:
        _refuse_unwritable(path)
        _refuse_unwritable(path.parent)
    return _check_schema(database, mode)


def _refuse_journal(path: Path, shown: str) -> None:
    """Refuse a journal that names another file: SQLite takes that for a journal as well, and deletes it."""
    journal = Path(f"{path}-journal")
    if not journal.is_file() or journal.stat().st_size < len(_NAMES_ANOTHER):
        return
    with journal.open("rb") as file:
        file.seek(-len(_NAMES_ANOTHER), os.SEEK_END)
        if file.read() != _NAMES_ANOTHER:
            return
    raise Foreign(
        f"{str(journal)!r} names another file, which SQLite would delete as it settles the change that was "
        f"interrupted; this package writes no such journal. {shown} is not opened; if you trust the file, "
        "settle it with the program that made it",
        key=shown,
    )


def _refuse_unwritable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise ReadOnly(f"{str(path)!r} can't be written; open the store with mode 'r'", key=str(path))


def _check_schema(database: Database, mode: str) -> bool:
    """Refuse a file of another program, or one whose schema would run something of a stranger."""
    settles = database.writable and _was_interrupted(database.address)
    looking = Database(database.address, writable=settles, patience=15.0, durable=True)
    try:
        rows = _schema(looking)
        database._immutable = looking._immutable
    finally:
        looking.leave()
    shown = database.address.shown
    if not rows and mode in {"a", "w", "x"}:
        return True
    if not rows:
        raise NotFound(f"{shown} is empty, there is no store in it; mode 'a' makes one", key=shown)
    if "lab_store" not in {row.name for row in rows if row.type == "table"}:
        raise Foreign(
            f"{shown} is a SQLite file, but of another program: it holds no store. Choose another name for a "
            "store; what is in this one is left as it is",
            key=shown,
        )
    for row in rows:
        if _is_hostile(row):
            raise Foreign(
                f"{shown}: {row.type} {row.name!r} in its schema is not one that this package makes; "
                "the file is not opened",
                key=shown,
            )
    return False


def _schema(looking: Database) -> list[Any]:
    statement = sa.text("SELECT type, name, tbl_name, sql FROM sqlite_master")
    try:
        with looking.reading() as connection:
            return list(connection.execute(statement).all())
    except ReadOnly as error:
        if not _was_interrupted(looking.address):
            raise
        raise ReadOnly(
            f"the writer of {looking.address.shown} was stopped in the middle of a change, which SQLite can "
            "only undo by writing; open it once with mode 'r+', where that is allowed",
            key=looking.address.shown,
        ) from error
    except EngineError:
        if _was_interrupted(looking.address):
            raise
        looking._immutable = True  # in a folder that can't be written, where nothing can change either
        with looking.reading() as connection:
            return list(connection.execute(statement).all())


def _was_interrupted(address: Address) -> bool:
    """Whether a writer left something beside the file, which SQLite settles when it may write."""
    return any(os.path.lexists(f"{address.path}{end}") for end in ("-wal", "-journal"))


def _is_hostile(row: Any) -> bool:
    own = row.name.lower() in _OWN or str(row.tbl_name).lower() in _OWN
    if row.type in {"trigger", "view"}:
        return own
    if not own or row.sql is None:
        return False
    computes = row.type == "index" and row.sql.count("(") != 1
    return computes or row.type not in {"table", "index"} or _UNWANTED.search(row.sql) is not None


# -- the store --------------------------------------------------------------------------------------


def _find(database: Database) -> tuple[int, int] | None:
    address = database.address
    with database.reading() as connection:
        if not sa.inspect(connection).has_table("lab_store"):
            return None
        row = connection.execute(sa.select(store).where(store.c.name == address.lab)).mappings().first()
        if row is None and database.is_sqlite:
            _refuse_lost_row(connection, address.shown)
    if row is None:
        return None
    if store_seal(row) != row["seal"]:
        return int(row["id"]), LAYOUT  # verify() tells of it; reading goes on
    return int(row["id"]), _layout(row, address.shown)


def _layout(row: Any, url: str) -> int:
    """Refuse a store of a later layout; gives the layout."""
    layout = known_layout(row["lab_layout"])
    if layout is None:
        raise Corrupt(f"{url}: the version of its layout is damaged; restore it from a copy", key=url)
    check_layout(layout, url)
    return layout


def _refuse_lost_row(connection: sa.Connection, url: str) -> None:
    """Tell a store that was never made from one whose row is damaged."""
    names = set(connection.execute(sa.select(store.c.id)).scalars())
    held = set(connection.execute(sa.select(node.c.store).where(node.c.id == ROOT)).scalars())
    bad = [row for row in connection.execute(sa.select(store)).mappings() if store_seal(row) != row["seal"]]
    if held - names or bad:
        raise Corrupt(f"{url}: the row that names the store is damaged; restore it from a copy", key=url)


def _create(database: Database) -> tuple[int, bool]:
    """Make a store, unless another one has made it meanwhile; gives its number, and whether it is new."""
    database.makes_file = database.is_sqlite
    try:
        with database.changing() as connection:
            if not database.is_sqlite:
                postgresql = connection.dialect.name == "postgresql"
                lock = f"pg_advisory_xact_lock({_LOCK})" if postgresql else "GET_LOCK('lab_store', 15)"
                if connection.execute(sa.text(f"SELECT {lock}")).scalar() == 0:  # MariaDB gave up waiting
                    raise _being_made(database)
            metadata.create_all(connection)
            name = database.address.lab
            row = connection.execute(sa.select(store.c.id).where(store.c.name == name)).first()
            number = int(row[0]) if row else _add_store(connection, name)
    finally:
        database.makes_file = False
    if not database.is_sqlite:
        database.leave()  # the lock of MariaDB belongs to the connection
    return number, row is None


def _being_made(database: Database) -> Locked:
    shown = database.address.shown
    return Locked(f"{shown}: another one is making a store in this database; try again", key=shown)


def _add_store(connection: sa.Connection, name: str) -> int:
    row: dict[str, Any] = {"name": name, "lab_layout": LAYOUT, "revision": 0, "next": ROOT + 1}
    made: Any = connection.execute(sa.insert(store), {**row, "seal": ""}).inserted_primary_key
    number = int(made[0])
    seal = store_seal({**row, "id": number})
    connection.execute(sa.update(store).where(store.c.id == number).values(seal=seal))
    root = Node(ROOT, 0, 0, "")
    connection.execute(sa.insert(node), row_of(number, root, root.text()))
    return number


def _clear(database: Database, number: int) -> None:
    with database.changing() as connection:
        change = Change(connection, number, database.address.shown)
        change.clear()
        change.finish()


def _migrate(database: Database, number: int, layout: int) -> None:
    with database.changing() as connection:
        reached = migrate(connection, number, layout, database.address.shown)
        row = dict(connection.execute(sa.select(store).where(store.c.id == number)).mappings().one())
        row["lab_layout"] = reached
        values = {"lab_layout": reached, "seal": store_seal(row)}
        connection.execute(sa.update(store).where(store.c.id == number).values(values))
