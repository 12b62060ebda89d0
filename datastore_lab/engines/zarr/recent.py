"""The nodes in a local folder, and what the last looks at them have found."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from datastore_lab.engines.zarr.meta import METADATA, ArrayDoc, escape
from datastore_lab.engines.zarr.places import FolderPlace
from datastore_lab.engines.zarr.tree import Node, Tree
from datastore_lab.errors import LabError

if TYPE_CHECKING:
    from datastore_lab.folders.overlay import Overlay
    from datastore_lab.keys import Key
    from datastore_lab.records import Stat

_REMEMBERED = 16


class _Seen(NamedTuple):
    mark: object
    node: Node
    docs: dict[str, ArrayDoc]


class FolderTree(Tree[FolderPlace]):
    """The nodes in a folder.

    Who reads an item asks what it is, and then for each of its arrays: the metadata that was found and
    checked for the first question is good for the others, as long as the node's own is the same file and
    nothing was committed. It holds the digests of all the rest. Data is checked at every read.
    """

    def __init__(self, place: FolderPlace) -> None:
        super().__init__(place)
        self._recent: dict[Key, _Seen] = {}

    @property
    def overlay(self) -> Overlay:
        """The pending changes."""
        return self.place.overlay

    def reset(self) -> None:
        """Forget the pending changes, and what was looked at."""
        self.place.reset()
        self.forget()
        self._recent.clear()

    def stat(self, key: Key) -> Stat:
        mark = self._mark(key)  # before: what is replaced meanwhile is then read again
        node = self.node(key)
        docs = self.arrays(node)
        if mark is not None and node.is_ours and node.parts == tuple(map(escape, key)):
            if len(self._recent) >= _REMEMBERED:
                self._recent.clear()
            self._recent[key] = _Seen(mark, node, docs)
        return self.describe(node, docs)

    def array_seen(self, key: Key, name: str) -> tuple[Node, str, ArrayDoc]:
        seen = self._recent.get(key)
        if seen is not None and name in seen.docs and self._mark(key) == seen.mark:
            return seen.node, escape(name), seen.docs[name]
        return self.array_of(key, name)

    def _mark(self, key: Key) -> object | None:
        """Give something that is another one after each commit, and once the node's metadata is replaced."""
        try:
            mark = self.place.mark((*map(escape, key), METADATA))
            return mark and (mark, os.stat(os.path.join(self.root, METADATA)).st_mtime_ns)
        except (LabError, OSError):
            return None
