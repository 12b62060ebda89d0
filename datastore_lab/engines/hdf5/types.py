"""How HDF5 carries every numpy type, bit by bit.

========================  =======================================================================
numpy                     in the file
========================  =======================================================================
numbers, bool, S, V       as they are; bool as the enumeration that h5py uses
datetime64, timedelta64   64-bit integers; ``units`` of CF where CF knows the unit
U                         UTF-8 text of fixed length
StringDType               UTF-8 text of variable length; ``%`` escapes where it holds NUL
structured                compound; times in it as integers, U in it as UCS-4 numbers
everything else           opaque bytes of the item's size
========================  =======================================================================

What is not carried as it is has the attribute ``lab_dtype`` with its canonical name.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from datastore_lab import dtypes
from datastore_lab.errors import Corrupt, NotStorable

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPE = "lab_dtype"
ESCAPED = "lab_escaped"
CF_NAMES = frozenset({"units", "calendar", "_FillValue"})

_TEXT = h5py.string_dtype("utf-8")
_CF_UNITS = {
    "D": "days",
    "h": "hours",
    "m": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}


_NUMBERS, _USUAL = "biuf", 8


class Carried(NamedTuple):
    """An array as HDF5 will hold it: C-ordered data and its attributes; and the name of its own type."""

    data: NDArray[Any]
    attributes: Mapping[str, Any]
    dtype: str


def carry(array: NDArray[Any]) -> Carried:
    """Turn an array into its native form.

    Raises
    ------
    NotStorable
        For Python objects, masked arrays and missing text.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise NotStorable("masked arrays can't be stored; store the data and the mask as two arrays")
    own = np.asarray(array, order="C")
    if (name := _held_as_it_is(own.dtype)) is not None:
        return Carried(own, {}, name)
    dtypes.check(own.dtype)
    data, attributes = _to_native(own)
    return Carried(data, attributes, dtypes.name(own.dtype))


def _held_as_it_is(dtype: np.dtype[Any]) -> str | None:
    """Name a type of numbers that needs nothing done to it; None for all others."""
    return _number_name(dtype) if dtype.kind in _NUMBERS and dtype.metadata is None else None


@functools.cache
def _number_name(dtype: np.dtype[Any]) -> str | None:
    return dtypes.name(dtype) if _native(dtype) == dtype else None


def carrier(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], dict[str, Any]]:
    """Give the native type for an array that will grow, and its attributes.

    Text of fixed length takes 4 bytes per character here, since longer rows may come.
    """
    dtypes.check(dtype)
    if dtype.kind == "T":
        return _TEXT, {TYPE: dtypes.STRING, ESCAPED: True}
    if dtype.kind == "U" and dtype.itemsize:
        return h5py.string_dtype("utf-8", dtype.itemsize), {TYPE: dtypes.name(dtype)}
    native = _native(dtype)
    if native == dtype:
        return native, {}
    return native, {TYPE: dtypes.name(dtype), **cf_attributes(dtype)}


def convert(rows: NDArray[Any], dtype: np.dtype[Any], native: np.dtype[Any]) -> NDArray[Any]:
    """Turn rows of `dtype` into the native form that `carrier` chose."""
    if dtype.kind == "T":
        return _escape_text(rows, escape=True)
    if dtype.kind == "U" and dtype.itemsize:
        encoded = _encode(rows)
        if encoded is None:
            raise NotStorable("text with lone surrogates can't be appended; store it as bytes")
        return encoded.astype(native)
    return _reinterpret(rows, native)


