"""Verifying nodes, and mending what can be mended without guessing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from h5py import h5, h5a, h5d

from datastore_lab import integrity
from datastore_lab.engines.hdf5 import attrs, describe, dims, links, names, payload, sums
from datastore_lab.errors import LabError
from datastore_lab.records import ARRAYS, GROUP, Problem, Repair

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.payload import Source
    from datastore_lab.keys import Key

_FAULTS = (LabError, OSError, RuntimeError, KeyError, ValueError, TypeError)


def problems(root: Any, key: Key, source: Source) -> Iterator[Problem]:
    """Read all of a node and yield what is not as it was written."""
    group = links.find(root, key)
    if group is None:
        return  # deleted meanwhile
    try:
        _read_indexes(group)
        node = describe.describe(group, key)
    except _FAULTS as error:
        yield Problem(key, None, f"can't be read: {error}")
        return
    if lost := node.lost():
        yield from (Problem(key, name, "HDF5 can't open it: what describes it is damaged") for name in lost)
    else:
        yield from _broken_seal(key, node, source)
    for name, array in node.arrays.items():
        try:
            yield from (Problem(key, name, what) for what in payload.damage(array, name, key, source))
        except _FAULTS as error:
            yield Problem(key, name, f"can't be read: {error}")
    yield from (Problem(key, dim, _STAND_IN) for dim, _dataset, _length in _wrong_stand_ins(group, node))


_STAND_IN = "the stand-in of this dimension has another length than the arrays"


def _broken_seal(key: Key, node: describe.Node, source: Source) -> Iterator[Problem]:
    if node.seal is None and node.stat.kind in {GROUP, ARRAYS}:
        return
    try:
        integrity.check_seal(key, node.stat, node.seal and node.seal.digest, source.url)
    except LabError as error:
        yield Problem(key, None, str(error))


def _read_indexes(group: Any) -> None:
    """Read what HDF5 keeps of a group twice, by name and by order: each has checksums of its own."""
    for index in (h5.INDEX_NAME, h5.INDEX_CRT_ORDER):
        if index == h5.INDEX_CRT_ORDER and not group.get_create_plist().get_link_creation_order():
            continue
        group.links.iterate(lambda _name: None, idx_type=index)
    h5a.iterate(group, lambda _name: None, index_type=h5.INDEX_NAME)


def _wrong_stand_ins(group: Any, node: describe.Node) -> Iterator[tuple[str, Any, int]]:
    """Yield the growing dimensions whose stand-in is not as long as the arrays, with what is right."""
    if node.seal is None or node.stat.kind in {GROUP, ARRAYS}:
        return
    lengths = {info.dims[0]: info.shape[0] for info in node.stat.arrays.values() if info.chunks and info.dims}
    for dim, length in lengths.items():
        link = links.link_of(group, dim)
        if link is None or dim in node.arrays:
            continue
        dataset = h5d.open(group, link)
        if dims.is_dummy(dataset) and dataset.shape != (length,):
            yield dim, dataset, length


def mend(root: Any, key: Key, source: Source, *, accept: bool) -> Iterator[Repair]:
    """Mend one node that has problems; what is left of them is yielded as not mended."""
    group = links.find(root, key)
    if group is not None:
        try:
            yield from _mend(group, key, source, accept=accept)
        except _FAULTS as error:
            yield Repair(key, None, f"can't be mended: {error}; restore it from a copy", mended=False)
            return
    yield from (Repair(*found, mended=False) for found in problems(root, key, source))


def _mend(group: Any, key: Key, source: Source, *, accept: bool) -> Iterator[Repair]:
    node = describe.describe(group, key)
    for dim, dataset, length in _wrong_stand_ins(group, node):
        dataset.set_extent((length,))
        yield Repair(
            key, dim, f"made the stand-in of this dimension {length} long, as the arrays are", mended=True
        )
    if accept:
        yield from _accept(group, key, source)


def _accept(group: Any, key: Key, source: Source) -> Iterator[Repair]:
    """Take what is readable as it is, with new sums and a new seal.

    What HDF5 can't open it can't unlink either; a seal without it would turn it into a child that closes the
    listing of the whole file.
    """
    node = describe.describe(group, key)
    if node.lost() or (node.seal is None and not attrs.has(group, names.KIND)):
        return
    held: dict[str, str | None] = dict(node.seal.sums or {}) if node.seal is not None else {}
    for name, array in node.arrays.items():
        own = array._replace(own=True)
        if list(payload.damage(own, name, key, source)):
            held[name] = _accept_array(own, name, key, source)
            yield Repair(key, name, "took the data as it is now, with new checksums", mended=True)
    before = node.seal and node.seal.digest
    describe.seal(group, held)
    if before != integrity.seal(node.stat):
        yield Repair(key, None, "took the description as it is now, with a new seal", mended=True)


def _accept_array(array: payload.Array, name: str, key: Key, source: Source) -> str | None:
    made = payload.make_sums(array, name, key, source)
    sums.discard(array.dataset)
    if array.info.chunks is not None:
        sums.put_some(array.dataset, dict(enumerate(made)))
        return None
    if len(made) > 1:
        sums.put(array.dataset, made)
        return None
    return f"{made[0]:016x}" if made else ""
