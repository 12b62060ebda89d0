"""Columns that pandas keeps in Arrow's memory: taken apart into what Arrow defines, and put together again.

Nothing of Arrow's file formats is used, so that no length or compression that a stranger declares is
believed: the type is a schema without a body, the buffers are arrays of the record, and what is put
together is validated in full before a value is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import Corrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN = {
    "float": "float32",
    "double": "float64",
    **{f"{sign}int{size}": f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)},
}


def plain_type(kind: Any) -> np.dtype[Any] | None:
    """Give the numpy type of a column of numbers, None for all else."""
    name = _PLAIN.get(str(kind))
    return None if name is None else np.dtype(name)


def describe(kind: Any) -> str:
    """Give a type as text."""
    import pyarrow as pa

    return bytes(pa.schema([pa.field("", kind)]).serialize()).hex()


def take_apart(column: Any) -> list[NDArray[Any] | None] | None:
    """Give the buffers of a column; None where its type is nested, or can't be put together from buffers."""
    import pyarrow as pa

    if column.type.num_fields or pa.types.is_dictionary(column.type):
        return None
    try:
        whole = column.combine_chunks().take(pa.array(np.arange(len(column))))  # without an offset
        parts = [None if part is None else np.frombuffer(part, np.uint8) for part in whole.buffers()]
        again = from_buffers(describe(column.type), len(column), parts)
    except (pa.ArrowException, NotImplementedError, Corrupt):
        return None
    return parts if _same(again, column) else None


def from_numpy(values: NDArray[Any], missing: NDArray[Any], name: str) -> Any:
    """Make a column of numbers.

    Raises
    ------
    Corrupt
        If the numbers are not of the declared type.
    """
    import pyarrow as pa

    if name not in _PLAIN or values.dtype != np.dtype(_PLAIN[name]):
        raise Corrupt(f"a column is declared as {name!r:.40} but holds {values.dtype}", key=name)
    return pa.chunked_array([pa.array(values, mask=missing, from_pandas=False)])


def from_buffers(described: str, length: int, parts: Sequence[NDArray[Any] | None]) -> Any:
    """Undo `take_apart`.

    Raises
    ------
    Corrupt
        If the buffers are not those of a valid column.
    """
    import pyarrow as pa

    try:
        buffers = [None if part is None else pa.py_buffer(np.ascontiguousarray(part)) for part in parts]
        column = pa.Array.from_buffers(_kind(described), length, buffers)
        column.validate(full=True)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        raise Corrupt(f"a column is not as Arrow defines it: {error!r:.200}") from error
    return pa.chunked_array([column])


def from_values(described: str, values: list[Any]) -> Any:
    """Make a column of a nested type from Python values."""
    import pyarrow as pa

    return pa.chunked_array([pa.array(values, _kind(described), from_pandas=False)])


def comes_back(column: Any) -> bool:
    """Say whether Python values hold all that a column of a nested type does."""
    import pyarrow as pa

    try:
        return _same(from_values(describe(column.type), column.to_pylist()), column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False


def _kind(described: str) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(described))).field(0).type


def _same(found: Any, column: Any) -> bool:
    return bool(found.type == column.type and found.combine_chunks().equals(column.combine_chunks()))
