"""Making records: groups, datasets and what belongs to them.

A node is a group, its arrays are datasets in it, its children are groups in it. Only hard links are
followed: soft and external links, virtual datasets and payload in other files are named in
``meta["lab_refused"]`` and refused when read, since they could lead out of the store.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from h5py import h5d, h5g, h5o, h5p, h5s

from datastore_lab.engines.hdf5 import attrs, describe, dims, links, names, seals, space, sums, types
from datastore_lab.engines.hdf5.models import COMPACT, Models, described
from datastore_lab.folders.threads import begin
from datastore_lab.records import ARRAY_ATTRIBUTES, refusals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.records import Record

_COMPACT_PLIST = h5p.create(h5p.DATASET_CREATE)
_COMPACT_PLIST.set_layout(h5d.COMPACT)
_LARGE = 4 << 20


def make(root: Any, key: Key, url: str, *, bare: bool = False) -> Any:
    """Open the group of a key, with all groups above it, making those that are missing.

    With `bare` the last one is left without a seal, as it gets that of what it will hold.
    """
    group, depth = check_free(root, key, set(), url)
    return make_below(group, key[depth:], bare=bare)


def make_below(group: Any, parts: Key, *, bare: bool = False) -> Any:
    """Make groups that are not there yet, one in the other, and give the last."""
    for part in parts[:-1]:
        group = _make_group(group, part, seals.EMPTY)
    return _make_group(group, parts[-1], None if bare else seals.EMPTY) if parts else group


def _make_group(parent: Any, part: str, seal: bytes | None) -> Any:
    group = h5g.create(parent, links.encode(part), lcpl=links.LINK, gcpl=links.GROUP)
    if seal is not None:
        seals.put_raw(group, seal, new=True)
    return group


def check_free(root: Any, key: Key, taken: set[str], url: str) -> tuple[Any, int]:
    """Keep the names of a node's arrays, dimensions and children distinct.

    Returns
    -------
    group : h5py.h5g.GroupID
        The nearest group that is there already.
    depth : int
        How many parts of the key lead to it.

    Raises
    ------
    AlreadyExists
        If a part of the key is the name of an array, or one of `taken` that of a child.
    """
    group = root
    for depth, part in enumerate(key):
        link = links.link_of(group, part)
        is_group = link is not None and links.kind_of(group, link, part) == h5o.TYPE_GROUP
        if not is_group and (link is not None or part in dimension_names(group)):
            raise refusals.array_above(key, depth, url)
        if not is_group:
            return group, depth
        group = h5g.open(group, link)
    for name in taken:
        link = links.link_of(group, name)
        if link is not None and links.kind_of(group, link, name) == h5o.TYPE_GROUP:
            raise refusals.child_named(key, name, url)
    return group, len(key)


def dimension_names(group: Any) -> set[str]:
    """Collect the dimension names that no dataset of the group stands for."""
    found: set[str] = set()
    if not attrs.has(group, names.KIND):  # no record of ours: spares a look at every child of a large group
        return found
    for link in links.contents(group).datasets:
        found.update(attrs.get(h5d.open(group, link), dims.NAMES) or ())
    return found


def array_names(group: Any) -> list[str]:
    """List the names of the arrays of a node."""
    return [name for name, _dataset in describe.datasets(group, links.contents(group))]


def put_array_attributes(dataset: Any, values: Any) -> None:
    """Replace the user's attributes of an array."""
    hidden = names.reserved(dataset)
    attrs.remove(dataset, hidden)
    attrs.put_all(dataset, values, hidden)


def clear(group: Any) -> None:
    """Remove the record of a node: datasets, dimensions and attributes; children stay."""
    found = links.contents(group).datasets
    with links.pinned(group) if found else nullcontext():
        for link in found:
            group.unlink(link)
    attrs.remove(group)


def create(group: Any, link: bytes | None, carried: types.Carried) -> tuple[Any, str | None]:
    """Write a dataset in one piece; gives its sum too, if that is to go into the seal."""
    data = carried.data
    kind, space = types.file_type(data.dtype), _space(data.shape)
    small = 0 < data.nbytes <= COMPACT
    plist = _COMPACT_PLIST if small else None
    dataset = h5d.create(group, link, kind, space, plist, lcpl=link and links.LINK)
    if small and not data.dtype.hasobject:
        _fill(dataset, data)
        attrs.put_all(dataset, carried.attributes)
        return dataset, f"{sums.of(data):016x}"
    blocks = sums.cut(data.shape, data.dtype, None)
    found = _fill_and_sum(dataset, data, blocks)
    attrs.put_all(dataset, carried.attributes)
    return dataset, _keep(dataset, blocks, found)


