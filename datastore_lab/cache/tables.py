"""The content of pandas and xarray objects, told by class name so that neither is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import xxhash

from datastore_lab.errors import NotStorable

Encode: TypeAlias = Callable[[Any, str], bytes]


def encoder(obj: Any) -> Callable[[Any, str, Encode], bytes] | None:
    """Find the function that encodes an object of pandas or xarray, or None."""
    return encoder_of(type(obj))


def encoder_of(cls: type) -> Callable[[Any, str, Encode], bytes] | None:
    """Find the function that encodes objects of a class of pandas or xarray itself, or None."""
    package = cls.__module__.partition(".")[0]
    if package not in {"pandas", "xarray"}:
        return None
    for base in cls.__mro__:
        found = _ENCODERS.get(f"{package}.{base.__qualname__}")
        if found is not None:
            return found
    return None


def base_of(cls: type) -> type | None:
    """Find the table of pandas or xarray that a class of others is derived from.

    Examples
    --------
    >>> import pandas as pd
    >>> class Measured(pd.DataFrame): pass
    >>> base_of(Measured).__qualname__, base_of(pd.DataFrame), base_of(dict)
    ('DataFrame', None, None)
    """
    if encoder_of(cls) is not None:
        return None
    return next((base for base in cls.__mro__ if encoder_of(base) in _EXTENDED), None)


def attributes(base: type | None, found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what pandas itself keeps in the attributes of its tables, which is part of their content."""
    if base is None or not hasattr(base, "_internal_names_set"):
        return found
    own: set[str] = base._internal_names_set | {"_attrs", "_flags", "_mgr", "_name"}
    return {name: value for name, value in found.items() if name not in own}


def _frame(frame: Any, path: str, encode: Encode) -> bytes:
    columns = [_column(frame.iloc[:, number].array, path, encode) for number in range(frame.shape[1])]
    labels = [_index(frame.index, path, encode), _index(frame.columns, path, encode)]
    about = encode((frame.attrs, frame.flags.allows_duplicate_labels), f"{path}.attrs")
    return _join(b"DataFrame", *labels, about, *columns)


def _series(series: Any, path: str, encode: Encode) -> bytes:
    about = encode((series.name, series.attrs, series.flags.allows_duplicate_labels), path)
    index = _index(series.index, path, encode)
    return _join(b"Series", about, index, _column(series.array, path, encode))


def _index(index: Any, path: str, encode: Encode) -> bytes:
    names = encode(list(index.names), f"names of the index of {path}")
    kind = type(index).__qualname__.encode()
    if index.nlevels > 1:
        levels = [
            _column(index.get_level_values(level).array, path, encode) for level in range(index.nlevels)
        ]
        return _join(kind, names, *levels)
    frequency = encode(getattr(index, "freqstr", None), path)
    return _join(kind, names, frequency, _column(index.array, path, encode))


def _column(array: Any, path: str, encode: Encode) -> bytes:
    """Encode an extension array: type, missing values, values."""
    dtype = repr(array.dtype).encode()
    kind = type(array).__qualname__
    if kind == "Categorical":
        categories = _column(array.categories.array, path, encode)
        return _join(b"C", categories, encode((bool(array.ordered), array.codes), path))
    if kind == "IntervalArray":
        sides = [_column(side.array, path, encode) for side in (array.left, array.right)]
        return _join(b"I", dtype, *sides)
    if array.dtype.kind in "fciubmMV" and hasattr(array, "_ndarray"):
        return _join(b"n", dtype, encode(array._ndarray, path))
    if kind == "PeriodArray":
        return _join(b"P", dtype, encode(array.asi8, path))
    missing = array.isna()
    if hasattr(array, "_data") and hasattr(
        array, "_mask"
    ):  # masked numbers: what lies under the mask is left over
        data = array._data.copy()
        data[missing] = data.dtype.type()
        return _join(b"m", dtype, encode((missing, data), path))
    values = array.astype(object)
    values = getattr(values, "_ndarray", values)
    present = values[~missing].tolist()
    marks = {type(value).__qualname__ for value in values[missing]}
    if len(marks) < 2 and all(type(value) is str for value in present):
        return _join(b"t", dtype, encode((missing, sorted(marks)), path), _text(present))
    return _join(b"o", dtype, encode(values, path))


def _text(values: list[str]) -> bytes:
    """Digest many texts at once: all of them in a row, and their lengths."""
    joined = "".join(values).encode("utf-8", "surrogatepass")
    lengths = ",".join(map(str, map(len, values))).encode()
    return bytes(xxhash.xxh3_128_digest(joined) + xxhash.xxh3_128_digest(lengths))


