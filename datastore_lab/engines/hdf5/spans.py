"""Arrays that lie in one piece in the file as they are in memory, for those who map them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from h5py import h5d

from datastore_lab import dtypes
from datastore_lab.records import Span

if TYPE_CHECKING:
    from datastore_lab.engines.hdf5.describe import Node
    from datastore_lab.engines.hdf5.payload import Array

_NOWHERE = 2**63
"""Addresses from here on stand for an array without bytes in the file, as it is empty."""


def of(node: Node, path: str) -> dict[str, Span]:
    """Give where the arrays of a node lie, by their names.

    Left out are those in chunks, in a header, or in another form than in memory.
    """
    places = {name: _offset(array) for name, array in node.arrays.items() if _is_plain(array)}
    return {
        name: Span(path, place, node.arrays[name].info.dtype, node.arrays[name].info.shape)
        for name, place in places.items()
        if place is not None
    }


def _is_plain(array: Array) -> bool:
    same = array.native == dtypes.parse(array.info.dtype) and not array.native.hasobject
    return array.own and same and not any(array.declared.values())


def _offset(array: Array) -> int | None:
    if array.layout != h5d.CONTIGUOUS:
        return None
    place = array.place if isinstance(array.place, int) else array.dataset and array.dataset.get_offset()
    return place if isinstance(place, int) and place < _NOWHERE else None
