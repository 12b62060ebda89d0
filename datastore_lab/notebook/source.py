"""What the browser shows: the nodes and arrays of a store as rows, in pages, without reading payloads."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from datastore_lab.errors import NotFound
from datastore_lab.notebook import text
from datastore_lab.records import ARRAYS, ArrayInfo, Stat
from datastore_lab.units import format_size

if TYPE_CHECKING:
    from datastore_lab.keys import Key
    from datastore_lab.store import Store

_REMEMBERED = 64
"""Nodes whose list of names is kept; a list of 100,000 names takes about 10 MB."""

_SINGLE = frozenset({"array", "value"})
"""Kinds whose arrays are shown in the preview only: a row of its own would say nothing more."""


class Listing(NamedTuple):
    """Names below one node: the child nodes first, then its arrays."""

    revision: int
    nodes: list[str]
    arrays: list[str]


class Source:
    """Rows of a store, as plain JSON for the page.

    Parameters
    ----------
    store : Store

    Examples
    --------
    >>> from datastore_lab import open_store
    >>> store = open_store("memory://")
    >>> store["gain"] = 2.5
    >>> total, rows = Source(store).page((), 0, 10)
    >>> total, rows[0]["name"], rows[0]["leaf"]
    (1, 'gain', True)
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._listings: OrderedDict[Key, Listing] = OrderedDict()

    def page(self, key: Key, start: int, count: int) -> tuple[int, list[dict[str, Any]]]:
        """Give the number of rows below a node, and `count` of them from `start` on."""
        listing = self._listing(key)
        nodes = listing.nodes[start : start + count]
        rest = max(0, start - len(listing.nodes))
        names = listing.arrays[rest : rest + count - len(nodes)]
        infos = self.store.stat(key).arrays if names else {}
        rows = [self._node_row(key, name) for name in nodes]
        rows += [array_row(name, infos[name]) for name in names if name in infos]
        return len(listing.nodes) + len(listing.arrays), rows

    def _listing(self, key: Key) -> Listing:
        revision = self.store.revision()
        known = self._listings.get(key)
        if known is None or known.revision != revision:
            known = Listing(revision, list(self._children(key)), self._arrays(key))
            self._listings[key] = known
            while len(self._listings) > _REMEMBERED:
                self._listings.popitem(last=False)
        self._listings.move_to_end(key)
        return known

    def _children(self, key: Key) -> list[str]:
        try:
            return list(self.store.children(key))
        except NotFound:
            if key:
                raise
            return []  # a view on a place where nothing has been stored yet

    def _arrays(self, key: Key) -> list[str]:
        try:
            return list(self.store.stat(key).arrays)
        except NotFound:
            if key:
                raise
            return []

    def _node_row(self, key: Key, name: str) -> dict[str, Any]:
        child = (*key, name)
        try:
            stat = self.store.stat(child)
            leaf = not self._expands(child, stat)
        except Exception as error:  # whatever a damaged item raises is shown in its row
            return {"name": name, "kind": "error", "leaf": True, "error": f"{type(error).__name__}: {error}"}
        return node_row(name, stat, leaf=leaf)

    def _expands(self, key: Key, stat: Stat) -> bool:
        if stat.arrays and stat.kind not in _SINGLE:
            return True
        return any(True for _ in itertools.islice(self.store.children(key), 1))


def node_row(name: str, stat: Stat, *, leaf: bool) -> dict[str, Any]:
    """Describe a node in one row: kind, type, shape and size."""
    row = {"name": name, "kind": stat.kind, "leaf": leaf}
    if not stat.arrays:
        return row
    row["size"] = format_size(sum(info.nbytes for info in stat.arrays.values()))
    if len(stat.arrays) == 1:
        info = next(iter(stat.arrays.values()))
        return {**row, "type": text.dtype(info.dtype), "shape": text.shape(info.shape)}
    row["type"] = f"{len(stat.arrays)} arrays"
    lengths = {info.shape[:1] for info in stat.arrays.values()}
    if len(lengths) == 1 and stat.kind != ARRAYS:
        row["shape"] = text.shape(lengths.pop())
    return row


def array_row(name: str, info: ArrayInfo) -> dict[str, Any]:
    """Describe one array of a node in one row."""
    return {
        "name": name,
        "kind": "data",
        "leaf": True,
        "array": True,
        "type": text.dtype(info.dtype),
        "shape": text.shape(info.shape),
        "size": format_size(info.nbytes),
    }