def put_dataset(root: Any, name: str, carried: types.Carried) -> None:
    """Put a dataset into a root that holds no record, in the place of one of this name if there is one."""
    if attrs.has(root, seals.NAME):  # of an empty root: from here on it is like that of another program
        attrs.discard(root, seals.NAME)
    drop_dataset(root, name)
    create(root, links.encode(name), carried)


def drop_dataset(root: Any, name: str) -> None:
    """Remove a dataset of the root, if it is there."""
    link = links.link_of(root, name)
    if link is not None:
        space.note(root, space.held(root, link))
        with links.pinned(root):
            root.unlink(link)


def _fill(dataset: Any, data: NDArray[Any]) -> None:
    if data.size:
        dataset.write(h5s.ALL, h5s.ALL, data, types.memory_type(data.dtype))


def _fill_and_sum(dataset: Any, data: NDArray[Any], blocks: sums.Blocks) -> list[int]:
    """Write an array; the sums of a large one are made beside it, as copying keeps but one core busy."""
    if data.nbytes < _LARGE or data.dtype.hasobject:
        _fill(dataset, data)
        return sums.of_all(data, blocks)
    with ThreadPoolExecutor(1, "sum") as pool:
        found = begin(pool, sums.of_all, data, blocks)
        _fill(dataset, data)
    return found.result()


def _keep(dataset: Any, blocks: sums.Blocks, found: list[int]) -> str | None:
    """Give the sum of an array, for the seal; those of more than one block go to the dataset."""
    if blocks.total > 1:
        sums.put(dataset, found)
        return None
    return f"{found[0]:016x}" if found else ""


@functools.lru_cache(maxsize=64)
def _space(shape: tuple[int, ...]) -> Any:
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def put_new(
    group: Any, parts: Key, record: Record, carried: dict[str, types.Carried], models: Models
) -> None:
    """Put a record where there is nothing yet, below a group that there is."""
    parent, link = make_below(group, parts[:-1]), links.encode(parts[-1])
    if models.put(parent, link, record, carried):
        if record.meta:
            put_meta(h5g.open(parent, link), record.meta, ())
    else:
        put_record(_make_group(parent, parts[-1], None), record, carried, fresh=True)


def put_record(group: Any, record: Record, carried: dict[str, types.Carried], *, fresh: bool) -> None:
    """Replace the record of a node; a `fresh` one holds nothing yet."""
    made = {name: create(group, links.encode(name) if fresh else None, one) for name, one in carried.items()}
    if not fresh:
        clear(group)
        for name, (dataset, _sum) in made.items():
            h5o.link(dataset, group, links.encode(name), lcpl=links.LINK)
    attrs.put(group, names.KIND, record.kind, new=True)
    put_meta(group, record.meta, made)
    if record.dims:
        dims.put_dims(group, record.dims, {name: dataset.shape for name, (dataset, _sum) in made.items()})
    found = _held(made)
    if ARRAY_ATTRIBUTES in record.meta:  # how these are spread over the arrays is best seen in the file
        describe.seal(group, found)
    else:
        seals.put(group, described(record, carried), found, new=True)


def _held(made: dict[str, tuple[Any, str | None]]) -> dict[str, str | None] | None:
    """Give the sums that the seal will hold; where they are too many for it, put them on the datasets."""
    found = {name: value for name, (_dataset, value) in made.items()}
    if seals.fits(found):
        return found
    for dataset, value in made.values():
        if value:
            sums.put(dataset, [int(value, 16)])
    return None


def drop_meta(group: Any, dropped: Iterable[str]) -> None:
    """Remove attributes of a node, those that are there."""
    for name in dropped:
        attrs.discard(group, attrs.escape(name, names.NODE_RESERVED))


def put_meta(group: Any, meta: Mapping[str, Any], array_names: Iterable[str]) -> None:
    """Merge entries into the attributes of a node; those of its arrays go to the arrays."""
    for name, value in meta.items():
        if name == ARRAY_ATTRIBUTES and isinstance(value, Mapping):
            _put_spread(group, value, set(array_names))
        else:
            attrs.put(group, attrs.escape(name, names.NODE_RESERVED), value)


def _put_spread(group: Any, value: Mapping[str, Any], array_names: set[str]) -> None:
    """Put attributes on the arrays that they belong to, and what belongs to none on the node."""
    rest = dict(value)
    for name in array_names:
        own = value.get(name)
        fits = isinstance(own, Mapping)
        put_array_attributes(h5d.open(group, links.link_of(group, name)), own if fits else {})
        if fits and own:
            del rest[name]
    attrs.discard(group, ARRAY_ATTRIBUTES)
    if rest or not value:
        attrs.put(group, ARRAY_ATTRIBUTES, rest)
