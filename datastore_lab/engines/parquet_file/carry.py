"""What of an Arrow column Parquet holds in another form, and back.

Parquet has no seconds, and lists of many values are slow in it: dates in seconds are integers, and rows of
more than 256 values are their bytes. What they are is said by ``lab_arrays`` in the file's metadata.
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

_MOST_VALUES = 256


def carried(field: Any) -> Any:
    """Give the field that stands for one in Parquet."""
    kind = field.type
    if isinstance(kind, pa.FixedShapeTensorType) and math.prod(kind.shape) > _MOST_VALUES:
        return field.with_type(pa.binary(_width(kind)))
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return field.with_type(pa.int64())
    return field


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
