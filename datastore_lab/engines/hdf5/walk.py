"""Going over the tree, past what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from h5py import h5g, h5o

from datastore_lab.engines.hdf5 import attrs, describe, links, names, seals
from datastore_lab.keys import DEEPEST, Key

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.quick import Quick

_FAULTS = (OSError, RuntimeError, KeyError, ValueError)  # KeyError: HDF5's for what it can't open


def first_children(group: Any, count: int) -> tuple[list[bytes], list[bytes]]:
    """List the first links of a group, and those of them that may lead to groups."""
    looked = links.first(group, count)
    return looked, _open_below(group, looked)


def other_links(group: Any, looked: list[bytes]) -> list[bytes]:
    """List the links of a group but those that were looked at before."""
    before = set(looked)
    return [link for link in group if link not in before]


def children(root: Any, key: Key, wanted: list[bytes]) -> list[bytes]:
    """List those of some links that are still there and lead to groups, or to what may be a damaged one."""
    group = links.find(root, key)
    if group is None:
        return []
    return _open_below(group, [link for link in wanted if group.links.exists(link)])


def _open_below(group: Any, wanted: list[bytes]) -> list[bytes]:
    found = set(_below(group, links.sort(group, wanted)))
    return [link for link in wanted if link in found]


def _below(group: Any, found: links.Contents) -> list[bytes]:
    if not found.damaged:
        return found.groups
    seal = seals.get(group)
    arrays = {} if seal is None else seal.sums or {}
    return found.groups + [link for link in found.damaged if links.decode(link) not in arrays]


def keys(group: Any, key: Key, quick: Quick | None) -> tuple[list[Key], list[Key]]:
    """List the records at or below a node, and those damaged nodes below which there may be more.

    What can't be opened may be a record, and is listed.
    """
    found, closed = [], []
    for at, node, error in _walk(group, key, frozenset()):
        if error is not None or _is_record(node):
            found.append(at)
        if error is not None:
            closed.append(at)
    return found, [at for at in closed if _may_hold_others(group, at[len(key) :], quick)]


def _may_hold_others(root: Any, key: Key, quick: Quick | None) -> bool:
    """Say whether there may be nodes below one that HDF5 can't open; a record alone mostly shows it."""
    if quick is None:
        return True
    try:
        return not quick.seems_alone(links.address(root, key))
    except links.Unusual:
        return True


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
