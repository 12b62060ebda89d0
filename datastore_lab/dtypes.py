"""The canonical table of array types: their names, and which of them can be stored.

A type's canonical name is numpy's own type string (``"<f8"``, ``"<M8[ns]"``, ``"|S5"``), ``"T"`` for
variable-length text, or a JSON list of fields for a structured type.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.records import check_columns, check_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from datastore_lab.keys import Key

STRING = "T"
"""Canonical name of `numpy.dtypes.StringDType`."""

_SIMPLE = re.compile(r"[<>|=]?[?A-Za-z]+[0-9]{0,10}(\[[0-9]{0,10}[A-Za-z]+\])?", re.ASCII)
"""What numpy may be asked to read: not its lists and shapes, which go to the parser of Python itself."""


def name(dtype: np.dtype[Any]) -> str:
    """Give the canonical name of a type.

    Raises
    ------
    NotStorable
        For object arrays and for void types with titles, which have no portable meaning.

    Examples
    --------
    >>> name(np.dtype("f8")), name(np.dtype([("x", "i4"), ("y", "f8", (2,))]))
    ('<f8', '[["x", "<i4"], ["y", "<f8", [2]]]')
    """
    check(dtype)
    if dtype.kind == "T":
        return STRING
    if dtype.names is None:
        return dtype.str
    return json.dumps(_fields(dtype))


def parse(text: str) -> np.dtype[Any]:
    """Give the type of a canonical name.

    Raises
    ------
    Corrupt
        If it is not one.

    Examples
    --------
    >>> parse('[["x", "<i4"]]')
    dtype([('x', '<i4')])
    """
    try:
        if text == STRING:
            return np.dtypes.StringDType()
        dtype = _structured(json.loads(text)) if text.startswith(("[", "{")) else _simple(text)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Corrupt(f"{text!r} is not the name of an array type", key=text) from error
    if dtype.hasobject:
        raise Corrupt(f"{text!r} names an object type, which no store holds", key=text)
    return dtype


def check(dtype: np.dtype[Any]) -> None:
    """Refuse types that no store can hold."""
    if dtype.kind == "T":
        _check_text(dtype)
        return
    if _titled(dtype):
        raise NotStorable(f"fields with titles ({dtype}) can't be stored; rename the fields", key=str(dtype))
    if dtype.hasobject:
        raise NotStorable(
            f"arrays of Python objects ({dtype}) can't be stored; convert to text, numbers or a structured "
            "type, or store a list",
            key=str(dtype),
        )


def as_rows(
    key: Key, block: Mapping[str, ArrayLike], arrays: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], int]:
    """Give the rows that a growing record was handed as arrays, and how many they are.

    Parameters
    ----------
    key : Key
        The record, for messages.
    block : mapping of str to array_like, shapes (n, ...)
        Arrays are given as they are, `fit` converts them; of lists each value has to be equal to what the
        declared type makes of it.
    arrays : mapping of str to anything with dtype and shape
        What the record was declared to hold.

    Raises
    ------
    NotStorable
        If an array is missing or unknown, is of another row shape or length than it has to be, has masked
        values, or is a list of what the declared type can't hold.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo
    >>> as_rows(("run",), {"x": [1, 2]}, {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)})
    ({'x': array([1., 2.])}, 2)
    """
    check_columns(key, block, arrays)
    made = {name: _as_array(rows, arrays[name], name) for name, rows in block.items()}
    return made, check_rows(key, made, arrays)


def _as_array(rows: Any, like: Any, what: str) -> NDArray[Any]:
    if type(rows) is np.ndarray:
        return rows
    if isinstance(rows, np.ndarray) and np.ma.is_masked(rows):
        raise NotStorable(
            f"rows of {what!r} have masked values, which a stream can't say: fill them in, and keep the "
            "mask as an array beside them",
            key=what,
        )
    try:
        return np.asarray(rows) if hasattr(rows, "__array__") else _from_values(rows, like)
    except (TypeError, ValueError, OverflowError) as error:
        raise NotStorable(
            f"rows of {what!r}, given as {type(rows).__name__}, are no array of {like.dtype}, as declared: "
            f"{error}",
            key=what,
        ) from error


def _from_values(rows: Any, like: Any) -> NDArray[Any]:
    """Make an array of values of Python; numpy alone would round, cut and reinterpret what does not fit."""
    wanted = parse(like.dtype) if isinstance(like.dtype, str) else like.dtype
    if not len(rows):
        return np.empty((0, *like.shape[1:]), wanted)
    if wanted.kind in "mM":  # (numpy would parse them from text and numbers)
        return np.asarray(rows)
    made: NDArray[Any] = np.asarray(rows, wanted)
    if made.ndim and not _same(made.tolist(), rows):
        raise ValueError("which can't hold all of these values as they are")
    return made


def _same(made: Any, given: Any) -> bool:
    if isinstance(made, (list, tuple, np.ndarray)):
        return all(_same(*pair) for pair in zip(made, given, strict=True))
    return bool(made == given or (made != made and given != given))  # noqa: PLR0124 (NaN is itself)


def fit(rows: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Copy rows of a stream as exactly the type that the stream was declared with.

    Parameters
    ----------
    rows : ndarray, shape (n, ...)
    dtype : dtype
        As declared.
    what : str
        Name of the array, for the message.

    Returns
    -------
    ndarray of `dtype`, in C order
        Of its own.

    Raises
    ------
    NotStorable
        If a value would change.

    Examples
    --------
    >>> fit(np.array([1, 2]), np.dtype(">i2"), "counts")
    array([1, 2], dtype='>i2')
    """
    if rows.dtype == dtype:
        return np.array(rows, dtype, order="C")
    own = _converted(rows, dtype)
    if own is None:
        raise NotStorable(
            f"rows of {what!r} are {rows.dtype} and hold values that {dtype}, as declared, can't hold",
            key=what,
        )
    return own


