"""Attributes of HDF5 objects as JSON values, type by type and back.

``str``, ``bool``, ``float`` and ``int`` of 64 bits are native attributes; None, lists, mappings, larger
integers, and text that is empty, holds NUL or begins with ``json:`` are text of the form ``json:<value>``.
All text is of variable length, so that none is too long for an object header. Attributes of other
programs are shown as the nearest JSON value.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5, h5a, h5p, h5s, h5t

from datastore_lab import media
from datastore_lab.engines.hdf5 import references, types
from datastore_lab.errors import Corrupt, Foreign

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAG = "json:"
_LARGEST = 64 << 20
_SHORT = 64
_TEXT = h5py.string_dtype("utf-8")
_TEXT_TYPE = h5t.py_create(_TEXT, logical=True)
_TEXT_IN_MEMORY = h5t.py_create(_TEXT)
_BOOL_TYPE = h5t.py_create(np.dtype(bool), logical=True)
_TEXTS = {str, bytes}
_SCALAR = h5s.create(h5s.SCALAR)


def put(owner: Any, name: str, value: Any, *, new: bool = False) -> None:
    """Write one attribute, replacing what is there; with `new` there is none of this name.

    Parameters
    ----------
    owner : h5py.h5g.GroupID or h5py.h5d.DatasetID
    name : str
        As it will stand in the file, see `escape`.
    value : JSON value
    """
    raw = name.encode()
    if not new and h5a.exists(owner, raw):
        h5a.delete(owner, raw)
    data, kind = _native(value)
    create(owner, raw, kind, _SCALAR).write(data, _TEXT_IN_MEMORY if kind is _TEXT_TYPE else kind)


def create(owner: Any, raw: bytes, kind: Any, space: Any) -> Any:
    """Make an attribute, also on an object that has had 65,535: HDF5 numbers them no further."""
    try:
        return h5a.create(owner, raw, kind, space)
    except (OSError, RuntimeError) as error:
        if "creation index" not in str(error):
            raise
    _number_anew(owner)
    return h5a.create(owner, raw, kind, space)


def _number_anew(owner: Any) -> None:
    """Make all attributes of an object again, in their order: HDF5 numbers from 0 once there is none."""
    found = [name.encode("utf-8", "surrogateescape") for name in names(owner)]
    held = [(raw, *content(owner, raw)) for raw in found]
    for raw in found:
        h5a.delete(owner, raw)
    for raw, kind, space, data in held:
        attribute = h5a.create(owner, raw, kind, space)
        if data is not None:
            attribute.write(data, types.memory_type(data.dtype))


def content(owner: Any, raw: bytes) -> tuple[Any, Any, NDArray[Any] | None]:
    """Give type, space and data of an attribute, as they are to be written again.

    Raises
    ------
    Foreign
        If it holds texts that would take more than the file has.
    """
    attribute, data = h5a.open(owner, raw), None
    if attribute.shape is not None:
        dtype = attribute.dtype
        if _may_exceed(attribute.shape, dtype) and references.exceed(owner, raw, attribute):
            name = raw.decode(errors="replace")
            raise Foreign(
                f"texts of the attribute {name!r} would take more than the whole file has: many refer to the "
                "same; remove the attribute with the program that wrote it"
            )
        data = np.empty(attribute.shape, dtype)
        attribute.read(data, types.memory_type(dtype))
    return attribute.get_type(), attribute.get_space(), data


def _native(value: Any) -> tuple[Any, Any]:
    if isinstance(value, bool):
        return np.array(value), _BOOL_TYPE
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return np.array(value, np.int64), h5t.NATIVE_INT64
    if isinstance(value, float):
        return np.array(value, np.float64), h5t.NATIVE_DOUBLE
    if isinstance(value, str) and len(value) <= _SHORT:
        return _short_text(value), _TEXT_TYPE
    return _text(value), _TEXT_TYPE


@functools.lru_cache(maxsize=1024)
def _short_text(value: str) -> NDArray[Any]:
    """Remember the text of kinds and units, which many records share."""
    return _text(value)


def _text(value: Any) -> NDArray[Any]:
    plain = isinstance(value, str) and value and "\0" not in value and not value.startswith(_TAG)
    return np.array(value if plain else _TAG + media.to_json(value), _TEXT)


def has(owner: Any, name: str) -> bool:
    """Say whether there is an attribute of this name."""
    return bool(h5a.exists(owner, name.encode()))


def discard(owner: Any, name: str) -> None:
    """Remove one attribute if it is there."""
    if h5a.exists(owner, name.encode()):
        h5a.delete(owner, name.encode())


def get(owner: Any, name: str, default: Any = None) -> Any:
    """Read one attribute as a JSON value."""
    raw = name.encode()
    if not h5a.exists(owner, raw):
        return default
    return _read(owner, raw)


def names(owner: Any) -> list[str]:
    """List the names of all attributes, in order of creation where the file keeps it."""
    found: list[bytes] = []
    tracked = owner.get_create_plist().get_attr_creation_order() & h5p.CRT_ORDER_TRACKED
    h5a.iterate(owner, found.append, index_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME)
    return [name.decode("utf-8", "surrogateescape") for name in found]


def items(owner: Any, skip: Iterable[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield name and value of every attribute that is not to be skipped."""
    for name in names(owner):
        if name not in skip:
            raw = name.encode("utf-8", "surrogateescape")
            yield name, _read(owner, raw)


