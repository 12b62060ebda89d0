"""What a database complains about, in the words of `datastore_lab.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy.exc as sae

from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, Locked, ReadOnly

if TYPE_CHECKING:
    from datastore_lab.engines.sql.address import Address

_SQLITE: dict[str, type[LabError]] = {
    "SQLITE_BUSY": Locked,
    "SQLITE_LOCKED": Locked,
    "SQLITE_CORRUPT": Corrupt,
    "SQLITE_NOTADB": Foreign,
    "SQLITE_FORMAT": Foreign,
    "SQLITE_READONLY": ReadOnly,
    "SQLITE_PERM": ReadOnly,
}
_STATES: dict[str, type[LabError]] = {
    "55P03": Locked,
    "40001": Locked,
    "40P01": Locked,
    "25006": ReadOnly,
    "42501": ReadOnly,
    "XX001": Corrupt,
    "XX002": Corrupt,
}
_MARIADB: dict[int, type[LabError]] = {
    1205: Locked,
    1213: Locked,
    1142: ReadOnly,
    1044: ReadOnly,
    1290: ReadOnly,
    1792: ReadOnly,
    1836: ReadOnly,
    1034: Corrupt,
    1712: Corrupt,
    1877: Corrupt,
}
_AGAIN = {"40001", "40P01", 1213}
_ADVICE: dict[type[LabError], str] = {
    Locked: "another writer holds the store; wait for its transaction to end, or give a longer timeout",
    ReadOnly: "the place or the account allows no changes; open it with mode 'r'",
    Corrupt: "the database is damaged; store.verify() says what can be read, restore the rest from a copy",
    Foreign: (
        "this is no SQLite database, or the beginning of one is damaged; choose another name for a new "
        "store, or restore the file from a copy"
    ),
    EngineError: "the database failed; what was committed before is safe in it",
}


class Again(Exception):
    """A change was undone by the database through no fault of its own: it may be tried again."""


def sort(error: BaseException) -> type[LabError]:
    """Say which of our errors an error of a driver is."""
    if "decode to UTF-8" in str(error):  # SQLite's driver, about damaged text
        return Corrupt
    code = _code(error)
    if isinstance(code, str):
        if code.startswith("SQLITE_"):
            return next((kind for name, kind in _SQLITE.items() if code.startswith(name)), EngineError)
        return _STATES.get(code, EngineError)
    return _MARIADB.get(code, EngineError)


def may_be_tried_again(error: sae.SQLAlchemyError) -> bool:
    """Say whether the database chose this transaction as the victim of a deadlock."""
    return _code(getattr(error, "orig", None)) in _AGAIN


def translated(error: sae.SQLAlchemyError, address: Address, holder: str = "") -> LabError:
    """Make our error of one of SQLAlchemy, without statement, values and secrets."""
    original: Any = getattr(error, "orig", None) or error
    kind = EngineError if _is_lost(error) else sort(original)
    said = address.masked(" ".join(str(original).split()))[:300]
    advice = _advice(error, kind, said, holder)
    return kind(f"{address.shown}: {said}: {advice}", key=address.shown)


def _advice(error: sae.SQLAlchemyError, kind: type[LabError], said: str, holder: str) -> str:
    if "password" in said:
        return (
            "an address that was shown or pickled holds no password: give it in the URL, or as the client of "
            "the database takes it (PGPASSWORD, ~/.pgpass, ~/.my.cnf)"
        )
    if _is_lost(error):
        return (
            "the connection is gone: a change under way has not happened, unless it was being committed; "
            "the next call connects again"
        )
    return holder or _ADVICE[kind]


@contextmanager
def spoken(address: Address) -> Iterator[None]:
    """Translate the errors of the database inside a block."""
    try:
        yield
    except sae.SQLAlchemyError as error:
        raise translated(error, address) from None  # its text may hold the password
    except UnicodeDecodeError as error:  # a damaged schema, in the words of SQLite
        raise Corrupt(f"{address.shown} is damaged: text in it is no UTF-8", key=address.shown) from error


def _is_lost(error: sae.SQLAlchemyError) -> bool:
    return bool(getattr(error, "connection_invalidated", False))


def _code(error: Any) -> str | int:
    if isinstance(name := getattr(error, "sqlite_errorname", None), str):
        return name
    first = error.args[0] if getattr(error, "args", ()) else 0
    if isinstance(first, int):
        return first
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else 0
