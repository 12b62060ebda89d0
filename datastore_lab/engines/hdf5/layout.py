"""Records as HDF5 groups: links, datasets and what belongs to them.

A node is a group, its arrays are datasets in it, its children are groups in it. Only hard links are
followed: soft and external links, virtual datasets and payload in other files are named in
``meta["lab_refused"]`` and refused when read, since they could lead out of the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5d, h5g, h5o, h5s, h5t

from datastore_lab import dtypes, media
from datastore_lab.engines.hdf5 import attrs, dims, links, types
from datastore_lab.errors import AlreadyExists, Corrupt, Foreign, NotFound, NotStorable, Untrusted
from datastore_lab.keys import Key, show
from datastore_lab.records import (
    ARRAY_ATTRIBUTES,
    ARRAYS,
    GROUP,
    ArrayInfo,
    Selection,
    Stat,
    default_dims,
    normalise_selection,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.records import Record

KIND = "lab_kind"
CHECKSUM = "lab_xxh3"
REFUSED = "lab_refused"
NODE_RESERVED = frozenset({KIND, REFUSED, "_NCProperties"})
SCALE_NAMES = frozenset({"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"})
_SUSPICIOUS = 256 << 20
_RATIO = 1100  # deflate, the common filter, shrinks at most to 1/1032
ARRAY_RESERVED = SCALE_NAMES | {
    CHECKSUM, dims.NAMES, types.TYPE, types.ESCAPED, "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict",
}  # fmt: skip


def make(root: Any, key: Key) -> Any:
    """Open the group of a key, with all groups above it, making those that are missing."""
    group = root
    for depth, part in enumerate(key):
        link = links.link_of(group, part)
        if link is not None and links.kind_of(group, link, part) == h5o.TYPE_GROUP:
            group = h5g.open(group, link)
            continue
        if link is not None or part in dimension_names(group):
            raise AlreadyExists(f"{show(key[:depth])!r} has an array or dimension named {part!r}", key=key)
        group = h5g.create(group, media.escape_link(part).encode(), lcpl=links.LINK, gcpl=links.GROUP)
    return group


def check_free(root: Any, key: Key, names: set[str]) -> None:
    """Keep the names of a node's arrays, dimensions and children distinct.

    Raises
    ------
    AlreadyExists
        If a part of the key is the name of an array, or one of `names` that of a child.
    """
    group = root
    for depth, part in enumerate(key):
        link = links.link_of(group, part)
        is_group = link is not None and links.kind_of(group, link, part) == h5o.TYPE_GROUP
        if not is_group and (link is not None or part in dimension_names(group)):
            raise AlreadyExists(f"{show(key[:depth])!r} has an array or dimension named {part!r}", key=key)
        if not is_group:
            return
        group = h5g.open(group, link)
    for name in names:
        link = links.link_of(group, name)
        if link is not None and links.kind_of(group, link, name) == h5o.TYPE_GROUP:
            raise AlreadyExists(f"{show(key)!r} has a child named {name!r}", key=key)


def dimension_names(group: Any) -> set[str]:
    """Collect the dimension names that no dataset of the group stands for."""
    found: set[str] = set()
    if not attrs.has(group, KIND):  # no record of ours: spares a look at every child of a large group
        return found
    for link in links.contents(group).datasets:
        found.update(attrs.get(h5d.open(group, link), dims.NAMES) or ())
    return found


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


def arrays(group: Any, found: links.Contents) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset of every array of a node; adds to `found.refused` what can't be one."""
    for link in found.datasets:
        dataset = h5d.open(group, link)
        if dims.is_dummy(dataset):
            continue
        reason = refusal(dataset)
        if reason is None:
            yield links.decode(link), dataset
        else:
            found.refused[links.decode(link)] = reason


def array_names(group: Any) -> list[str]:
    """List the names of the arrays of a node."""
    return [name for name, _dataset in arrays(group, links.contents(group))]


def open_array(group: Any, key: Key, name: str) -> Any:
    """Open one array of a node.

    Raises
    ------
    NotFound, Untrusted, Foreign
    """
    link = links.link_of(group, name)
    if link is not None and links.kind_of(group, link, name) == h5o.TYPE_DATASET:
        dataset = h5d.open(group, link)
        if not dims.is_dummy(dataset):
            reason = refusal(dataset)
            if reason is None:
                return dataset
            error = Untrusted if "other file" in reason or "another file" in reason else Foreign
            raise error(f"{name!r} in {show(key)!r} is {reason}; it is not read", key=key)
    raise NotFound(f"{show(key)!r} has no array {name!r}; it has {sorted(array_names(group))}", key=key)


def stat(group: Any) -> Stat:
    """Describe a node without reading payload."""
    found = links.contents(group)
    infos: dict[str, ArrayInfo] = {}
    on_arrays: dict[str, dict[str, Any]] = {}
    for name, dataset in arrays(group, found):
        infos[name] = info(name, dataset)
        if own := array_attributes(dataset):
            on_arrays[name] = own
    meta = {attrs.unescape(name, NODE_RESERVED): value for name, value in attrs.items(group, NODE_RESERVED)}
    if on_arrays:
        rest = meta.get(ARRAY_ATTRIBUTES)
        meta[ARRAY_ATTRIBUTES] = {**(rest if isinstance(rest, dict) else {}), **on_arrays}
    if found.refused:
        meta[REFUSED] = found.refused
    kind = attrs.get(group, KIND)
    return Stat(kind if isinstance(kind, str) else ARRAYS if infos else GROUP, infos, meta)


