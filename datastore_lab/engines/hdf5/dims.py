"""Dimension names as netCDF-4 dimension scales, so that xarray and netCDF tools show them.

A 1-D array named like its dimension is the scale itself; other dimensions get a dataset without data that
stands for them. Where scales can't say it (one name with two lengths in a record, or a dimension named like
an array that is not its coordinate), the names are kept in the attribute ``lab_dims`` of each array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from h5py import h5a, h5d, h5ds, h5i, h5o, h5p, h5s, h5t

from datastore_lab import media
from datastore_lab.engines.hdf5 import attrs, links

NAMES = "lab_dims"

_GROWING = -1
_DUMMY = "This is a netCDF dimension but not a netCDF variable."


def put_dims(
    group: Any,
    dims: Mapping[str, tuple[str, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    growing: bool = False,
) -> None:
    """Name the dimensions of the arrays of a node, for those that have names.

    Parameters
    ----------
    group : h5py.h5g.GroupID
    dims : mapping of str to tuple of str
    shapes : mapping of str to tuple of int
    growing : bool
        Axis 0 of every array will become longer, see `grow`.
    """
    named = {name: tuple(own) for name, own in dims.items() if name in shapes and own}
    lengths = _lengths(
        named, {name: (_GROWING, *shape[1:]) for name, shape in shapes.items()} if growing else shapes
    )
    scales = {dim: _scale(group, dim, length, dim in shapes) for dim, length in lengths.items()}
    for name, own in named.items():
        dataset = _dataset(group, name)
        if any(dim not in scales for dim in own):
            attrs.put(dataset, NAMES, list(own))
            continue  # with scales on some of its axes only, xarray would refuse the whole file
        if own == (name,):
            continue
        for axis, dim in enumerate(own):
            if dim in scales:
                h5ds.attach_scale(dataset, scales[dim], axis)


def _lengths(named: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Give the length of every dimension that a scale can stand for."""
    lengths: dict[str, set[int]] = {}
    for name, own in named.items():
        for dim, length in zip(own, shapes[name], strict=True):
            lengths.setdefault(dim, set()).add(length)
    free = {dim for dim in lengths if dim not in shapes or named.get(dim) == (dim,)}
    return {dim: found.pop() for dim, found in lengths.items() if len(found) == 1 and dim in free}


def _scale(group: Any, dim: str, length: int, is_array: bool) -> Any:
    if is_array:
        dataset = _dataset(group, dim)
        h5ds.set_scale(dataset, dim.replace("\0", "").encode())
        return dataset
    plist = h5p.create(h5p.DATASET_CREATE)
    if length == _GROWING:
        plist.set_chunk((1024,))
        length, space = 0, h5s.create_simple((0,), (h5s.UNLIMITED,))
    else:
        space = h5s.create_simple((length,))
    dataset = h5d.create(group, None, h5t.IEEE_F32BE, space, plist)
    h5ds.set_scale(dataset, f"{_DUMMY} {length:10d}".encode())
    h5o.link(dataset, group, media.escape_link(dim).encode(), lcpl=links.LINK)
    return dataset


def grow(group: Any, dims: Iterable[tuple[str, ...]], length: int) -> None:
    """Make the stand-ins of the growing dimensions, which are the first of each array, longer."""
    for dim in {own[0] for own in dims if own}:
        link = media.escape_link(dim).encode()
        if group.links.exists(link):
            scale = h5d.open(group, link)
            if is_dummy(scale):
                scale.set_extent((length,))


def _dataset(group: Any, name: str) -> Any:
    return h5d.open(group, media.escape_link(name).encode())


def is_dummy(dataset: Any) -> bool:
    """Say whether a dataset only stands for a dimension."""
    name = attrs.get(dataset, "NAME")
    return isinstance(name, str) and name.startswith(_DUMMY)


def read_dims(name: str, dataset: Any, beside: Mapping[int, bytes]) -> tuple[str, ...] | None:
    """Give the dimension names of an array, whoever wrote them; None if it has none.

    Parameters
    ----------
    name : str
    dataset : h5py.h5d.DatasetID
    beside : mapping of int to bytes
        Links of the same group by the address of what they lead to: HDF5 itself finds the name of a
        scale only by a search of the whole file.
    """
    rank = len(dataset.shape)
    kept = attrs.get(dataset, NAMES)
    if isinstance(kept, list) and len(kept) == rank and all(isinstance(dim, str) and dim for dim in kept):
        return tuple(kept)
    if h5ds.is_scale(dataset) and rank == 1:
        return (name,)
    if not rank or not h5a.exists(dataset, b"DIMENSION_LIST"):
        return None
    return tuple(_axis(dataset, axis, beside) or f"{name}_{axis}" for axis in range(rank))


def _axis(dataset: Any, axis: int, beside: Mapping[int, bytes]) -> str | None:
    """Give the name of the first scale of an axis."""
    found = scales_of(dataset, axis, beside)
    return media.unescape_link(found[0].decode("utf-8", "surrogateescape")) if found else None


def scales_of(dataset: Any, axis: int, beside: Mapping[int, bytes]) -> list[bytes]:
    """Give the links of the scales of an axis, each the last part of the scale's path."""
    found: list[bytes] = []
    failed: list[Exception] = []

    def note(scale: Any) -> None:
        try:
            path = beside.get(h5o.get_info(scale).addr) or h5i.get_name(scale)
        except (OSError, RuntimeError) as error:  # a damaged scale; raised in here it would be a SystemError
            failed.append(error)
            return
        if path:
            found.append(path.rpartition(b"/")[2])

    h5ds.iterate(dataset, axis, note, 0)
    if failed:
        raise failed[0]
    return found
