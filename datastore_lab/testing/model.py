"""The simplest store that can be: a mapping of keys to records, with the rules of the tree."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import AlreadyExists, BadKey, NotFound
from datastore_lab.records import GROUP, Record

if TYPE_CHECKING:
    from datastore_lab.keys import Key


class Model:
    """What a store should hold.

    Attributes
    ----------
    records : dict of Key to Record
    groups : dict of Key to dict
        Attributes of the nodes without a record, the root among them.
    """

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.groups: dict[Key, dict[str, Any]] = {(): {}}

    def copy(self) -> Model:
        """Give a model of its own; records are never changed in place."""
        twin = Model()
        twin.records, twin.groups = dict(self.records), copy.deepcopy(self.groups)
        return twin

    def nodes(self) -> Iterator[Key]:
        """Yield all nodes."""
        yield from self.groups
        yield from self.records

    def has(self, key: Key) -> bool:
        """Say whether there is a node."""
        return key in self.records or key in self.groups

    def children(self, key: Key) -> set[str]:
        """Give the names of the children of a node."""
        return {
            node[len(key)] for node in self.nodes() if len(node) == len(key) + 1 and node[: len(key)] == key
        }

    def kind(self, key: Key) -> str:
        """Give the kind of a node."""
        return self.records[key].kind if key in self.records else GROUP

    def meta(self, key: Key) -> Any:
        """Give the attributes of a node."""
        return self.records[key].meta if key in self.records else self.groups[key]

    def write(self, key: Key, record: Record) -> None:
        """Put a record."""
        self._check_above(key)
        if names(record) & self.children(key):
            raise AlreadyExists(f"{key} has a child of this name")
        self._make_above(key)
        self.groups.pop(key, None)
        self.records[key] = record

    def begin(self, key: Key, record: Record) -> None:
        """Put a record where none is."""
        if key in self.records:
            raise AlreadyExists(f"there is a record at {key}")
        self.write(key, record)

    def update(self, key: Key, meta: dict[str, Any]) -> None:
        """Merge attributes."""
        self._check_there(key)
        if key in self.records:
            record = self.records[key]
            self.records[key] = record._replace(meta={**record.meta, **meta})
        else:
            self.groups[key].update(meta)

    def move(self, old: Key, new: Key) -> None:
        """Move a subtree."""
        self._check_there(old)
        if new[: len(old)] == old:
            raise BadKey(f"{old} can't be moved into itself")
        if self.has(new):
            raise AlreadyExists(f"there is something at {new}")
        self._check_above(new)
        self._make_above(new)
        for nodes in (self.records, self.groups):
            for key in [key for key in nodes if key[: len(old)] == old]:
                nodes[(*new, *key[len(old) :])] = nodes.pop(key)  # type: ignore[assignment]

    def delete(self, key: Key) -> None:
        """Delete a subtree."""
        self._check_there(key)
        for nodes in (self.records, self.groups):
            for below in [below for below in nodes if below[: len(key)] == key]:
                del nodes[below]

    def _check_there(self, key: Key) -> None:
        if not self.has(key):
            raise NotFound(f"there is nothing at {key}")

    def _check_above(self, key: Key) -> None:
        for depth, part in enumerate(key):
            above = self.records.get(key[:depth])
            if above is not None and part in names(above):
                raise AlreadyExists(f"{key[:depth]} has an array or dimension {part!r}")

    def _make_above(self, key: Key) -> None:
        for depth in range(len(key)):
            if not self.has(key[:depth]):
                self.groups[key[:depth]] = {}


def names(record: Record) -> set[str]:
    """Give the names that a record takes in its node: arrays and named dimensions."""
    return {*record.arrays, *itertools.chain.from_iterable(record.dims.values())}
