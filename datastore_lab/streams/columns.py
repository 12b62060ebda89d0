"""How each array type is carried in an Arrow column, and back.

One row of an array is one value of a column: a scalar, or a fixed-shape tensor where the array has more
axes. Types that Arrow lacks are carried in a form of the same bytes and named in the field's metadata
``lab_dtype``: complex as pairs, long doubles, byte strings and structures as fixed-size binary, dates in
units other than s, ms, us and ns as integers, big-endian numbers as native ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from datastore_lab import dtypes, media
from datastore_lab.errors import Corrupt, Foreign, NotStorable
from datastore_lab.records import ArrayInfo, default_dims

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPE, DIMS, TAGGED = b"lab_dtype", b"lab_dims", b"lab_json:"
_UNITS = ("s", "ms", "us", "ns")
_NUMBERS = {
    np.dtype(code): getattr(pa, name)()
    for code, name in {
        "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
        "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64",
    }.items()
}  # fmt: skip
_FROM_ARROW = {arrow: dtype for dtype, arrow in _NUMBERS.items()}


class Carrier(NamedTuple):
    """The form in which an array lies in a column.

    Attributes
    ----------
    value : pyarrow type
        Of one element.
    native : numpy dtype or None
        Of the carried numbers; None for text and for packed bits.
    inner : tuple of int
        Axes that the form adds behind the array's own.
    """

    value: Any
    native: np.dtype[Any] | None
    inner: tuple[int, ...] = ()


def carrier(dtype: np.dtype[Any], scalar: bool) -> Carrier:
    """Choose the form for a type; `scalar` says that a row is one element."""
    kind = dtype.kind
    if kind in "TU":
        if not scalar:
            raise NotStorable(
                "an Arrow file holds text with one value per row; use HDF5 or Zarr for more axes"
            )
        return Carrier(pa.string(), None)
    if kind == "b":
        return Carrier(pa.bool_(), None) if scalar else Carrier(pa.uint8(), np.dtype("u1"))
    if kind in "iu" or (kind == "f" and dtype.itemsize <= 8):
        native = dtype.newbyteorder("=")
        return Carrier(_NUMBERS[native], native)
    if kind == "c" and dtype.itemsize <= 16:
        part = np.dtype(f"f{dtype.itemsize // 2}")
        return Carrier(_NUMBERS[part], part, (2,))
    if kind in "mM":
        return _carry_time(dtype, scalar)
    if dtype.itemsize == 0:
        raise NotStorable(f"an Arrow file can't hold {dtype}: its elements have no bytes")
    if scalar:
        return Carrier(pa.binary(dtype.itemsize), np.dtype(f"V{dtype.itemsize}"))
    return Carrier(pa.uint8(), np.dtype("u1"), (dtype.itemsize,))


def _carry_time(dtype: np.dtype[Any], scalar: bool) -> Carrier:
    unit, step = np.datetime_data(dtype)
    native = np.dtype("i8")
    if not scalar or step != 1 or unit not in _UNITS:
        return Carrier(pa.int64(), native)
    return Carrier(pa.timestamp(unit, "UTC") if dtype.kind == "M" else pa.duration(unit), native)


def field(name: str, info: ArrayInfo, attributes: Mapping[str, Any]) -> Any:
    """Make the field of an array: its type, dimension names and attributes."""
    dtype = dtypes.parse(info.dtype)
    shape = tuple(info.shape[1:])
    form = carrier(dtype, not shape)
    shape += form.inner
    if any(length == 0 for length in shape):
        raise NotStorable(f"{name!r} has rows of the shape {shape}, which an Arrow file can't hold", key=name)
    kind = pa.fixed_shape_tensor(form.value, shape) if shape else form.value
    metadata = {DIMS: json.dumps(info.dims)}
    if _inferred(kind) != (dtype, tuple(info.shape[1:])):
        metadata[DTYPE] = info.dtype
    for key, value in attributes.items():
        metadata[key.encode() if isinstance(value, str) else TAGGED + key.encode()] = (
            value if isinstance(value, str) else media.to_json(value)
        )
    return pa.field(name, kind, nullable=False, metadata=metadata)


def describe(field: Any) -> tuple[np.dtype[Any], tuple[int, ...], tuple[str, ...], dict[str, Any]]:
    """Give type, row shape, dimension names and attributes of a field.

    Raises
    ------
    Foreign
        For a type that is not an array of anything, such as a list of varying length.
    """
    metadata = dict(field.metadata or {})
    dtype, shape = _inferred(field.type)
    if DTYPE in metadata:
        dtype = dtypes.parse(metadata.pop(DTYPE).decode())
        shape = _shape(field.type)
        inner = len(carrier(dtype, not _is_tensor(field.type)).inner)
        shape = shape[: len(shape) - inner] if inner else shape
    dims = tuple(json.loads(metadata.pop(DIMS, b"[]")))
    if len(dims) != 1 + len(shape):
        dims = ("row", *default_dims(field.name, 1 + len(shape))[1:])
    attributes = {
        key.removeprefix(TAGGED).decode(): media.from_json(value)
        if key.startswith(TAGGED)
        else value.decode()
        for key, value in metadata.items()
        if not key.startswith((b"ARROW:", b"PARQUET:"))
    }
    return dtype, shape, dims, attributes


def _is_tensor(kind: Any) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_fixed_size_list(kind)


def _shape(kind: Any) -> tuple[int, ...]:
    if isinstance(kind, pa.FixedShapeTensorType):  # what is stated is the shape in memory
        return tuple(kind.shape[axis] for axis in kind.permutation or range(len(kind.shape)))
    return (kind.list_size, *_shape(kind.value_type)) if pa.types.is_fixed_size_list(kind) else ()


def _inferred(kind: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Give the type and row shape that an Arrow type means by itself."""
    if _is_tensor(kind):
        return _inferred(kind.value_type)[0], _shape(kind)
    if kind in _FROM_ARROW:
        return _FROM_ARROW[kind], ()
    if pa.types.is_boolean(kind):
        return np.dtype("?"), ()
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return np.dtype(f"{'M8' if pa.types.is_timestamp(kind) else 'm8'}[{kind.unit}]"), ()
    if pa.types.is_date32(kind):
        return np.dtype("M8[D]"), ()
    if pa.types.is_fixed_size_binary(kind):
        return np.dtype(f"V{kind.byte_width}"), ()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.dtypes.StringDType(), ()
    raise Foreign(f"a column of the Arrow type {kind} is not an array of numbers or text")


