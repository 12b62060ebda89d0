"""Records that no codec wrote, and recorded streams, as datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from datastore_lab.dimensions import consistent_dims
from datastore_lab.errors import NotStorable
from datastore_lab.records import ARRAY_ATTRIBUTES, RESERVED, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ArraysCodec:
    """Shows a record that no codec wrote, or a recorded stream, as a dataset.

    A one-dimensional array named like its dimension is a coordinate; ``units`` of the metadata become
    attributes of the variables; the rest of the metadata those of the dataset. An array whose axes do not
    fit the dimensions of the others gets dimensions of its own. Times that xarray lacks (of no unit, of
    multiples of one, beyond its range) are shown as integers with the attribute ``dtype``.

    Examples
    --------
    >>> import numpy as np
    >>> record = Record("stream", {"v": np.zeros(3)}, {"units": {"v": "V"}}, {"v": ("time",)})
    >>> ArraysCodec().decode(record)["v"].attrs
    {'units': 'V'}
    """

    kind = "arrays"

    def __init__(
        self, encode: Callable[[Any], Record] | None = None, decode: Callable[[Record], Any] | None = None
    ) -> None:
        del encode, decode  # there are no other objects inside

    def encode(self, obj: Any) -> Record:
        """Refuse: such records are written by devices and by other programs."""
        raise NotStorable(
            f"objects of {type(obj).__qualname__} are not stored as bare arrays; store them as they are",
            key=None,
        )

    def decode(self, record: Record) -> xr.Dataset:
        """Give a dataset with the values in memory."""
        units = record.meta.get("units")
        units = units if isinstance(units, Mapping) else {}
        attributes = record.meta.get(ARRAY_ATTRIBUTES, {})
        variables = {}
        shapes = {name: array.shape for name, array in record.arrays.items()}
        for name, dims in consistent_dims(shapes, record.dims).items():
            unit = {"units": units[name]} if units.get(name) is not None else {}
            variables[name] = _variable(dims, record.arrays[name], {**attributes.get(name, {}), **unit})
        attrs = {
            name: value for name, value in record.meta.items() if name != "units" and name[:4] != RESERVED
        }
        return xr.Dataset(variables, attrs=attrs)


def _variable(dims: Any, values: NDArray[Any], attrs: dict[str, Any]) -> xr.Variable:
    try:
        return xr.Variable(dims, values, attrs)
    except (TypeError, ValueError, OverflowError):
        if values.dtype.kind not in "mM":
            raise
        counts = values.view(f"{values.dtype.str[0]}i8")
        return xr.Variable(dims, counts, {**attrs, "dtype": values.dtype.str})
