"""Coordinates of xarray that belong to a MultiIndex."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from datastore_lab import dtypes
from datastore_lab.errors import Corrupt, NotStorable

_LARGEST = 1 << 20
"""Bytes of one label: a declared type is made for every label when it is looked at."""


def assemble(
    data: dict[str, xr.Variable],
    coords: dict[str, xr.Variable],
    state: Mapping[str, Any],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Put together a dataset of which some coordinates belong to a MultiIndex."""
    indexes: dict[Any, Any] = {}
    for described in state["levels"]:
        index = restore(described, coords[described["dim"]].to_index())
        indexes.update(dict.fromkeys([described["dim"], *described["types"]], index))
    bare = {*state.get("unindexed", ()), *indexes}
    for name, variable in coords.items():
        if variable.dims == (name,) and name not in bare:
            indexes[name] = xr.indexes.PandasIndex(variable.to_index(), name)
    return xr.Dataset(data, xr.Coordinates(coords, indexes), attrs)


def coordinate_type(index: Any, name: Hashable) -> str:
    """Name the type that xarray gives to the coordinate of one level, which may be narrower than the level.

    Raises
    ------
    NotStorable
        If it is a type of pandas.
    """
    dtype = index.level_coords_dtype[name]
    if not isinstance(dtype, np.dtype):
        raise NotStorable(f"the coordinate {name!r} is of type {dtype}; convert it with astype()", key=name)
    return "object" if dtype.kind == "O" else dtypes.name(dtype)


def restore(described: Mapping[str, Any], values: Any) -> Any:
    """Give the index of xarray for a MultiIndex of pandas."""
    types = {
        name: np.dtype(object) if text == "object" else dtypes.parse(text)
        for name, text in described["types"].items()
    }
    if any(dtype.itemsize > _LARGEST for dtype in types.values()):
        raise Corrupt(f"the levels of {described['dim']!r} are declared with {described['types']!r:.200}")
    return xr.indexes.PandasMultiIndex(values, described["dim"], level_coords_dtype=types)