def to_column(rows: NDArray[Any], kind: Any) -> Any:
    """Make the column of rows, without a copy where the bytes are the same.

    Neither pandas nor `pyarrow.array`, which imports it, is involved.
    """
    scalar = rows.ndim == 1
    form = carrier(rows.dtype, scalar)
    count = len(rows)
    if rows.dtype.kind in "TU":
        return _text_column(rows)
    if form.native is None:
        return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(np.packbits(rows, bitorder="little"))])
    native = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder("="), copy=False))
    if rows.dtype.kind in "SV":  # byte order is part of the bytes here
        native = np.ascontiguousarray(rows)
    buffer = pa.py_buffer(native.reshape(-1).view(np.uint8))
    if not isinstance(kind, pa.FixedShapeTensorType):
        return pa.Array.from_buffers(kind, count, [None, buffer])
    length = math.prod(kind.shape)
    values = pa.Array.from_buffers(form.value, count * length, [None, buffer])
    storage = pa.Array.from_buffers(kind.storage_type, count, [None], children=[values])
    return pa.ExtensionArray.from_storage(kind, storage)


def numbers(values: NDArray[Any]) -> Any:
    """Give native numbers or truths as an Arrow array; `pyarrow.array` would import pandas."""
    if values.dtype.kind == "b":
        data = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, data])
    kind, data = pa.from_numpy_dtype(values.dtype), pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, data])


def plain(values: Any) -> NDArray[Any]:
    """Give an Arrow array of numbers or truths for numpy; its own method would import pandas."""
    return _flat(values, pa.field("cells", values.type))


def text(value: str) -> Any:
    """Give one text as an Arrow scalar; `pyarrow.scalar` would import pandas."""
    return texts([value])[0]


def texts(values: Sequence[str]) -> Any:
    """Give texts as an Arrow array."""
    return _text_column(values)


def _text_column(rows: Any) -> Any:
    encoded = [str(text).encode() for text in rows]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def from_column(column: Any, field: Any) -> NDArray[Any]:
    """Give the rows of a column; numbers are a view of the column's memory.

    Raises
    ------
    Foreign
        If a number is missing (null) where the type has no way to say so.
    """
    dtype, shape, _dims, _attributes = describe(field)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _refuse_nulls(column, field)
        return np.array(column.to_pylist(), dtype=dtype)
    values = column
    while _is_tensor(values.type):
        _refuse_nulls(values, field)
        values = (values.storage if isinstance(values.type, pa.FixedShapeTensorType) else values).flatten()
    flat = _flat(values, field)
    if isinstance(kind, pa.FixedShapeTensorType) and kind.permutation:
        physical = flat.reshape(len(column), *kind.shape)
        return physical.transpose(0, *(1 + axis for axis in kind.permutation))
    if flat.dtype == dtype:
        return flat.reshape(len(column), *shape)
    if dtype.kind in "iuf" and flat.dtype == dtype.newbyteorder("="):
        return flat.astype(dtype).reshape(len(column), *shape)
    if dtype.kind in "mMc":
        return flat.view(dtype.newbyteorder("=")).astype(dtype).reshape(len(column), *shape)
    return flat.view(dtype).reshape(len(column), *shape)