def remove(owner: Any, keep: Iterable[str] = ()) -> None:
    """Remove every attribute but those to be kept."""
    for name in names(owner):
        if name not in keep:
            h5a.delete(owner, name.encode("utf-8", "surrogateescape"))


def escape(name: str, reserved: Iterable[str] = ()) -> str:
    """Turn the name of an entry into one that an attribute can have and that is not reserved.

    Examples
    --------
    >>> escape("50 %"), escape("CLASS", {"CLASS"}), escape("")
    ('50 %25', '%43LASS', '%')
    """
    text = name.replace("%", "%25").replace("\0", "%00")
    if not text:
        return "%"
    return f"%{ord(text[0]):02X}{text[1:]}" if text in reserved else text


def unescape(text: str, reserved: Iterable[str] = ()) -> str:
    """Undo `escape`; a name that it can't have made comes back as it is."""
    if text == "%":
        return ""
    name = re.sub("%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)
    return name if escape(name, reserved) == text else text


def _read(owner: Any, raw: bytes) -> Any:
    """Give the value of an attribute that anybody may have written."""
    attribute = h5a.open(owner, raw)
    try:
        shape, dtype = attribute.shape, attribute.dtype
        if shape is None:
            return None
        large = math.prod(shape) * dtype.itemsize > _LARGEST
        if large or (_may_exceed(shape, dtype) and references.exceed(owner, raw, attribute)):
            return f"<{math.prod(shape)} items of {dtype}>"
        data = np.empty(shape, dtype)
        attribute.read(data)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        return f"<unreadable: {error}>"
    return _value(data[()] if data.shape == () else data)


def _may_exceed(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Say whether an attribute has references to more than one text of varying length."""
    if not dtype.hasobject:
        return False
    metadata = dtype.metadata  # is looked at directly, since most attributes are one text
    return shape != () or metadata is None or metadata.get("vlen") not in _TEXTS


def _value(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        return [_value(part) for part in item]
    if isinstance(item, np.void):
        return _compound(item)
    if isinstance(item, np.generic) and not isinstance(item, np.bytes_):
        item = item.item()
    if isinstance(item, bytes):
        item = item.decode("utf-8", "replace")
    if isinstance(item, str):
        return value_of_text(item)
    if isinstance(item, complex):
        return [item.real, item.imag]
    if item is None or isinstance(item, (bool, int, float)):
        return item
    if isinstance(item, np.number):  # long double
        return float(item)
    return f"<{type(item).__name__}>"


def _compound(item: np.void) -> Any:
    if item.dtype.names is None:
        return item.tobytes().hex()
    return {name: _value(item[name]) for name in item.dtype.names}


def value_of_text(text: str) -> Any:
    """Give the JSON value that a text stands for."""
    if not text.startswith(_TAG):
        return text
    try:
        return media.from_json(text[len(_TAG) :])
    except Corrupt:  # another program's text that happens to begin like ours
        return text


def put_all(owner: Any, values: Mapping[str, Any], reserved: Iterable[str] = ()) -> None:
    """Write entries as attributes, under escaped names."""
    for name, value in values.items():
        put(owner, escape(name, reserved), value)