def info(name: str, dataset: Any) -> ArrayInfo:
    """Describe one array without reading it."""
    shape = tuple(int(size) for size in dataset.shape)
    own = attrs.get(dataset, types.TYPE)
    dtype = types.declared(dataset.dtype, {types.TYPE: own})
    plist = dataset.get_create_plist()
    chunks = tuple(plist.get_chunk()) if plist.get_layout() == h5d.CHUNKED else None
    nbytes = dtypes.parse(dtype).itemsize
    for size in shape:
        nbytes *= size
    return ArrayInfo(
        dtype, shape, dims.read_dims(name, dataset) or default_dims(name, len(shape)), nbytes, chunks
    )


def array_attributes(dataset: Any) -> dict[str, Any]:
    """Give the attributes of an array that are the user's."""
    hidden = _reserved(dataset)
    return {attrs.unescape(name, hidden): value for name, value in attrs.items(dataset, hidden)}


def _reserved(dataset: Any) -> frozenset[str]:
    """Give the attribute names that belong to the layout; on a time also those of CF."""
    name = attrs.get(dataset, types.TYPE)
    timed = isinstance(name, str) and name[1:2] in {"M", "m"}
    return ARRAY_RESERVED | types.CF_NAMES if timed else ARRAY_RESERVED


def put_array_attributes(dataset: Any, values: Any) -> None:
    """Replace the user's attributes of an array."""
    hidden = _reserved(dataset)
    attrs.remove(dataset, hidden)
    attrs.put_all(dataset, values, hidden)


def clear(group: Any) -> None:
    """Remove the record of a node: datasets, dimensions and attributes; children stay."""
    for link in links.contents(group).datasets:
        group.unlink(link)
    attrs.remove(group)


def create(group: Any, carried: types.Carried) -> Any:
    """Write a dataset in one piece, without a name yet."""
    kind = h5t.py_create(carried.data.dtype, logical=True)
    space = h5s.create_simple(carried.data.shape) if carried.data.shape else h5s.create(h5s.SCALAR)
    dataset = h5d.create(group, None, kind, space)
    if carried.data.size:
        dataset.write(h5s.ALL, h5s.ALL, carried.data, types.memory_type(carried.data.dtype))
    attrs.put_all(dataset, carried.attributes)
    attrs.put(dataset, CHECKSUM, carried.checksum)
    return dataset


def put_record(group: Any, record: Record, carried: dict[str, types.Carried]) -> None:
    """Replace the record of a node."""
    datasets = {name: create(group, one) for name, one in carried.items()}
    clear(group)
    for name, dataset in datasets.items():
        h5o.link(dataset, group, media.escape_link(name).encode(), lcpl=links.LINK)
    attrs.put(group, KIND, record.kind)
    put_meta(group, record.meta, datasets)
    dims.put_dims(group, record.dims, {name: dataset.shape for name, dataset in datasets.items()})


def put_meta(group: Any, meta: Mapping[str, Any], array_names: Iterable[str]) -> None:
    """Merge entries into the attributes of a node; those of its arrays go to the arrays."""
    for name, value in meta.items():
        if name == ARRAY_ATTRIBUTES and isinstance(value, Mapping):
            _put_spread(group, value, set(array_names))
        else:
            attrs.put(group, attrs.escape(name, NODE_RESERVED), value)


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


def read(dataset: Any, selection: Selection, key: Key) -> NDArray[Any]:
    """Read a part of an array, and nothing but that part, as a new array of its original type."""
    shape = tuple(int(size) for size in dataset.shape)
    wanted = normalise_selection(selection, shape)
    native = types.plain(dataset.dtype)
    starts, counts, steps, flips, final = _box(wanted)
    _check_size(dataset, math.prod(counts) * native.itemsize, key)
    data = np.empty(counts, native)
    if data.size:
        space = dataset.get_space()
        if counts:
            space.select_hyperslab(starts, counts, steps)
        memory = h5s.create_simple(counts) if counts else h5s.create(h5s.SCALAR)
        dataset.read(memory, space, data, types.memory_type(dataset.dtype))
    declared = {name: attrs.get(dataset, name) for name in (types.TYPE, types.ESCAPED)}
    return types.restore(_compact(data[(*flips, ...)]).reshape(final), declared)


def _compact(data: NDArray[Any]) -> NDArray[Any]:
    """Copy what is not contiguous, byte by byte: numpy's own copy leaves out the padding of structures."""
    if data.flags.c_contiguous:
        return data
    if data.dtype.hasobject:
        return data.copy()
    return data.view(f"V{data.dtype.itemsize}").copy().view(data.dtype)


def _box(wanted: Selection) -> tuple[Any, Any, Any, Any, tuple[int, ...]]:
    """Turn a selection into start, count and step of a forward read, and how to flip and reshape it."""
    starts, counts, steps, flips, final = [], [], [], [], []
    for index in wanted:
        if not isinstance(index, slice):
            starts.append(index)
            counts.append(1)
            steps.append(1)
            flips.append(slice(None))
            continue
        stop = -1 if index.stop is None else index.stop
        covered = range(index.start, stop, index.step)
        starts.append(min(covered[0], covered[-1]) if covered else 0)
        counts.append(len(covered))
        steps.append(abs(index.step))
        flips.append(slice(None, None, -1 if index.step < 0 else 1))
        final.append(len(covered))
    return tuple(starts), tuple(counts), tuple(steps), tuple(flips), tuple(final)


def _check_size(dataset: Any, nbytes: int, key: Key) -> None:
    """Refuse a small file that declares a huge array, before memory is asked for."""
    if nbytes > _SUSPICIOUS and nbytes > _RATIO * (dataset.get_storage_size() + 1):
        raise Foreign(
            f"an array of {show(key)!r} would take {nbytes} bytes, of which the file holds "
            f"{dataset.get_storage_size()}; read it in parts",
            key=key,
        )
