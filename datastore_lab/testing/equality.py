"""Equality as a scientist means it: the same type, the same bits, the same order, the same names."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import math
import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

_LONG = (np.dtype(np.longdouble), np.dtype(np.clongdouble))


def assert_same(found: Any, expected: Any, where: str = "value") -> None:
    """Check that an object came back as it was.

    Numbers are compared with their type, floats bit by bit, arrays by type, shape and bytes, mappings with
    their order, tables and grids by the strictest check of their library.

    Raises
    ------
    AssertionError
        Naming the path at which they differ.
    """
    assert type(found) is type(expected), f"{where}: {type(found)} is not {type(expected)}"
    compare = _comparison(expected)
    compare(found, expected, where)


def assert_same_array(found: Any, expected: Any, where: str = "array") -> None:
    """Check that two arrays have the same type, shape and bytes."""
    assert found.dtype == expected.dtype, f"{where}: {found.dtype} is not {expected.dtype}"
    assert found.shape == expected.shape, f"{where}: {found.shape} is not {expected.shape}"
    if expected.dtype.kind in "TO":
        assert getattr(found.dtype, "coerce", None) == getattr(expected.dtype, "coerce", None), where
        items = zip(found.reshape(-1).tolist(), expected.reshape(-1).tolist(), strict=True)
        for index, (one, other) in enumerate(items):
            assert_same(one, other, f"{where}, item {index}")
    elif expected.dtype.names is not None:
        for field in expected.dtype.names:  # the bytes between fields mean nothing
            assert_same_array(found[field], expected[field], f"{where}[{field!r}]")
    else:
        assert (_bytes(found) == _bytes(expected)).all(), f"{where}: the bytes differ"


def _bytes(array: Any) -> Any:
    """Give the bytes of an array that mean something: an 80-bit float has 10, but takes up 12 or 16."""
    raw = np.frombuffer(array.tobytes(), np.uint8)
    if array.dtype not in _LONG or np.finfo(np.longdouble).nmant != 63:
        return raw
    return raw.reshape(-1, np.dtype(np.longdouble).itemsize)[:, :10]


def assert_same_json(found: Any, expected: Any, where: str = "meta") -> None:
    """Check JSON values: int and float, True and 1 are different; tuples and lists are the same."""
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping), f"{where}: {found!r:.80} is no mapping"
        assert set(found) == set(expected), f"{where}: other names: {set(found) ^ set(expected)}"
        for name, item in expected.items():
            assert_same_json(found[name], item, f"{where}[{name!r:.40}]")
    elif isinstance(expected, (list, tuple)):
        assert isinstance(found, (list, tuple)), f"{where}: {found!r:.80} is no list"
        assert len(found) == len(expected), f"{where}: {len(found)} items, not {len(expected)}"
        for index, item in enumerate(expected):
            assert_same_json(found[index], item, f"{where}[{index}]")
    elif isinstance(expected, float) and math.isnan(expected):
        assert isinstance(found, float), f"{where}: {found!r:.80} is not NaN"
        assert math.isnan(found), f"{where}: {found!r:.80} is not NaN"
    else:
        assert_same(found, expected, where)


def _comparison(expected: Any) -> Any:
    pandas, xarray = sys.modules.get("pandas"), sys.modules.get("xarray")
    if pandas is not None and isinstance(expected, (pandas.DataFrame, pandas.Series, pandas.Index)):
        return _compare_tables
    if xarray is not None and isinstance(expected, (xarray.Dataset, xarray.DataArray, xarray.Variable)):
        return _compare_grids
    if xarray is not None and isinstance(expected, xarray.DataTree):
        return _compare_trees
    for types, compare in _COMPARISONS:
        if isinstance(expected, types):
            return compare
    return _compare_dataclasses if dataclasses.is_dataclass(expected) else _compare_values


def _compare_values(found: Any, expected: Any, where: str) -> None:
    assert found is expected or found == expected, f"{where}: {found!r:.80} is not {expected!r:.80}"
    if hasattr(expected, "tzinfo") and expected.tzinfo is not None:
        assert str(found) == str(expected), f"{where}: {found!r} is not {expected!r}"
        assert getattr(found, "fold", 0) == getattr(expected, "fold", 0), f"{where}: the fold differs"


def _compare_floats(found: float, expected: float, where: str) -> None:
    assert struct.pack("<d", found) == struct.pack("<d", expected), f"{where}: {found!r} is not {expected!r}"


def _compare_decimals(found: decimal.Decimal, expected: decimal.Decimal, where: str) -> None:
    assert found.as_tuple() == expected.as_tuple(), f"{where}: {found!r} is not {expected!r}"


def _compare_complex(found: complex, expected: complex, where: str) -> None:
    _compare_floats(found.real, expected.real, where)
    _compare_floats(found.imag, expected.imag, where)


def _compare_scalars(found: Any, expected: Any, where: str) -> None:
    assert_same_array(np.asarray(found), np.asarray(expected), where)


def _compare_masked(found: Any, expected: Any, where: str) -> None:
    if expected is np.ma.masked:
        assert found is np.ma.masked, where
        return
    assert_same_array(found.data, expected.data, f"{where}.data")
    assert (found.mask is np.ma.nomask) == (expected.mask is np.ma.nomask), f"{where}.mask"
    assert_same_array(np.asarray(found.mask), np.asarray(expected.mask), f"{where}.mask")
    assert_same_array(np.asarray(found.fill_value), np.asarray(expected.fill_value), f"{where}.fill_value")
    assert found.hardmask == expected.hardmask, f"{where}.hardmask"


def _compare_mappings(found: Any, expected: Any, where: str) -> None:
    assert len(found) == len(expected), f"{where}: {len(found)} items, not {len(expected)}"
    pairs = zip(found.items(), expected.items(), strict=True)
    for number, ((key, value), (name, item)) in enumerate(pairs):
        place = f"{name!r:.40}" if isinstance(name, str) else f"key {number}"
        assert_same(key, name, f"{where}, {place}")
        assert_same(value, item, f"{where}[{place}]")
    assert getattr(found, "default_factory", None) is getattr(expected, "default_factory", None), where


def _compare_sequences(found: Any, expected: Any, where: str) -> None:
    assert len(found) == len(expected), f"{where}: {len(found)} items, not {len(expected)}"
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert_same(one, other, f"{where}[{index}]")
    assert getattr(found, "maxlen", None) == getattr(expected, "maxlen", None), where


def _compare_dataclasses(found: Any, expected: Any, where: str) -> None:
    for field in dataclasses.fields(expected):
        held = [hasattr(obj, field.name) for obj in (found, expected)]
        assert held[0] == held[1], f"{where}.{field.name} is set in one of them"
        if all(held):
            assert_same(getattr(found, field.name), getattr(expected, field.name), f"{where}.{field.name}")


def _compare_tables(found: Any, expected: Any, where: str) -> None:
    import pandas as pd

    if isinstance(expected, pd.Index):
        pd.testing.assert_index_equal(found, expected, exact=True)
        assert getattr(found, "freq", None) == getattr(expected, "freq", None), (
            f"{where}: the frequency differs"
        )
        for one, other in zip(getattr(found, "levels", ()), getattr(expected, "levels", ()), strict=True):
            pd.testing.assert_index_equal(one, other, exact=True)
        return
    strict: Any = {"check_exact": True, "check_freq": True, "check_flags": True, "check_index_type": True}
    check = pd.testing.assert_series_equal
    if isinstance(expected, pd.DataFrame):
        check = pd.testing.assert_frame_equal  # type: ignore[assignment]
        assert_same(found.columns, expected.columns, f"{where}.columns")
    check(found, expected, **strict)
    assert_same(found.index, expected.index, f"{where}.index")
    assert_same(dict(found.attrs), dict(expected.attrs), f"{where}.attrs")


def _compare_grids(found: Any, expected: Any, where: str) -> None:
    # where a MultiIndex has missing values, nothing is identical to a copy of itself
    same = found.identical(expected) or not expected.identical(expected.copy(deep=True))
    assert same, f"{where}: {found!r} is not {expected!r}"
    assert_same(dict(found.encoding), dict(expected.encoding), f"{where}.encoding")
    if hasattr(expected, "variables"):
        for names in ("data_vars", "coords"):
            assert list(getattr(found, names)) == list(getattr(expected, names)), (
                f"{where}: the order of the variables differs"
            )
        for name, variable in expected.variables.items():
            _compare_variables(found.variables[name], variable, f"{where}[{name!r}]")
    else:
        _compare_variables(
            found.variable if hasattr(found, "variable") else found, _variable(expected), where
        )
        assert getattr(found, "name", None) == getattr(expected, "name", None), f"{where}: the name differs"
    if hasattr(expected, "xindexes"):
        assert set(found.xindexes) == set(expected.xindexes), f"{where}: other indexes"
        for name, index in expected.indexes.items():
            if type(index).__name__ == "MultiIndex":  # those of one level may have got a dtype of their own
                assert_same(found.indexes[name], index, f"{where}.indexes[{name!r}]")


def _variable(array: Any) -> Any:
    return array.variable if hasattr(array, "variable") else array


def _compare_variables(found: Any, expected: Any, where: str) -> None:
    assert_same_array(np.asarray(found.to_numpy()), np.asarray(expected.to_numpy()), where)
    assert set(found.attrs) == set(expected.attrs), f"{where}: other attributes"
    for name, value in expected.attrs.items():
        assert_same(found.attrs[name], value, f"{where}.attrs[{name!r}]")
    assert_same(dict(found.encoding), dict(expected.encoding), f"{where}.encoding")


def _compare_trees(found: Any, expected: Any, where: str) -> None:
    assert found.identical(expected), f"{where}: {found!r} is not {expected!r}"
    assert found.name == expected.name, f"{where}: the name differs"
    for node in expected.subtree:
        _compare_grids(found[node.path].to_dataset(), node.to_dataset(), f"{where}{node.path}")


_COMPARISONS: tuple[tuple[Any, Any], ...] = (
    (np.ma.MaskedArray, _compare_masked),
    (np.ndarray, assert_same_array),
    (np.generic, _compare_scalars),
    (float, _compare_floats),
    (decimal.Decimal, _compare_decimals),
    (complex, _compare_complex),
    (Mapping, _compare_mappings),
    ((list, tuple, collections.deque), _compare_sequences),
)
