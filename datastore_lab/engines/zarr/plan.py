"""How a record is to be stored: types, chunks, packing and attributes of its arrays, on any medium."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes, media
from datastore_lab.engines.zarr import chunks as chunking
from datastore_lab.engines.zarr import shards
from datastore_lab.engines.zarr.meta import (
    ARRAY_LAYOUT,
    GROUP_LAYOUT,
    ArrayDoc,
    new_array,
)
from datastore_lab.engines.zarr.types import stored_type, to_stored
from datastore_lab.errors import BadKey, NotStorable
from datastore_lab.records import ARRAY_ATTRIBUTES, Packing, Record, Stat, check_record, dims_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.keys import Key

_STREAM = 1 << 20
_STREAM_SECONDS = 4.0


class RecordPlan(NamedTuple):
    """A record that was checked: its kind, the attributes of its group, its arrays and how each is stored."""

    kind: str
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    docs: dict[str, ArrayDoc]

    @property
    def names(self) -> set[str]:
        """Names that no child may have."""
        dims = (doc.dims for doc in self.docs.values())
        return {*self.arrays, *itertools.chain.from_iterable(dims)}


def plan_record(key: Key, record: Record) -> RecordPlan:
    """Check a record before anything is written, and decide how it is stored."""
    check_record(record)
    check_meta(record.meta)
    arrays = {name: np.asarray(array) for name, array in record.arrays.items()}
    for array in arrays.values():
        dtypes.check(array.dtype)
    own, meta = split_attributes(record.meta, set(arrays))
    docs = {
        name: _plan(name, array, dims_of(record, name), own.get(name, {})) for name, array in arrays.items()
    }
    return RecordPlan(record.kind, meta, arrays, docs)


def plan_stream(key: Key, spec: Stat) -> RecordPlan:
    """Do the same for an empty record that will grow."""
    arrays = {
        name: np.empty((0, *info.shape[1:]), dtypes.parse(info.dtype)) for name, info in spec.arrays.items()
    }
    check_record(
        Record(spec.kind, arrays, spec.meta, {name: info.dims for name, info in spec.arrays.items()})
    )
    check_meta(spec.meta)
    own, meta = split_attributes(spec.meta, set(arrays))
    docs = {name: _plan_stream(name, arrays[name], spec, own.get(name, {})) for name in arrays}
    return RecordPlan(spec.kind, meta, arrays, docs)


def check_meta(meta: Mapping[str, Any]) -> None:
    """Refuse attributes that JSON can't hold, or that belong to the layout."""
    media.check_json(meta)
    per_array = meta.get(ARRAY_ATTRIBUTES)
    for attributes in (meta, *(per_array.values() if isinstance(per_array, Mapping) else ())):
        names = attributes if isinstance(attributes, Mapping) else ()
        if taken := sorted((GROUP_LAYOUT | ARRAY_LAYOUT).intersection(names)):
            raise BadKey(
                f"the attribute {sorted(taken)[0]!r} belongs to the layout; choose another name",
                key=sorted(taken)[0],
            )


def split_attributes(
    meta: Mapping[str, Any], arrays: set[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Separate the attributes of arrays from those of the node, where what fits no array stays."""
    if ARRAY_ATTRIBUTES not in meta:
        return {}, dict(meta)
    given = meta[ARRAY_ATTRIBUTES]
    if not isinstance(given, Mapping):
        raise NotStorable(
            f"{ARRAY_ATTRIBUTES!r} must be a mapping of array names to attributes", key=ARRAY_ATTRIBUTES
        )
    own = {
        name: dict(value)
        for name, value in given.items()
        if name in arrays and isinstance(value, Mapping) and value
    }
    rest = {name: value for name, value in given.items() if name not in own}
    kept = {name: value for name, value in meta.items() if name != ARRAY_ATTRIBUTES}
    return own, {**kept, **({ARRAY_ATTRIBUTES: rest} if rest or not own else {})}


def _plan(name: str, array: NDArray[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]) -> ArrayDoc:
    """Decide how an array is stored."""
    stored = stored_type(array.dtype)
    if array.dtype.kind == "U" and array.size and not _is_text(array):
        stored = stored_type(array.dtype, as_bytes=True)
    itemsize = array.dtype.itemsize or 1
    chunks = chunking.choose_chunks(array.shape, itemsize)
    doc = new_array(
        name,
        array.dtype,
        array.shape,
        dims,
        chunks,
        stored=stored,
        packing="",
        attributes=attributes,
    )
    packing = (
        "zstd" if doc.is_text else chunking.choose_packing(array if doc.as_bytes else to_stored(array, doc))
    )
    return doc._replace(packing=packing)


def _is_text(array: NDArray[Any]) -> bool:
    """Tell whether fixed-width text holds only code points that UTF-8 can say."""
    points = (
        np.ascontiguousarray(array)
        .reshape(-1)
        .view(array.dtype.byteorder.replace("=", "<").replace("|", "<") + "u4")
    )
    return not bool(((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any())


def _plan_stream(name: str, empty: NDArray[Any], spec: Stat, attributes: Mapping[str, Any]) -> ArrayDoc:
    """Decide how a growing array is stored.

    Some seconds of data per file, of 256 KiB to 8 MiB: the last one, which is not full, is written again at
    every flush. Always compressed, unless asked otherwise: its empty part costs nothing.
    """
    info, stored = spec.arrays[name], stored_type(empty.dtype)
    row = max(math.prod(empty.shape[1:]) * max(empty.dtype.itemsize, 1), 1)
    rate = spec.meta.get("rate")
    paced = rate if isinstance(rate, (int, float)) and 0 < rate < 1e12 else None
    target: float = _STREAM if info.packing is None else shards.SHARD
    if paced is not None:
        target = min(max(paced * row * _STREAM_SECONDS, 256 << 10), 8 << 20)
    inner = tuple(max(1, length) for length in empty.shape[1:])
    chunks = info.chunks or (max(1, int(target) // row), *inner)
    shard = None
    if info.packing is not None:
        rows, shard = _plan_shard(name, stored, info.packing, row, target)
        chunks = (rows, *inner)
    return new_array(
        name,
        empty.dtype,
        empty.shape,
        tuple(info.dims),
        chunks,
        stored=stored,
        packing="zstd" if shard is None else shards.PACKING,
        attributes=attributes,
        shard=shard,
    )


def _plan_shard(
    name: str, stored: np.dtype[Any], packing: Packing, row: int, target: float
) -> tuple[int, shards.Shard]:
    """Decide how many rows go into one file, and how it is made."""
    if stored.kind == "T":
        raise NotStorable(
            f"{name!r} is text of variable length, which is packed in its own way; leave its packing out",
            key=name,
        )
    checked = shards.check(packing)
    rows, whole = shards.shapes(checked, row, target)
    return whole, shards.Shard(rows, checked)
