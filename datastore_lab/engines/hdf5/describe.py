"""What a node holds, read without payload, and held against its seal."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from h5py import h5d, h5o

from datastore_lab import dtypes, integrity
from datastore_lab.engines.hdf5 import attrs, dims, links, names, seals, sums, types
from datastore_lab.engines.hdf5.payload import Array
from datastore_lab.errors import Corrupt, Foreign, NotStorable, Untrusted
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, ARRAYS, GROUP, ArrayInfo, Stat, default_dims, refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_FEW = 256
"""So many links of a sealed node are looked at one by one; of more, its seal tells which are arrays."""


class Node(NamedTuple):
    """A node as it is in the file.

    Attributes
    ----------
    stat : Stat
        Without what is refused.
    arrays : mapping of str to Array
    refused : mapping of str to str
        What is not read, with the reason.
    damaged : list of bytes
        Links to what HDF5 can't make sense of.
    seal : Seal or None
    """

    stat: Stat
    arrays: Mapping[str, Array]
    refused: Mapping[str, str]
    damaged: list[bytes]
    seal: seals.Seal | None

    def lost(self) -> list[str]:
        """Name the arrays that the seal knows and HDF5 can't open."""
        known = set() if self.seal is None or self.seal.sums is None else set(self.seal.sums)
        return [name for name in map(links.decode, self.damaged) if name in known]

    def shown(self) -> Stat:
        """Give a description of the caller's own, with the names of what is refused."""
        kind, arrays, meta = self.stat
        own = copy.deepcopy(dict(meta)) if meta else {}
        if self.refused:
            own[names.REFUSED] = dict(self.refused)
        return Stat(kind, dict(arrays), own)


def checked(group: Any, key: Key, url: str) -> Node:
    """Describe a node, which has to be as it was sealed.

    Raises
    ------
    Corrupt
    """
    node = describe(group, key)
    if lost := node.lost():
        raise Corrupt(
            f"{lost} of {show(key)!r} in {url} can't be opened by HDF5: what describes it is damaged; "
            "restore the item from a copy",
            key=key,
        )
    if node.seal is not None or node.stat.kind not in {GROUP, ARRAYS}:
        seals.check(key, node.stat, node.seal, url)
    return node


def describe(group: Any, key: Key = ()) -> Node:
    """Describe a node as it is."""
    seal = seals.get(group, key)
    found = _contents(group, seal)
    beside = links.addresses(group, found.datasets)
    arrays = {name: _array(name, dataset, seal, beside) for name, dataset in datasets(group, found)}
    kind = attrs.get(group, names.KIND)
    if not isinstance(kind, str):
        kind = ARRAYS if arrays else GROUP
    stat = Stat(kind, {name: array.info for name, array in arrays.items()}, _meta(group, arrays))
    return Node(stat, arrays, found.refused, found.damaged, seal)


def _contents(group: Any, seal: seals.Seal | None) -> links.Contents:
    """Sort the links of a group, or, where they are many, only those of the arrays that the seal names."""
    if seal is None or seal.sums is None or len(group) <= _FEW + 2 * len(seal.sums):
        return links.contents(group)
    wanted = [link for name in seal.sums if (link := links.link_of(group, name)) is not None]
    return links.sort(group, wanted)


def datasets(group: Any, found: links.Contents) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset of every array of a node; adds to `found` what can't be one."""
    for link in found.datasets:
        dataset = h5d.open(group, link)
        if dims.is_dummy(dataset):
            continue
        reason = refusal(dataset)
        if reason is None:
            yield links.decode(link), dataset
        else:
            found.refused[links.decode(link)] = reason


def dataset_of(root: Any, name: str, url: str) -> Array:
    """Describe one dataset of a root that holds no record, without a look at the others.

    Raises
    ------
    NotFound, Foreign
    """
    link = links.link_of(root, name)
    if link is None or links.kind_of(root, link, name) != h5o.TYPE_DATASET:
        raise refusals.no_array((), name, (), url)
    dataset = h5d.open(root, link)
    if (reason := refusal(dataset)) is not None:
        raise Foreign(f"{name!r} in {url} is {reason}; it is not read", key=name)
    return _array(name, dataset, None, {})


