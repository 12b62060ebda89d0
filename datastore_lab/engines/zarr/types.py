"""How numpy's types are held in Zarr arrays, bit for bit.

Where Zarr v3 has the type it is used. Else, with the numpy type's name in the attribute ``lab_dtype``:

- big-endian numbers are stored little-endian;
- fixed-width text (``<U5``) is stored as Zarr's ``string``;
- all else (``S``, ``V``, structured, long double, date-times without a unit) as ``uint8`` with one more axis,
  the bytes of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.engines.zarr.meta import ArrayDoc

_NATIVE: dict[str, str] = {
    "?": "bool",
    **{
        f"{kind}{size}": f"{word}{8 * size}"
        for kind, word in (("i", "int"), ("u", "uint"))
        for size in (1, 2, 4, 8)
    },
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"c{size}": f"complex{8 * size}" for size in (8, 16)},
}
_NUMPY = {zarr: np.dtype(numpy) for numpy, zarr in _NATIVE.items()}
TEXT = np.dtypes.StringDType()
BYTE = np.dtype("u1")


def stored_type(dtype: np.dtype[Any], *, as_bytes: bool = False) -> np.dtype[Any]:
    """Choose the type in which Zarr holds a numpy type."""
    if dtype.kind == "T" or (dtype.kind == "U" and not as_bytes):
        return TEXT
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] != "generic":
        return dtype.newbyteorder("<")
    known = dtype.kind if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"
    return dtype.newbyteorder("<") if known in _NATIVE or dtype.kind == "b" else BYTE


def to_stored(array: NDArray[Any], doc: ArrayDoc) -> NDArray[Any]:
    """Turn an array into the form in which it is stored, contiguous; views where possible."""
    if doc.is_text:
        return _to_text(array)
    array = np.asarray(array, order="C")
    if doc.as_bytes:
        shape = (*array.shape, doc.dtype.itemsize)
        return array.reshape(-1).view(BYTE).reshape(shape) if array.nbytes else np.empty(shape, BYTE)
    # byteswap, not astype: a conversion of floats might quieten a signalling NaN
    return array.byteswap().view(doc.stored) if array.dtype.byteorder == ">" else array


def _to_text(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "T" and hasattr(array.dtype, "na_object"):
        missing = next((item for item in array.reshape(-1).astype(object) if not isinstance(item, str)), "")
        if missing != "":
            raise NotStorable(
                f"text with missing values ({missing!r}) can't be stored in Zarr; fill them first"
            )
    # numpy takes the code points of big-endian text for garbage when it casts it to StringDType, and back
    return (array.astype(array.dtype.newbyteorder("<")) if array.dtype.kind == "U" else array).astype(TEXT)


def from_stored(array: NDArray[Any], doc: ArrayDoc) -> NDArray[Any]:
    """Undo `to_stored`."""
    if doc.stored == doc.dtype:
        return array
    if doc.is_text:
        return array.astype(doc.dtype.newbyteorder("<")).astype(doc.dtype)
    if doc.as_bytes:
        shape = array.shape[:-1]
        return array.reshape(-1).view(doc.dtype).reshape(shape) if array.size else np.empty(shape, doc.dtype)
    return array.byteswap().view(doc.dtype)


def zarr_type(dtype: np.dtype[Any]) -> Any:
    """Say a type in Zarr's words."""
    if dtype.kind == "T":
        return "string"
    if dtype.kind in "mM":
        unit, factor = np.datetime_data(dtype)
        word = "datetime64" if dtype.kind == "M" else "timedelta64"
        return {"name": f"numpy.{word}", "configuration": {"unit": unit, "scale_factor": factor}}
    return _NATIVE["?" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"]


def numpy_type(text: Any) -> np.dtype[Any] | None:
    """Give the numpy type of a Zarr type; None for those that are left to zarr."""
    if text == "string":
        return TEXT
    if isinstance(text, str):
        return _NUMPY.get(text)
    if text["name"] in {"numpy.datetime64", "numpy.timedelta64"}:
        unit, factor = text["configuration"]["unit"], text["configuration"]["scale_factor"]
        return np.dtype(f"<{'M' if 'date' in text['name'] else 'm'}8[{factor}{unit}]")
    return None


def ask_zarr(doc: Mapping[str, Any]) -> np.dtype[Any]:
    """Give the numpy type of an array that is left to zarr."""
    from zarr.core.dtype import get_data_type_from_json

    dtype = get_data_type_from_json(doc["data_type"], zarr_format=3).to_native_dtype()
    dtypes.check(dtype)
    return np.dtype(dtype)


def fill_value(dtype: np.dtype[Any]) -> Any:
    """Give the fill value of an array of ours, of which every chunk is there."""
    return {"b": False, "T": "", "f": 0.0, "c": [0.0, 0.0], "M": -(2**63), "m": -(2**63)}.get(dtype.kind, 0)