def _converted(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Give the same values as another type; None if there are none."""
    whole = rows.dtype.kind in "biu" and dtype.kind in "biu"
    if _family(rows.dtype) != _family(dtype) or not (whole or np.can_cast(rows.dtype, dtype, "same_kind")):
        return None
    with np.errstate(all="ignore"):
        own = rows.astype(dtype, order="C")
        back = (own if rows.dtype.kind == "c" or dtype.kind != "c" else own.real).astype(rows.dtype)
    same = np.array_equal(back, rows, equal_nan=rows.dtype.kind in "fcmM")
    return own if same and not (whole and np.any((own < 0) != (rows < 0))) else None


def _family(dtype: np.dtype[Any]) -> str:
    """Tell numbers, text and raw bytes apart: numpy writes any of them as any other."""
    return {"V": "raw", "O": "objects", "S": "text", "U": "text", "T": "text"}.get(dtype.kind, "numbers")


def _check_text(dtype: Any) -> None:
    if hasattr(dtype, "na_object"):
        raise NotStorable(
            f"text with a missing value ({dtype}) can't be stored as one array: fill it in, and keep a mask "
            "beside it, as store[key] = array does",
            key=str(dtype),
        )


def _titled(dtype: np.dtype[Any]) -> bool:
    base = dtype.base
    fields = [] if base.names is None else [base.fields[field] for field in base.names]  # type: ignore[index]
    return any(len(field) > 2 or _titled(field[0]) for field in fields)


def _fields(dtype: np.dtype[Any]) -> Any:
    """Describe a structured type as JSON: a list of fields, or a mapping where it is not packed."""
    fields = []
    for field in dtype.names or ():
        inner, _offset, *_title = dtype.fields[field]  # type: ignore[index]
        base, shape = inner.subdtype or (inner, ())
        entry = [field, _fields(base) if base.names is not None else base.str]
        fields.append([*entry, list(shape)] if shape else entry)
    offsets = [dtype.fields[field][1] for field in dtype.names or ()]  # type: ignore[index]
    if _structured(fields) == dtype:
        return fields
    return {"fields": fields, "offsets": offsets, "itemsize": dtype.itemsize}


def _structured(described: Any) -> np.dtype[Any]:
    if isinstance(described, dict):
        packed = _structured(described["fields"])
        formats = [packed.fields[field][0] for field in packed.names or ()]  # type: ignore[index]
        layout = {"names": list(packed.names or ()), "formats": formats}
        return np.dtype({**layout, "offsets": described["offsets"], "itemsize": described["itemsize"]})  # type: ignore[call-overload, no-any-return]
    return np.dtype([_field(*entry) for entry in described])


@functools.lru_cache(512)
def _simple(text: str) -> np.dtype[Any]:
    if not _SIMPLE.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no simple type")
    return np.dtype(text)


def _field(field: str, form: Any, shape: Any = ()) -> tuple[Any, ...]:
    base = _simple(form) if isinstance(form, str) else _structured(form)
    return (field, base, tuple(shape)) if shape else (field, base)
