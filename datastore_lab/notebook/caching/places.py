"""The places in which a session keeps the results of cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from IPython.core.error import UsageError

from datastore_lab.cache.shelf import Shelf
from datastore_lab.errors import LabError
from datastore_lab.notebook.caching.grammar import SUFFIXES
from datastore_lab.store import Store

DEFAULT = "datastore_lab_cache.h5"
"""The store of cells that name no other one; in the working folder, which in Jupyter is the notebook's."""


class Places:
    """Gives for each place one shelf.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
        Its variables may hold stores.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._shelves: dict[str, Shelf] = {}
        self._given: dict[str, tuple[Store, Shelf]] = {}

    def is_store(self, word: str) -> bool:
        """Tell whether a word names a store: a path that looks like one, or a variable."""
        return word.lower().endswith(SUFFIXES) or isinstance(self._shell.user_ns.get(word), Store)

    def shelf(self, place: str | None) -> Shelf:
        """Give the shelf of a place; without a place the default one.

        Raises
        ------
        UsageError
            For what is there and can't be opened, as it is damaged or none of ours, or of a newer version.
        """
        found = self._shelf(place)
        try:
            found.place.reading()
        except LabError as error:
            raise UsageError(f"%%cache: {error}") from error
        return found

    def _shelf(self, place: str | None) -> Shelf:
        given = self._shell.user_ns.get(place) if place else None
        if isinstance(given, Store):
            known = self._given.get(str(place))
            if known is None or known[0] is not given:
                known = self._given[str(place)] = given, Shelf(given)
            return known[1]
        where = _address(place)
        if where not in self._shelves:
            self._shelves[where] = Shelf(where)
        return self._shelves[where]

    def used(self) -> list[Shelf]:
        """Give the shelves that this session has used, or else the default one."""
        given = [shelf for store, shelf in self._given.values() if not store.closed]
        return [*given, *self._shelves.values()] or [self.shelf(None)]

    def only(self) -> None:
        """Refuse to guess which of several stores is meant."""
        found = self.used()
        if len(found) > 1:
            names = ", ".join(name(shelf) for shelf in found)
            raise UsageError(f"%cache: this session uses several stores ({names}); name one with --store")

    def instead(self, shelf: Shelf) -> Shelf | None:
        """Give memory to keep results in where the default place can't be used; None for other places."""
        where = _address(None)
        if self._shelves.get(where) is not shelf:
            return None
        self._shelves[where] = Shelf()
        return self._shelves[where]


def name(shelf: Shelf) -> str:
    """Name a place for people: a path as seen from the working folder."""
    address = shelf.place.address
    if address.startswith("memory:"):
        return "memory"
    try:
        return str(Path(address).relative_to(Path.cwd()))
    except ValueError:
        return address


def _address(place: str | None) -> str:
    path = place or DEFAULT
    return path if "://" in path else str(Path(path).expanduser().resolve())
