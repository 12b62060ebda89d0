"""Going over the tree, past what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h5py import h5g, h5o

from datastore_lab.engines.hdf5 import attrs, describe, links, names, seals
from datastore_lab.keys import DEEPEST, Key

_FAULTS = (OSError, RuntimeError, KeyError, ValueError)  # KeyError: HDF5's for what it can't open


def children(root: Any, key: Key, wanted: list[bytes]) -> list[bytes]:
    """List those of some links that are still there and lead to groups, or to what may be a damaged one."""
    group = links.find(root, key)
    if group is None:
        return []
    there = [link for link in wanted if group.links.exists(link)]
    found = _below(group, links.sort(group, there))
    return [link for link in there if link in set(found)]


def _below(group: Any, found: links.Contents) -> list[bytes]:
    if not found.damaged:
        return found.groups
    seal = seals.get(group)
    arrays = {} if seal is None else seal.sums or {}
    return found.groups + [link for link in found.damaged if links.decode(link) not in arrays]


def keys(group: Any, key: Key) -> Iterator[Key]:
    """Yield the keys of records at or below a node; those that can't be opened may be some."""
    for at, node, error in _walk(group, key, frozenset()):
        if error is not None or _is_record(node):
            yield at


def _is_record(group: Any) -> bool:
    try:
        return attrs.has(group, names.KIND) or any(describe.datasets(group, links.contents(group)))
    except _FAULTS:
        return True


def nodes(group: Any, key: Key) -> Iterator[tuple[Key, Exception | None]]:
    """Yield the keys of all nodes at or below one, with the error of those that can't be opened."""
    for at, _node, error in _walk(group, key, frozenset()):
        yield at, error


def _walk(group: Any, key: Key, above: frozenset[int]) -> Iterator[tuple[Key, Any, Exception | None]]:
    """Go down; a group that contains itself, as only a hostile file does, is left out."""
    try:
        address = h5o.get_info(group).addr
        if address in above:
            return
        below = _below(group, links.contents(group))
    except _FAULTS as error:
        yield key, group, error
        return
    yield key, group, None
    for link in below if len(key) < DEEPEST else ():
        at = (*key, links.decode(link))
        try:
            child = h5g.open(group, link)
        except _FAULTS as error:
            yield at, None, error
            continue
        yield from _walk(child, at, above | {address})
