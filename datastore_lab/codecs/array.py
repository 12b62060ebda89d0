"""Numpy arrays, numpy scalars, masked arrays and record arrays."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable
from datastore_lab.records import CODEC_STATE, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DATA, _MASK, _FILL, _MISSING = "data", "mask", "fill_value", "missing"


class ArrayCodec:
    """Stores an array as it is, under the name ``data``.

    A masked array adds ``mask`` and ``fill_value`` and keeps what is under the mask; text that may be missing
    adds ``missing``; a numpy scalar is an array without axes and a mark. Memory-mapped arrays come back as
    ordinary ones; other subclasses are refused, as their further state is unknown.

    Examples
    --------
    >>> codec = ArrayCodec()
    >>> codec.decode(codec.encode(np.float64(1.5)))
    np.float64(1.5)
    """

    kind = "array"

    def __init__(
        self, encode: Callable[[Any], Record] | None = None, decode: Callable[[Record], Any] | None = None
    ) -> None:
        del encode, decode  # an array holds no other objects

    def encode(self, obj: NDArray[Any] | np.generic) -> Record:
        """Give the record of an array or of a numpy scalar.

        Raises
        ------
        NotStorable
            For arrays of Python objects and for subclasses that are not known here.
        """
        if isinstance(obj, np.ma.MaskedArray):
            return _encode_masked(obj)
        if isinstance(obj, np.generic):
            return _encode_scalar(obj)
        return _record(*_plain(obj))

    def decode(self, record: Record) -> Any:
        """Give back the array, or the scalar."""
        state = record.meta.get(CODEC_STATE) or {}
        array = _restored(record.arrays, state)
        match state.get("form"):
            case "scalar":
                return _scalar(array)
            case "masked":
                return _decode_masked(array, record, state)
            case _:
                return array


def _record(arrays: dict[str, NDArray[Any]], state: dict[str, Any]) -> Record:
    return Record("array", arrays, {CODEC_STATE: state} if state else {}, {})


def _plain(obj: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Give the array without its class as arrays that a store holds, and what is needed to restore it."""
    cls = type(obj)
    if cls not in {np.ndarray, np.memmap, np.recarray}:
        raise NotStorable(
            f"arrays of the class {cls.__module__}.{cls.__qualname__} can't be stored as they are; store "
            "numpy.asarray(array), or teach the store with register_type()",
            key=cls.__qualname__,
        )
    plain = np.ndarray.view(obj, np.ndarray)
    if plain.dtype.kind == "T":
        return _plain_text(plain)
    dtypes.check(plain.dtype)
    state: dict[str, Any] = {"form": "recarray"} if cls is np.recarray else {}
    if plain.dtype.type is np.record:
        return {_DATA: plain.view(np.dtype((np.void, plain.dtype)))}, {**state, "record": True}
    return {_DATA: plain}, state


def _plain_text(text: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    dtype: Any = text.dtype
    state: dict[str, Any] = {} if dtype.coerce else {"coerce": False}
    if not hasattr(dtype, "na_object"):
        return {_DATA: text.astype(np.dtypes.StringDType()) if state else text}, state
    items, na = text.reshape(-1).tolist(), dtype.na_object
    missing = np.array([item is na for item in items], bool).reshape(text.shape)
    filled = ["" if item is na else item for item in items]
    data = np.array(filled, np.dtypes.StringDType()).reshape(text.shape)
    return {_DATA: data, _MISSING: missing}, {**state, "missing": _write_missing(na)}


def _write_missing(na: Any) -> dict[str, Any]:
    """Describe what stands for missing text."""
    if na is None or type(na) is str:
        return {"value": na}
    if type(na) is float and math.isnan(na):
        return {"name": "nan"}
    pandas = sys.modules.get("pandas")
    if pandas is not None and na is pandas.NA:
        return {"name": "pandas.NA"}
    raise NotStorable(
        f"text whose missing value is {na!r:.80} can't be stored; use None, nan, pandas.NA or a text",
        key=_DATA,
    )


def _read_missing(described: Any) -> Any:
    if "value" in described:
        return described["value"]
    if described["name"] == "pandas.NA":
        import pandas as pd

        return pd.NA
    return {"nan": np.nan}[described["name"]]


def _restored(arrays: Mapping[str, NDArray[Any]], state: dict[str, Any]) -> NDArray[Any]:
    array = arrays[_DATA]
    if state.get("record"):
        array = array.view(np.dtype((np.record, array.dtype)))
    if array.dtype.kind == "T" and ("coerce" in state or "missing" in state):
        array = _restored_text(array, arrays, state)
    return array.view(np.recarray) if state.get("form") == "recarray" else array


def _restored_text(
    array: NDArray[Any], arrays: Mapping[str, NDArray[Any]], state: dict[str, Any]
) -> NDArray[Any]:
    coerce = state.get("coerce", True)
    if "missing" not in state:
        return array.astype(np.dtypes.StringDType(coerce=coerce))
    na = _read_missing(state["missing"])
    items = array.astype(object)
    items[arrays[_MISSING]] = na
    text: Any = np.dtypes.StringDType(na_object=na, coerce=coerce)
    return items.astype(text)


def _encode_scalar(obj: np.generic) -> Record:
    arrays, state = _plain(np.asarray(obj))
    if isinstance(obj, (np.str_, np.bytes_)) and len(arrays[_DATA][()]) != len(obj):
        raise NotStorable(
            f"{type(obj).__name__} drops NUL characters at the end; store str or bytes", key=_DATA
        )
    return _record(arrays, {**state, "form": "scalar"})


def _scalar(array: NDArray[Any]) -> Any:
    value = array[()]
    if array.dtype.names is not None or array.dtype.kind == "V":
        return value.copy()  # a void scalar is a view of its array
    return value


def _encode_masked(obj: np.ma.MaskedArray[Any, Any]) -> Record:
    if obj is np.ma.masked:
        return _record({_DATA: np.zeros(())}, {"form": "masked", "constant": True})
    if type(obj) is not np.ma.MaskedArray:
        raise NotStorable(
            f"masked arrays of the class {type(obj).__qualname__} can't be stored as they are; store "
            "numpy.ma.masked_array(data, mask)",
            key=type(obj).__qualname__,
        )
    arrays, state = _plain(obj.data)
    data = arrays[_DATA]
    if obj.mask is not np.ma.nomask:
        arrays[_MASK] = np.asarray(obj.mask)
    if obj._fill_value is not None:  # type: ignore[attr-defined]  # the property would set one
        arrays[_FILL] = np.asarray(obj.fill_value, data.dtype)
    return _record(arrays, {**state, "form": "masked", "hard": bool(obj.hardmask)})


def _decode_masked(array: NDArray[Any], record: Record, state: dict[str, Any]) -> Any:
    if state.get("constant"):
        return np.ma.masked
    fill = record.arrays.get(_FILL)
    return np.ma.MaskedArray(
        array,
        mask=record.arrays.get(_MASK, np.ma.nomask),
        hard_mask=state["hard"],
        fill_value=None if fill is None else fill[()],  # type: ignore[arg-type]
    )
