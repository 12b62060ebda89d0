"""Columns of attributes that grow with the trials: which type holds all values so far, and what is missing.

A column starts with the type of its first value. Where a trial lacks an attribute its cell is empty: ``NaN``,
``NaT`` or empty text; whole numbers become floats for that if none changes by it, else text.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import NotStorable
from datastore_lab.streams.text import cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT = np.dtypes.StringDType()
_FLOAT, _WHOLE, _TRUTH, _TIME = np.dtype("f8"), np.dtype("i8"), np.dtype("?"), np.dtype("M8[ns]")
_EXACT = 1 << 53


def column(name: str, value: Any) -> NDArray[Any] | None:
    """Give one value as a column of one row; None for a missing one.

    Raises
    ------
    NotStorable
        If it is no single value.

    Examples
    --------
    >>> column("subject", "007").tolist(), column("block", 7).dtype
    (['007'], dtype('int64'))
    """
    if value is None:
        return None
    value = value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value
    if isinstance(value, (np.datetime64, dt.datetime)):
        aware = isinstance(value, dt.datetime) and value.tzinfo is not None
        naive = value.astimezone(dt.UTC).replace(tzinfo=None) if aware else value  # type: ignore[union-attr]
        return np.array([naive], _TIME)
    if isinstance(value, bool):
        return np.array([value], _TRUTH)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return np.array([value], _WHOLE)
    if isinstance(value, float):
        return np.array([value], _FLOAT)
    if isinstance(value, str):
        return np.array([value], TEXT)
    raise NotStorable(
        f"the attribute {name!r} is {type(value).__name__}: an attribute of a trial is a number, text, a "
        "time or None; give larger things as arrays",
        key=name,
    )


def accepts(dtype: np.dtype[Any], value: NDArray[Any] | None) -> bool:
    """Whether a column of a type can take a value, or lack one, as it is.

    Examples
    --------
    >>> accepts(np.dtype("f8"), np.array([3])), accepts(np.dtype("i8"), None)
    (True, False)
    """
    if value is None:
        return dtype.kind in "fMT"
    if dtype.kind == "f" and value.dtype == _WHOLE:
        return bool(np.all(np.abs(value) <= _EXACT))
    return dtype.kind == "T" or value.dtype == dtype


def common(rows: NDArray[Any] | None, value: NDArray[Any] | None) -> np.dtype[Any]:
    """Choose the type that holds a column and one more value; one of the two may be lacking.

    Examples
    --------
    >>> common(np.array([1, 2]), np.array([0.5])), common(np.array([1 << 60]), None)
    (dtype('float64'), StringDType())
    """
    present = [part for part in (rows, value) if part is not None]
    found = {part.dtype for part in present}
    if found in ({_WHOLE}, {_WHOLE, _FLOAT}):
        exact = all(part.dtype == _FLOAT or np.all(np.abs(part) <= _EXACT) for part in present)
        return _FLOAT if exact else TEXT
    kind = found.pop() if len(found) == 1 else TEXT
    return kind if len(present) > 1 or kind.kind in "fMT" else TEXT


def as_type(rows: NDArray[Any] | None, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Give a column another type; one that is lacking is missing in all rows.

    Examples
    --------
    >>> as_type(np.array([1, 2]), 2, np.dtype("f8")), as_type(None, 2, TEXT)
    (array([1., 2.]), array(['', ''], dtype=StringDType()))
    """
    return np.full(count, _missing(dtype), dtype) if rows is None else _converted(rows, dtype)


def _missing(dtype: np.dtype[Any]) -> Any:
    return {"f": np.nan, "M": np.datetime64("NaT")}.get(dtype.kind, "")


def _converted(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if rows.dtype == dtype:
        return rows
    if dtype.kind != "T":
        return rows.astype(dtype)
    texts = cells.write(rows).to_pylist()
    gone = np.isnan(rows) if rows.dtype.kind == "f" else np.isnat(rows) if rows.dtype.kind == "M" else None
    return np.array(["" if gone is not None and gone[i] else text for i, text in enumerate(texts)], TEXT)
