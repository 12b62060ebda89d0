"""Addresses of databases: which one, which store in it, and never a password where others can read it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from datastore_lab.errors import BadKey, EngineError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_SECRET = re.compile(r"(?i)pass|secret|token")
SQLITE = "sqlite"


class Address(NamedTuple):
    """Where a store is.

    Attributes
    ----------
    url : sqlalchemy.URL
        Of the database, with the password if one was given.
    lab : str
        Name of the store within the database.
    shown : str
        For people, errors and `open_store`: without password.
    path : str or None
        The file, of a SQLite database.
    """

    url: sa.URL
    lab: str
    shown: str
    path: str | None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Text that must not be shown."""
        hidden = [value for name, value in self.url.query.items() if _SECRET.search(name)]
        return tuple(str(text) for text in (self.url.password, *hidden) if text)

    def masked(self, text: str) -> str:
        """Take the secrets out of a message of the database."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(place: str | os.PathLike[str]) -> Address:
    """Read a path or URL.

    Raises
    ------
    EngineError
        If it is no address of a database that is known here.

    Examples
    --------
    >>> parse("postgresql://ann:geheim@db.lab/bench?lab=laser").shown
    'postgresql+psycopg://ann@db.lab/bench?lab=laser'
    """
    text = os.fspath(place)
    if "://" not in text:
        path = os.path.abspath(text)  # noqa: PTH100 (no link is followed)
        return Address(sa.URL.create(SQLITE, database=path), "lab", path, path)
    return _from_url(text)


def _from_url(text: str) -> Address:
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError) as error:
        scheme = text.partition("://")[0]
        raise EngineError(
            f"{scheme}://... is no address of a database that can be read", key=scheme
        ) from error
    lab = _lab_name(url.query.get("lab", "lab"))
    url = url.difference_update_query(["lab"])
    if url.get_backend_name() == SQLITE:
        return _sqlite_file(url, lab)
    if url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    if url.drivername not in _DRIVERS.values():
        raise EngineError(
            f"no store can be kept in {url.drivername!r}; use sqlite, {', '.join(_DRIVERS.values())}",
            key=url.drivername,
        )
    return Address(url, lab, _shown(url, lab), None)


def _sqlite_file(url: sa.URL, lab: str) -> Address:
    if not url.database or url.database == ":memory:" or url.query:
        raise EngineError(
            "a SQLite store is a file: sqlite:///folder/lab.sqlite, without options; "
            "for one that is gone with the session open memory://",
            key=SQLITE,
        )
    path = str(Path(url.database).absolute())
    shown = path if lab == "lab" else f"sqlite:///{path}?lab={lab}"
    return Address(sa.URL.create(SQLITE, database=path), lab, shown, path)


def _lab_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadKey(
            f"?lab={name} can't name a store in a database: up to 60 of a-z, 0-9 and _, first a letter",
            key=name,
        )
    return name


def _shown(url: sa.URL, lab: str) -> str:
    """Give the address without anything secret; opened again, the password has to come from elsewhere."""
    query = {name: value for name, value in url.query.items() if not _SECRET.search(name)}
    if lab != "lab":
        query["lab"] = lab
    return sa.URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, query
    ).render_as_string()