def _flat(values: Any, field: Any) -> NDArray[Any]:
    kind, count, offset = values.type, len(values), values.offset
    data = values.buffers()[1]
    if pa.types.is_boolean(kind):
        _refuse_nulls(values, field)
        bits = np.frombuffer(data or b"", np.uint8)
        return np.unpackbits(bits, bitorder="little", count=offset + count)[offset:].view(np.bool_)
    dtype, _shape = _inferred(kind)
    stored = np.dtype("i4") if pa.types.is_date32(kind) else dtype
    flat: NDArray[Any] = np.frombuffer(data or b"", stored, count=count, offset=offset * stored.itemsize)
    flat = flat if stored == dtype else flat.astype("i8").view(dtype)
    if not values.null_count:
        return flat
    if dtype.kind not in "fmM":
        _refuse_nulls(values, field)
    missing = ~_flat(values.is_valid(), field)
    return np.where(missing, np.array("NaT" if dtype.kind in "mM" else np.nan, dtype), flat)


def _refuse_nulls(values: Any, field: Any) -> None:
    if values.null_count:
        raise Foreign(
            f"the column {field.name!r} has {values.null_count} missing values of type {field.type}, "
            "which an array can't say; read it with pyarrow"
        )


def buffers(kind: Any) -> int:
    """Say how many buffers a column of a carried type has in a message."""
    return 3 if isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_string(kind) else 2


def rebuild(  # noqa: PLR0917
    kind: Any,
    rows: int,
    start: int,
    stop: int,
    places: Sequence[tuple[int, int]],
    fetch: Callable[[int, int], memoryview],
) -> Any:
    """Make the column of some rows of a batch from its bytes, touching no others.

    Parameters
    ----------
    kind : pyarrow type
    rows : int
        Of the batch.
    start, stop : int
    places : sequence of (int, int)
        Offset and length of each buffer.
    fetch : callable
        ``fetch(start, stop)`` gives bytes of the batch.

    Raises
    ------
    ValueError
        If a buffer is too short for its rows.
    """
    count = stop - start
    if not 0 <= start <= stop <= rows:
        raise ValueError(f"rows {start} to {stop} of a batch of {rows}")
    if pa.types.is_string(kind):
        return _rebuild_text(start, stop, places, fetch)
    tensor = isinstance(kind, pa.FixedShapeTensorType)
    value = kind.value_type if tensor else kind
    bits = value.bit_width * (math.prod(kind.shape) if tensor else 1)
    at, length = places[-1]
    low, high = start * bits // 8, -(-stop * bits // 8)
    if high > length:
        raise ValueError(f"a buffer of {length} bytes for {rows} rows of {bits} bits")
    data = pa.py_buffer(fetch(at + low, at + high)) if count else pa.py_buffer(b"")
    if not tensor:
        return pa.Array.from_buffers(kind, count, [None, data], offset=start * bits % 8)
    values = pa.Array.from_buffers(value, count * math.prod(kind.shape), [None, data])
    storage = pa.Array.from_buffers(kind.storage_type, count, [None], children=[values])
    return pa.ExtensionArray.from_storage(kind, storage)


def _rebuild_text(
    start: int, stop: int, places: Sequence[tuple[int, int]], fetch: Callable[[int, int], memoryview]
) -> Any:
    (at, length), (data, size) = places[-2:]
    if start == stop:
        return texts([])
    if 4 * (stop + 1) > length:
        raise ValueError(f"offsets of {length} bytes for {stop} texts")
    offsets = np.frombuffer(fetch(at + 4 * start, at + 4 * (stop + 1)), "<i4")
    first, last = int(offsets[0]), int(offsets[-1])
    if not 0 <= first <= last <= size:
        raise ValueError("offsets of texts point outside")
    raw = fetch(data + first, data + last)
    made = pa.Array.from_buffers(
        pa.string(), stop - start, [None, pa.py_buffer((offsets - first).astype("<i4")), pa.py_buffer(raw)]
    )
    made.validate(full=True)
    return made


def checked(batch: Any, where: str) -> Any:
    """Look through a batch from outside before its memory is trusted.

    Raises
    ------
    Corrupt
    """
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise Corrupt(f"{where!r} is damaged: {error}", key=where) from error
    return batch
