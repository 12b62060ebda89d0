"""What no engine may accept, and how dimension names are completed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datastore_lab.errors import BadKey, NotStorable
from datastore_lab.keys import Key, show
from datastore_lab.records.values import GROUP, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_AXES = 32
"""Axes of one array: what HDF5 holds, so that a record can move to every engine."""

_SURROGATE = re.compile("[\ud800-\udfff]")

DURABILITIES = ("disk", "process")
"""What a commit survives: a power cut, or only the end of the process."""

COMPACT_ABOVE = 0.5
"""Share of a store that may be dead before it is compacted on its own when it is closed."""


def check_compact_above(share: float | None) -> float | None:
    """Give the share as it is.

    Raises
    ------
    ValueError
        If it is neither None nor between 0 and 1.
    """
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"compact_above {share!r} is no share between 0 and 1; None turns it off")
    return share


def check_durability(durability: str) -> bool:
    """Say whether a commit has to be synced to the disk.

    Raises
    ------
    ValueError
        If `durability` is none of `DURABILITIES`.
    """
    if durability not in DURABILITIES:
        raise ValueError(f"durability {durability!r} is neither 'disk' nor 'process'")
    return durability == "disk"


def default_dims(name: str, ndim: int) -> tuple[str, ...]:
    """Name the dimensions of an array that has no names of its own.

    Examples
    --------
    >>> default_dims("data", 2)
    ('data_0', 'data_1')
    """
    return tuple(f"{name}_{axis}" for axis in range(ndim))


def dims_of(record: Record, name: str) -> tuple[str, ...]:
    """Give the dimension names of one array of a record, the default ones if it has none."""
    return tuple(record.dims.get(name) or default_dims(name, record.arrays[name].ndim))


def check_record(record: Record) -> None:
    """Refuse a record that no engine may accept, before anything is written.

    Raises
    ------
    BadKey
        If the kind or a name is empty, not text or not encodable, or a dimension list does not fit its array.
    NotStorable
        If an array has more than `MOST_AXES` axes.
    """
    names = [record.kind, *record.arrays, *(dim for dims in record.dims.values() for dim in dims)]
    for name in names:
        if not isinstance(name, str) or not name:
            raise BadKey(f"a record can't use {name!r} as a name: names are non-empty text", key=name)
        if not name.isascii() and _SURROGATE.search(name):
            raise BadKey(f"a record can't use {name!r} as a name: it holds a lone surrogate", key=name)
    if record.kind == GROUP:
        raise BadKey(f"{GROUP!r} is the kind of a node without a record", key=record.kind)
    for name, array in record.arrays.items():
        if array.ndim > MOST_AXES:
            raise NotStorable(
                f"array {name!r} has {array.ndim} axes, and no store holds more than {MOST_AXES}; reshape it",
                key=name,
            )
        if len(dims_of(record, name)) != array.ndim:
            raise BadKey(
                f"array {name!r} has {array.ndim} axes but dimensions {record.dims[name]!r}", key=name
            )


def check_columns(key: Key, block: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Refuse a block of rows that has other arrays than the growing record.

    Raises
    ------
    NotStorable
        If an array is missing or unknown, or if it is no mapping of arrays at all.
    """
    if not isinstance(block, Mapping):
        raise NotStorable(
            f"{show(key)!r} takes a mapping of names to arrays, not {type(block).__name__}", key=key
        )
    if block.keys() != arrays.keys():
        given = sorted(map(str, block))
        raise NotStorable(f"{show(key)!r} takes the arrays {sorted(arrays)}, not {given}", key=key)


def check_rows(key: Key, block: Mapping[str, NDArray[Any]], arrays: Mapping[str, Any]) -> int:
    """Refuse rows that do not fit a growing record; returns how many they are.

    Parameters
    ----------
    key : Key
        The record, for the message.
    block : mapping of str to ndarray, shapes (n, ...)
    arrays : mapping of str to anything with dtype and shape
        What the record was declared to hold.

    Raises
    ------
    NotStorable
        If an array has no rows to count, is of another row shape, or if the lengths differ.
    """
    for name, rows in block.items():
        if not rows.ndim:
            raise NotStorable(f"{name!r} for {show(key)!r} is one value, not an array of rows", key=key)
    lengths = {len(rows) for rows in block.values()}
    if len(lengths) > 1:
        raise NotStorable(
            f"the arrays of one block for {show(key)!r} differ in length: {sorted(lengths)}", key=key
        )
    for name, rows in block.items():
        if rows.shape[1:] != tuple(arrays[name].shape[1:]):
            raise NotStorable(
                f"rows of {name!r} in {show(key)!r} have the shape {rows.shape[1:]}, "
                f"not {tuple(arrays[name].shape[1:])}",
                key=key,
            )
    return lengths.pop() if lengths else 0