def refusal(dataset: Any) -> str | None:
    """Say why a dataset can't be read; None if it can."""
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL:
        return "a virtual dataset, whose data lies in other files"
    if plist.get_external_count():
        return "a dataset whose data lies in another file"
    if dataset.shape is None:
        return "an empty dataset without a shape"
    try:
        dtype = dataset.dtype
        if dtype.hasobject and not types.is_text(dtype):
            return f"a dataset of {dtype}, references or lists of varying length"
        types.declared(dtype, {types.TYPE: attrs.get(dataset, types.TYPE)})
    except (TypeError, ValueError, NotStorable, Corrupt) as error:
        return f"a dataset of a type that numpy lacks ({error})"
    return None


def explain(group: Any, key: Key, name: str, node: Node, url: str) -> Exception:
    """Make the error for an array that is not there to be read."""
    reason = node.refused.get(name)
    if reason is not None:
        kind = (
            Untrusted if "other file" in reason or "another file" in reason or "link" in reason else Foreign
        )
        return kind(f"{name!r} of {show(key)!r} in {url} is {reason}; it is not read", key=key)
    if (link := links.link_of(group, name)) in node.damaged and link is not None:
        return Corrupt(f"{name!r} of {show(key)!r} in {url} is damaged: HDF5 can't open it", key=key)
    return refusals.no_array(key, name, node.arrays, url)


def _array(name: str, dataset: Any, seal: seals.Seal | None, beside: Mapping[int, bytes]) -> Array:
    native = dataset.dtype
    declared = {kept: attrs.get(dataset, kept) for kept in (types.TYPE, types.ESCAPED)}
    layout, chunks = sums.layout_of(dataset)
    shape, dtype = tuple(int(size) for size in dataset.shape), types.declared(native, declared)
    own = dims.read_dims(name, dataset, beside) or default_dims(name, len(shape))
    info = ArrayInfo(dtype, shape, own, math.prod(shape) * dtypes.parse(dtype).itemsize, chunks)
    found = None if seal is None or seal.sums is None else seal.sums.get(name)
    return Array(dataset, info, native, layout, declared, found, seal is not None)


def _meta(group: Any, arrays: Mapping[str, Array]) -> dict[str, Any]:
    meta = {
        attrs.unescape(name, names.NODE_RESERVED): value
        for name, value in attrs.items(group, names.NODE_RESERVED)
    }
    on_arrays = {name: own for name, array in arrays.items() if (own := array_attributes(array.dataset))}
    if on_arrays:
        rest = meta.get(ARRAY_ATTRIBUTES)
        meta[ARRAY_ATTRIBUTES] = {**(rest if isinstance(rest, dict) else {}), **on_arrays}
    return meta


def array_attributes(dataset: Any) -> dict[str, Any]:
    """Give the attributes of an array that are the user's."""
    hidden = names.reserved(dataset)
    return {attrs.unescape(name, hidden): value for name, value in attrs.items(dataset, hidden)}


def fingerprint(group: Any, key: Key, look: Callable[[], Node]) -> str:
    """Give what tells the data of a node from other data; see `Engine.fingerprint`.

    Of a record that grows the seal says it, without a closer look: it has to be cheap after every flush.
    """
    found = seals.get(group, key)
    if found is not None and found.birth is not None:
        return integrity.fingerprint(Stat(GROUP, {}, {}), {}, found.birth)
    node = look()
    return integrity.fingerprint(node.stat, {name: _sums(array) for name, array in node.arrays.items()})


def _sums(array: Array) -> object:
    """Give all sums of an array; where another program made it, where it is in the file."""
    if array.sum is not None:
        return array.sum
    blocks = sums.cut(array.info.shape, array.native, array.info.chunks)
    return sorted(sums.get(array.dataset, range(blocks.total)).items()) or h5o.get_info(array.dataset).addr


def seal(group: Any, found: Mapping[str, str | None] | None = None, *, birth: str | None = None) -> None:
    """Seal a node as it is; what its old seal holds of sums and birth stays, unless others are given."""
    node = describe(group)
    birth = birth or (node.seal and node.seal.birth)
    held = found if found is not None else node.seal.sums if node.seal is not None else {}
    if held is not None:
        held = {name: held.get(name) for name in node.arrays}
    seals.put(group, node.stat, held, birth=birth)
