"""One column: the values of a series or index as one-dimensional arrays, and a JSON description."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from datastore_lab import dtypes
from datastore_lab.codecs.table import arrow
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.nesting import Packer, unpack

if TYPE_CHECKING:
    from datastore_lab.records import Record

Described = dict[str, Any]

_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
_MISSING = {"nan": np.nan, "NA": pd.NA}
_INT_INDEX: Any = type(pd.arrays.SparseArray([0], kind="integer").sp_index)


class ColumnWriter:
    """Adds values to a record under construction.

    Parameters
    ----------
    encode : callable
        Turns any other object into a record.
    """

    def __init__(self, encode: Callable[[Any], Record]) -> None:
        self.packer = Packer()
        self._encode = encode

    def apart(self) -> ColumnWriter:
        """Give a writer for another record, to describe values whose arrays are not wanted."""
        return ColumnWriter(self._encode)

    def other(self, what: str, value: Any, place: str) -> Described:
        """Embed the record of an object that is no column."""
        try:
            return self.packer.embed(self._encode(value), place)
        except NotStorable as error:
            raise NotStorable(f"{what}: {error.message}", key=error.key) from error

    def values(self, what: str, data: pd.Series | pd.Index, name: str, dims: tuple[str, ...]) -> Described:
        """Add the values of a series or index under a reserved name.

        Parameters
        ----------
        what : str
            How messages call it.
        data : Series or Index, not a MultiIndex
        name : str
            Reserved with the packer.
        dims : tuple of str
            One reserved dimension.

        Raises
        ------
        NotStorable
            If pandas holds the values in a way that has no portable arrays.
        """
        dtype = data.dtype
        write: Callable[..., Described] | None = _WRITERS.get(type(dtype))
        if isinstance(dtype, np.dtype):
            write = ColumnWriter._objects if dtype.hasobject else ColumnWriter._numpy
        elif isinstance(data.array, _MASKED):
            write = ColumnWriter._nullable
        if write is None:
            raise NotStorable(
                f"{what} is of dtype {dtype}, which has no portable form; convert it with astype(), or with "
                "convert_dtypes(dtype_backend='numpy_nullable')",
                key=what,
            )
        try:
            return write(self, what, data, name, dims)
        except UnicodeEncodeError as error:
            raise NotStorable(
                f"{what} holds text with a lone surrogate, not valid Unicode", key=what
            ) from error
        except NotImplementedError as error:  # pandas can't read the values of every type it can hold
            raise NotStorable(
                f"{what} is of dtype {dtype}, which pandas can't give: {error}", key=what
            ) from error

    def _numpy(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        array = data.to_numpy()
        dtypes.check(array.dtype)
        self.packer.put(name, array, dims)
        return {"array": name}

    def _objects(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        items = list(data.to_numpy())
        if items and all(type(item) is str for item in items) and is_unicode(items):
            self.packer.put(name, np.array(items, np.dtypes.StringDType()), dims)
            return {"array": name, "type": "object"}
        return {"type": "objects", "items": self.other(what, items, name)}

    def _string(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        missing = data.isna()
        text = data.to_numpy(object, na_value="") if missing.any() else data.to_numpy(object)
        self.packer.put(name, np.array(text, np.dtypes.StringDType()), dims)
        kind = "NA" if data.dtype.na_value is pd.NA else "nan"
        state = {"array": name, "type": "string", "storage": data.dtype.storage, "missing": kind}
        return {**state, **self._mask(missing, name, dims)}

    def _nullable(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        missing, plain = data.isna(), data.dtype.numpy_dtype
        self.packer.put(name, data.to_numpy(plain, na_value=plain.type(0)), dims)
        return {"array": name, "type": "nullable", **self._mask(missing, name, dims)}

    def _mask(self, missing: Any, name: str, dims: tuple[str, ...]) -> Described:
        mask = np.asarray(missing, bool)
        return {"mask": self.packer.add(f"{name}.mask", mask, dims)} if mask.any() else {}

    def _category(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        values = data.array
        self.packer.put(name, np.array(values.codes), dims)
        place = self.packer.reserve(f"{name}.categories")
        categories = self.values(f"the categories of {what}", values.categories, place, (place,))
        return {"array": name, "type": "category", "ordered": bool(values.ordered), "categories": categories}

    def _datetime(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        self.packer.put(name, np.array(data.array.tz_convert(None)), dims)
        return {"array": name, "type": "datetime", "tz": self.other(what, data.dtype.tz, f"{name}.tz")}

    def _period(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        self.packer.put(name, np.array(data.array.asi8), dims)
        return {"array": name, "type": "period", "dtype": str(data.dtype)}

    def _sparse(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        """Keep the values that are there, and where they are."""
        values, dtype = data.array, data.dtype
        dtypes.check(dtype.subtype)
        self.packer.put(name, np.array(values.sp_values), (self.packer.reserve(f"{name}.filled"),))
        places = self.packer.add(f"{name}.places", values.sp_index.indices.copy())
        fill = np.asarray(dtype.fill_value, dtype.subtype)
        return {
            "array": name,
            "type": "sparse",
            "places": places,
            "length": len(values),
            "fill": self.packer.add(f"{name}.fill", fill),
            "blocks": values.kind == "block",
        }

    def _arrow(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        """Keep numbers as numbers with a mask, flat types as their buffers, nested ones as Python values."""
        column = data.array.__arrow_array__()
        state = {"type": "arrow", "of": arrow.describe(column.type), "length": len(column)}
        if (plain := arrow.plain_type(column.type)) is not None:
            missing = data.isna()
            self.packer.put(name, np.array(column.fill_null(0), plain), dims)
            state = {"array": name, "type": "arrow", "dtype": str(column.type)}
            return {**state, **self._mask(missing, name, dims)}
        if (buffers := arrow.take_apart(column)) is not None:
            return {**state, "buffers": [self._buffer(name, buffer) for buffer in buffers]}
        if not arrow.comes_back(column):
            raise NotStorable(f"{what} is of dtype {data.dtype}, which has no portable form", key=what)
        return {**state, "items": self.other(what, column.to_pylist(), name)}

    def _buffer(self, name: str, buffer: Any) -> str | None:
        return None if buffer is None else self.packer.add(f"{name}.buffer", buffer)

    def _interval(self, what: str, data: Any, name: str, dims: tuple[str, ...]) -> Described:
        ends = {}
        for end in ("left", "right"):
            place = self.packer.reserve(f"{name}.{end}")
            ends[end] = self.values(what, pd.Index(getattr(data.array, end)), place, dims)
        return {"type": "interval", "closed": data.dtype.closed, **ends}


_WRITERS: dict[type, Callable[..., Described]] = {
    pd.StringDtype: ColumnWriter._string,
    pd.CategoricalDtype: ColumnWriter._category,
    pd.DatetimeTZDtype: ColumnWriter._datetime,
    pd.PeriodDtype: ColumnWriter._period,
    pd.IntervalDtype: ColumnWriter._interval,
    pd.SparseDtype: ColumnWriter._sparse,
    pd.ArrowDtype: ColumnWriter._arrow,
}


class ColumnReader:
    """Gives back values and other objects of a record.

    Parameters
    ----------
    record : Record
    decode : callable
        Turns any other record into an object.
    """

    def __init__(self, record: Record, decode: Callable[[Record], Any]) -> None:
        self._arrays = record.arrays
        self._decode = decode

    def other(self, described: Mapping[str, Any]) -> Any:
        """Undo `ColumnWriter.other`."""
        return self._decode(unpack(described, self._arrays))

    def column(self, name: str, kinds: str = "") -> Any:
        """Give an array of the record that has one axis, and a type of one of these kinds.

        Raises
        ------
        Corrupt
            If it is another: pandas reads memory that is not its own where codes have two axes.
        """
        array = self._arrays[name]
        if array.ndim != 1 or (kinds and array.dtype.kind not in kinds):
            raise Corrupt(f"the array {name!r} is no column: {array.dtype}, {array.shape}", key=name)
        return array

    def values(self, state: Mapping[str, Any]) -> tuple[Any, Any]:
        """Undo `ColumnWriter.values`: an array of numpy's or of pandas' own, and its dtype."""
        read = _READERS.get(state.get("type", "numpy"))
        if read is None:
            raise Corrupt(f"a column has the unknown type {state['type']!r}", key=state.get("array"))
        values = read(self, state)
        return values, values.dtype

    def _numpy(self, state: Mapping[str, Any]) -> Any:
        return self.column(state["array"])

    def _object(self, state: Mapping[str, Any]) -> Any:
        return self.column(state["array"], "T").astype(object)

    def _objects(self, state: Mapping[str, Any]) -> Any:
        items = self.other(state["items"])
        array = np.empty(len(items), object)
        for index, item in enumerate(items):  # one by one: an assignment as a whole would unpack sequences
            array[index] = item
        return array

    def _missing(self, state: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
        mask = np.array(self.column(state["mask"], "b")) if "mask" in state else np.zeros(shape, bool)
        if mask.shape != shape:
            raise Corrupt(f"the mask {state['mask']!r} is longer or shorter than its column")
        return mask

    def _string(self, state: Mapping[str, Any]) -> Any:
        text = self.column(state["array"], "T").astype(object)
        missing: Any = _MISSING[state["missing"]]
        text[self._missing(state, text.shape)] = missing
        return pd.array(text, dtype=pd.StringDtype(state["storage"], na_value=missing))

    def _nullable(self, state: Mapping[str, Any]) -> Any:
        data = np.array(self.column(state["array"], "biuf"))
        make: Any = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            data.dtype.kind, pd.arrays.IntegerArray
        )
        return make(data, self._missing(state, data.shape))

    def _category(self, state: Mapping[str, Any]) -> Any:
        values, dtype = self.values(state["categories"])
        kind = pd.CategoricalDtype(pd.Index(values, dtype=dtype), ordered=state["ordered"])
        return pd.Categorical.from_codes(self.column(state["array"], "i"), dtype=kind)

    def _datetime(self, state: Mapping[str, Any]) -> Any:
        moments = pd.DatetimeIndex(self.column(state["array"], "M"))
        return moments.tz_localize("UTC").tz_convert(self.other(state["tz"])).array

    def _period(self, state: Mapping[str, Any]) -> Any:
        index: Any = pd.PeriodIndex
        return index.from_ordinals(
            self.column(state["array"], "i"), freq=state["dtype"].removeprefix("period[").removesuffix("]")
        ).array

    def _sparse(self, state: Mapping[str, Any]) -> Any:
        values, places = self.column(state["array"]), self.column(state["places"], "i")
        fill, kind = _plain_fill(self._arrays[state["fill"]]), "block" if state["blocks"] else "integer"
        make: Any = pd.arrays.SparseArray
        if hasattr(make, "from_indices"):
            return make.from_indices(values, places, state["length"], fill_value=fill, kind=kind)
        index = _INT_INDEX(state["length"], places)  # pandas before 3
        index = index.to_block_index() if state["blocks"] else index
        return make(values, sparse_index=index, dtype=pd.SparseDtype(values.dtype, fill))

    def _arrow(self, state: Mapping[str, Any]) -> Any:
        if "array" in state:
            values = np.array(self.column(state["array"], "iuf"))
            column = arrow.from_numpy(values, self._missing(state, values.shape), state["dtype"])
        elif "buffers" in state:
            buffers = [None if name is None else self.column(name, "u") for name in state["buffers"]]
            column = arrow.from_buffers(state["of"], state["length"], buffers)
        else:
            column = arrow.from_values(state["of"], self.other(state["items"]))
        return pd.arrays.ArrowExtensionArray(column)

    def _interval(self, state: Mapping[str, Any]) -> Any:
        left, right = (self.values(state[end])[0] for end in ("left", "right"))
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=state["closed"])


_READERS: dict[str, Callable[[ColumnReader, Mapping[str, Any]], Any]] = {
    "numpy": ColumnReader._numpy,
    "object": ColumnReader._object,
    "objects": ColumnReader._objects,
    "string": ColumnReader._string,
    "nullable": ColumnReader._nullable,
    "category": ColumnReader._category,
    "datetime": ColumnReader._datetime,
    "period": ColumnReader._period,
    "interval": ColumnReader._interval,
    "sparse": ColumnReader._sparse,
    "arrow": ColumnReader._arrow,
}


def _plain_fill(fill: Any) -> Any:
    return fill[()] if fill.dtype.kind in "mM" else fill.item()


def is_unicode(texts: list[str]) -> bool:
    """Say whether UTF-8 holds all texts: names of files may have lone surrogates."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def place_of(label: Hashable, otherwise: str) -> str:
    """Give the wanted name of the array of a label: the label itself, or something readable."""
    if isinstance(label, tuple):
        return ".".join(map(str, label)) or otherwise
    return otherwise if label is None else str(label) or otherwise
