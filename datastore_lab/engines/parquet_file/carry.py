"""What of an Arrow column Parquet holds in another form, and back.

Parquet has no seconds, and lists of many values are slow in it: dates in seconds are integers, and rows of
more than 256 values are their bytes. What they are is said by ``lab_arrays`` in the file's metadata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_MOST_VALUES = 256
_DIFFERENCES = "DELTA_BINARY_PACKED"


def carried(field: Any) -> Any:
    """Give the field that stands for one in Parquet."""
    kind = field.type
    if isinstance(kind, pa.FixedShapeTensorType) and math.prod(kind.shape) > _MOST_VALUES:
        return field.with_type(pa.binary(_width(kind)))
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return field.with_type(pa.int64())
    return field


def coding(fields: Sequence[Any], schema: Any) -> dict[str, Any]:
    """Say how the columns are coded and compressed, in the words of `pyarrow.parquet.ParquetWriter`.

    Integers and times differ little from one row to the next, and are packed as their differences; that
    leaves little to compress. Of floats the bytes of the same weight lie together. All readers of Parquet 2
    know both.

    Parameters
    ----------
    fields : sequence of pyarrow fields
        As they are in Arrow.
    schema : pyarrow schema
        As `carried` gives it.
    """
    coded, compression, texts = {}, {}, []
    for field, stored in zip(fields, schema, strict=True):
        tensor = isinstance(stored.type, pa.FixedShapeTensorType)
        value = stored.type.value_type if tensor else stored.type
        leaf = f"{stored.name}.list.element" if tensor else stored.name
        how = _coding_of(value)
        compression[leaf] = "snappy" if how == _DIFFERENCES else "zstd"
        if how is not None:
            coded[leaf] = how
        elif pa.types.is_string(field.type):
            texts.append(leaf)
    return {"compression": compression, "column_encoding": coded or None, "use_dictionary": texts or False}


def _coding_of(value: Any) -> str | None:
    if pa.types.is_float32(value) or pa.types.is_float64(value):
        return "BYTE_STREAM_SPLIT"
    times = pa.types.is_timestamp(value) or pa.types.is_duration(value)
    return _DIFFERENCES if times or pa.types.is_integer(value) else None


def _width(kind: Any) -> int:
    return int(math.prod(kind.shape) * kind.value_type.bit_width // 8)


def pack(column: Any, kind: Any) -> Any:
    """Put a column into the form of the type `kind`."""
    if column.type == kind:
        return column
    if pa.types.is_int64(kind):
        return column.view(kind)
    values = column.storage.values
    return pa.Array.from_buffers(kind, len(column), [None, values.buffers()[1]])


def unpack(column: Any, kind: Any) -> Any:
    """Undo `pack`: give a column of the type `kind`."""
    if column.type == kind:
        return column
    if pa.types.is_timestamp(kind):
        return column.view(kind)
    if not isinstance(kind, pa.FixedShapeTensorType) or not pa.types.is_fixed_size_binary(column.type):
        return column.cast(kind)
    width, count = _width(kind), len(column)
    data = column.buffers()[1].slice(column.offset * width, count * width)
    values = pa.Array.from_buffers(kind.value_type, count * math.prod(kind.shape), [None, data])
    storage = pa.Array.from_buffers(kind.storage_type, count, [None], children=[values])
    return pa.ExtensionArray.from_storage(kind, storage)