def _time(value: Any, path: str, encode: Encode) -> bytes:
    about = (value.unit, value._value, str(getattr(value, "tz", None)), getattr(value, "fold", 0))
    return _join(type(value).__qualname__.encode(), encode(about, path))


def _printed(value: Any, path: str, encode: Encode) -> bytes:
    return _join(type(value).__qualname__.encode(), repr(value).encode())


def _offset(value: Any, path: str, encode: Encode) -> bytes:
    calendar = getattr(value, "calendar", None)
    days = None if calendar is None else (list(calendar.weekmask), calendar.holidays)
    about = (
        value.n,
        value.normalize,
        {name: part for name, part in value.kwds.items() if name != "calendar"},
        days,
    )
    return _join(type(value).__qualname__.encode(), repr(value).encode(), encode(about, path))


def _type(dtype: Any, path: str, encode: Encode) -> bytes:
    categories = getattr(dtype, "categories", None)
    labels = b"" if categories is None else _index(categories, path, encode)
    return _join(type(dtype).__qualname__.encode(), repr(dtype).encode(), labels)


def _data_array(array: Any, path: str, encode: Encode) -> bytes:
    coordinates = _variables(array.coords, path, encode)
    own = _variable(array.variable, path, encode)
    return _join(b"DataArray", encode(array.name, path), own, coordinates, _indexes(array, path, encode))


def _dataset(dataset: Any, path: str, encode: Encode) -> bytes:
    attributes = encode(dict(dataset.attrs), f"{path}.attrs")
    coordinates = encode(sorted(map(repr, dataset.coords)), path)
    indexes = _indexes(dataset, path, encode)
    return _join(b"Dataset", attributes, coordinates, _variables(dataset.variables, path, encode), indexes)


def _tree(tree: Any, path: str, encode: Encode) -> bytes:
    nodes = sorted((node.path, node) for node in tree.subtree)
    parts = [
        part for place, node in nodes for part in (place.encode(), _dataset(node.to_dataset(), path, encode))
    ]
    return _join(b"DataTree", encode(tree.name, path), *parts)


def _indexes(obj: Any, path: str, encode: Encode) -> bytes:
    """Encode by which coordinates one can select; their values are those of the coordinates."""
    found = [(repr(name), type(index).__qualname__) for name, index in obj.xindexes.items()]
    return encode(sorted(found), path)


def _variables(variables: Any, path: str, encode: Encode) -> bytes:
    named = sorted((repr(name), variables[name]) for name in variables)
    parts = [
        part
        for name, held in named
        for part in (name.encode(), _variable(getattr(held, "variable", held), f"{path}[{name}]", encode))
    ]
    return _join(b"variables", *parts)


def _variable(variable: Any, path: str, encode: Encode) -> bytes:
    about = encode((tuple(variable.dims), dict(variable.attrs)), f"{path}.attrs")
    data = variable.data
    if hasattr(data, "__dask_graph__"):
        data = data.compute()
    if type(data).__module__.startswith("pandas"):
        return _join(b"V", about, _column(data, path, encode))
    return _join(b"V", about, encode(data, path))


def _refuse(obj: Any, path: str, encode: Encode) -> bytes:
    raise NotStorable(
        f"{path} is a {type(obj).__qualname__}, a recipe and not data; pass the table it was made from",
        key=path,
    )


def _join(tag: bytes, *parts: bytes) -> bytes:
    return b"X" + tag + b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _array(array: Any, path: str, encode: Encode) -> bytes:
    return _column(array, path, encode)


def _bare(variable: Any, path: str, encode: Encode) -> bytes:
    return _variable(variable, path, encode)


_ENCODERS: dict[str, Callable[[Any, str, Encode], bytes]] = {
    "pandas.DataFrame": _frame,
    "pandas.Series": _series,
    "pandas.Index": _index,
    "pandas.ExtensionArray": _array,
    "pandas.Timestamp": _time,
    "pandas.Timedelta": _time,
    "pandas.Period": _printed,
    "pandas.Interval": _printed,
    "pandas.NaTType": _printed,
    "pandas.NAType": _printed,
    "pandas.ExtensionDtype": _type,
    "pandas.BaseOffset": _offset,
    "xarray.DataArray": _data_array,
    "xarray.Dataset": _dataset,
    "xarray.DataTree": _tree,
    "xarray.Variable": _bare,
    "pandas.DataFrameGroupBy": _refuse,
    "pandas.SeriesGroupBy": _refuse,
}

_EXTENDED = {_frame, _series, _data_array, _dataset}