def restore(data: NDArray[Any], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Undo `carry` for what was read, given the array's attributes."""
    name = attributes.get(TYPE)
    if not isinstance(name, str):
        return _plain_text(data) if data.dtype.hasobject else data
    dtype = dtypes.parse(name)
    try:
        if dtype.kind == "T":
            return _unescape_text(data, bool(attributes.get(ESCAPED)))
        if dtype.kind == "U" and data.dtype.kind == "S":
            return np.asarray(np.char.decode(data, "utf-8")).astype(dtype).reshape(data.shape)
        if not dtype.itemsize:
            return np.zeros(data.shape, dtype)
    except (ValueError, TypeError) as error:
        raise Corrupt(f"the array is declared as {name} but holds {data.dtype}: {error}") from error
    if data.dtype.itemsize != dtype.itemsize:
        raise Corrupt(f"the array is declared as {name} but its items have {data.dtype.itemsize} bytes")
    return _reinterpret(data, dtype)


def declared(native: np.dtype[Any], attributes: Mapping[str, Any]) -> str:
    """Give the canonical name of a stored array's type, without reading it."""
    name = attributes.get(TYPE)
    if isinstance(name, str):
        dtypes.parse(name)
        return name
    return dtypes.STRING if is_text(native) else dtypes.name(plain(native))


def memory_type(native: np.dtype[Any]) -> Any:
    """Give the HDF5 type of an array in memory: objects are converted, all else is taken as it lies."""
    return file_type(native) if native.kind in "iuf" else _made(native)


def _made(native: np.dtype[Any]) -> Any:
    return h5py.h5t.py_create(native, logical=not native.hasobject)


def file_type(native: np.dtype[Any]) -> Any:
    """Give the HDF5 type of an array in the file."""
    if native.kind in "iuf" and native.metadata is None:
        return _number(native)
    return h5py.h5t.py_create(native, logical=True)


@functools.cache
def _number(native: np.dtype[Any]) -> Any:
    return h5py.h5t.py_create(native, logical=True)


def is_text(native: np.dtype[Any]) -> bool:
    """Say whether HDF5 holds this as text of variable length."""
    info = h5py.check_string_dtype(native)
    return info is not None and info.length is None


def plain(native: np.dtype[Any]) -> np.dtype[Any]:
    """Drop what h5py notes on a type about enumerations and encodings."""
    if native.names is None and native.subdtype is None and not native.hasobject:
        return np.dtype(native.str)
    return native


def cf_attributes(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Give the CF attributes by which other programs know a time."""
    if dtype.kind not in "Mm":
        return {}
    unit, count = np.datetime_data(dtype)
    words = _CF_UNITS.get(unit) if count == 1 else None
    if words is None:
        return {}
    if dtype.kind == "m":
        return {"units": words}
    return {"units": f"{words} since 1970-01-01", "calendar": "proleptic_gregorian"}


def _to_native(own: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    name = {TYPE: dtypes.name(own.dtype)}
    if own.dtype.kind == "T":
        escape = any("\0" in text for text in _texts(own))
        return _escape_text(own, escape=escape), {**name, **({ESCAPED: True} if escape else {})}
    if own.dtype.kind == "U" and own.dtype.itemsize:
        encoded = _encode(own)
        if encoded is not None:
            kind = h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize))
            return encoded.astype(kind), name
    native = _native(own.dtype)
    if native == own.dtype:
        return own, {}
    return _reinterpret(own, native), {**name, **cf_attributes(own.dtype)}


def _reinterpret(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not data.dtype.itemsize:
        return np.zeros(data.shape, dtype)
    own = np.ascontiguousarray(data)
    return own.reshape(-1).view(dtype).reshape(data.shape)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give a type of the same size that HDF5 holds bit by bit."""
    if not dtype.itemsize:
        return np.dtype("u1")
    if dtype.kind in _NUMBERS and dtype.isnative and dtype.metadata is None and dtype.itemsize <= _USUAL:
        return dtype
    candidate = _substitute(dtype)
    if candidate.subdtype is not None:  # UTF-8 can't hold it: viewed as numbers it would gain an axis
        return np.dtype(f"V{dtype.itemsize}")
    try:
        tid = h5py.h5t.py_create(candidate, logical=True)
        if tid.dtype == candidate and tid.get_size() == dtype.itemsize:
            return candidate
    except (TypeError, ValueError, UnicodeError, RuntimeError):
        pass  # HDF5 has no such type, or no such field name: opaque bytes hold anything
    return np.dtype(f"V{dtype.itemsize}")


def _substitute(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "Mm":
        return np.dtype(f"{dtype.str[0]}i8")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_substitute(base), shape))
    if dtype.kind == "U":
        return np.dtype((f"{dtype.str[0]}u4", (dtype.itemsize // 4,)))
    if dtype.names is None:
        return dtype
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    layout = {
        "names": list(dtype.names),
        "formats": [_substitute(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    return np.dtype(layout)  # type: ignore[call-overload, no-any-return]


def _encode(array: NDArray[Any]) -> NDArray[Any] | None:
    """Encode text of fixed length; None where it holds what UTF-8 can't."""
    try:
        return np.asarray(np.char.encode(array, "utf-8")).reshape(array.shape)
    except (UnicodeEncodeError, ValueError):
        return None


def _texts(array: NDArray[Any]) -> list[str]:
    texts = array.reshape(-1).tolist()
    if any(not isinstance(text, str) for text in texts):
        raise NotStorable("text with missing values can't be stored; fill them in first")
    return texts


def _escape_text(array: NDArray[Any], *, escape: bool) -> NDArray[Any]:
    texts = _texts(array)
    if escape:
        texts = [text.replace("%", "%25").replace("\0", "%00") for text in texts]
    result = np.empty(len(texts), _TEXT)
    result[:] = texts
    return result.reshape(array.shape)


def _unescape_text(data: NDArray[Any], escaped: bool) -> NDArray[Any]:
    texts = [_decode(item) for item in data.reshape(-1).tolist()]
    if escaped:
        texts = [text.replace("%00", "\0").replace("%25", "%") for text in texts]
    return np.array(texts, np.dtypes.StringDType()).reshape(data.shape)


def _plain_text(data: NDArray[Any]) -> NDArray[Any]:
    return _unescape_text(data, escaped=False)


def _decode(item: Any) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item or "")
