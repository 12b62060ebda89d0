"""Writing a file anew, without the space of what was deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
from h5py import h5a, h5d, h5ds, h5g, h5o, h5p

from datastore_lab.engines.hdf5 import attrs, describe, dims, links, names, types
from datastore_lab.engines.hdf5.files import Writer, write_new
from datastore_lab.errors import Corrupt, Foreign

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.disk import Disk

_NOT_COPIED = {b"DIMENSION_LIST", b"REFERENCE_LIST", names.DEAD.encode()}

_COPY = h5p.create(h5p.OBJECT_COPY)
_COPY.set_copy_object(h5o.COPY_WITHOUT_ATTR_FLAG)


def compact(writer: Writer, root: Any, path: str, disk: Disk) -> int:
    """Replace the file by a copy of what is in use; returns bytes freed.

    Raises
    ------
    Foreign
        If the file holds what a copy would lose: soft links, references, objects with two names.
    """
    before, new = Path(path).stat().st_size, f"{path}-new"

    def fill(file: h5py.File) -> None:
        disk.make_like(new, path)  # before there is anything in it that not everybody may read
        _copy_group(root, file["/"].id, set())

    write_new(disk, new, fill)
    if Path(new).stat().st_size >= before:
        disk.unlink(new)
        return 0
    try:
        writer.swap(new)
    except BaseException:
        disk.unlink(new)
        raise
    return before - Path(path).stat().st_size


def _copy_group(source: Any, target: Any, seen: set[Any]) -> None:
    _once(source, seen)
    _copy_attributes(source, target)
    found = links.contents(source)
    if found.damaged:
        raise Corrupt(f"{found.damaged[0].decode(errors='replace')!r} can't be copied: it is damaged")
    if found.refused or len(found.groups) + len(found.datasets) != len(source):
        raise _foreign("links or types of its own")
    for link in found.datasets:
        dataset = h5d.open(source, link)
        _once(dataset, seen)
        if describe.refusal(dataset) is not None:
            raise _foreign(f"{links.decode(link)!r}, {describe.refusal(dataset)}")
        h5o.copy(source, link, target, link, copypl=_COPY, lcpl=links.LINK)
        _copy_attributes(dataset, h5d.open(target, link))
    beside = links.addresses(source, found.datasets)
    for link in found.datasets:
        _copy_scales(h5d.open(source, link), beside, h5d.open(target, link), target)
    for link in found.groups:
        _copy_group(h5g.open(source, link), h5g.create(target, link, lcpl=links.LINK, gcpl=links.GROUP), seen)


def _once(owner: Any, seen: set[Any]) -> None:
    address = h5o.get_info(owner).addr
    if address in seen:
        raise _foreign("an object with two names")
    seen.add(address)


def _copy_attributes(source: Any, target: Any) -> None:
    for text in attrs.names(source):
        name = text.encode("utf-8", "surrogateescape")
        if name in _NOT_COPIED:
            continue
        attribute = h5a.open(source, name)
        if attribute.dtype.hasobject and h5py.check_string_dtype(attribute.dtype) is None:
            raise _foreign(f"the attribute {name.decode(errors='replace')!r}, which refers to other objects")
        kind, space, data = attrs.content(source, name)
        copy = h5a.create(target, name, kind, space)
        if data is not None:
            copy.write(data, mtype=types.memory_type(data.dtype))


def _copy_scales(dataset: Any, beside: dict[int, bytes], copy: Any, target: Any) -> None:
    if not h5a.exists(dataset, b"DIMENSION_LIST"):
        return
    for axis in range(len(dataset.shape)):
        for name in dims.scales_of(dataset, axis, beside):
            if name not in beside.values():
                raise _foreign("dimensions that lie in another group")
            h5ds.attach_scale(copy, h5d.open(target, name), axis)


def _foreign(what: str) -> Foreign:
    return Foreign(f"this file holds {what}, which compacting would lose; use h5repack instead")
