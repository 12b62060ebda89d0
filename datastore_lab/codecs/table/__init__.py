"""Tables: pandas frames, series and indexes, and the scalars that pandas adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from datastore_lab.codecs.table.columns import ColumnReader, ColumnWriter, Described, place_of
from datastore_lab.codecs.table.indexes import read_index, read_label, write_index, write_label
from datastore_lab.errors import Corrupt, NotStorable
from datastore_lab.records import CODEC_STATE, Record

_MISSING = {"NaT": pd.NaT, "NA": pd.NA}


class TableCodec:
    """Stores each column as a one-dimensional array over the dimension of the rows.

    So xarray, h5py and zarr read the table too. The row index is a coordinate, a `RangeIndex` only its
    bounds. What numpy lacks is stored in parts: categories as codes and categories, nullable columns as
    data and mask, times with a zone as UTC. Extension types without portable arrays (sparse, Arrow) are
    refused by the name of the column.

    Parameters
    ----------
    encode, decode : callable
        Turn any other object into a record and back; used for columns of mixed objects, for labels that
        are not text and for ``attrs``.
    """

    kind = "table"

    def __init__(self, encode: Callable[[Any], Record], decode: Callable[[Record], Any]) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, obj: Any) -> Record:
        """Give the record of a frame, series, index, or scalar of pandas.

        Raises
        ------
        NotStorable
            Naming the column that can't be stored.
        """
        writer = ColumnWriter(self._encode)
        if type(obj) is pd.DataFrame:
            state = _write_frame(writer, obj)
        elif type(obj) is pd.Series:
            state = _write_series(writer, obj)
        elif isinstance(obj, pd.Index) and type(obj) in _INDEXES:
            name = writer.packer.reserve(place_of(obj.name, "index"))
            state = {"type": "Index", "index": write_index(writer, "the index", obj, name, (name,))}
        else:
            state = _write_scalar(writer, obj)
        return Record(self.kind, writer.packer.arrays, {CODEC_STATE: state}, writer.packer.dims)

    def decode(self, record: Record) -> Any:
        """Give back the object."""
        state = record.meta[CODEC_STATE]
        read = _READERS.get(state["type"])
        if read is None:
            raise Corrupt(f"a table has the unknown type {state['type']!r}")
        return read(ColumnReader(record, self._decode), state)


_INDEXES = {
    pd.Index,
    pd.RangeIndex,
    pd.MultiIndex,
    pd.DatetimeIndex,
    pd.TimedeltaIndex,
    pd.PeriodIndex,
    pd.IntervalIndex,
    pd.CategoricalIndex,
}


def _write_frame(writer: ColumnWriter, frame: pd.DataFrame) -> Described:
    names = [writer.packer.reserve(place_of(label, "column")) for label in frame.columns]
    dim = writer.packer.reserve(place_of(frame.index.name, "index"))
    columns = []
    for position, (label, name) in enumerate(zip(frame.columns, names, strict=True)):
        columns.append(writer.values(f"column {label!r}", frame.iloc[:, position], name, (dim,)))
    return {
        "type": "DataFrame",
        "columns": columns,
        "labels": _write_labels(writer, frame.columns),
        "index": write_index(writer, "the index", frame.index, dim, (dim,)),
        **_write_attrs(writer, frame),
    }


def _write_labels(writer: ColumnWriter, labels: pd.Index) -> Described:
    """Describe the labels of the columns: ordinary ones inline, so that people can read them."""
    if type(labels) is pd.Index and len(labels) and all(type(label) is str for label in labels):
        values = writer.apart().values("the column labels", labels, "labels", ("labels",))
        index = {"type": "inline", "text": list(labels), "values": {**values, "array": None}}
        name = write_label(writer, "the name of the columns", labels.name)
        return index if name is None else {**index, "names": [name]}
    name = writer.packer.reserve("columns")
    return write_index(writer, "the column labels", labels, name, (name,))


def _write_series(writer: ColumnWriter, series: pd.Series) -> Described:
    name = writer.packer.reserve(place_of(series.name, "data"))
    dim = writer.packer.reserve(place_of(series.index.name, "index"))
    label = write_label(writer, "the name", series.name)
    return {
        "type": "Series",
        "values": writer.values("the series", series, name, (dim,)),
        "index": write_index(writer, "the index", series.index, dim, (dim,)),
        **({} if label is None else {"name": label}),
        **_write_attrs(writer, series),
    }


def _write_attrs(writer: ColumnWriter, obj: Any) -> Described:
    state: Described = {} if obj.flags.allows_duplicate_labels else {"unique": True}
    if obj.attrs:
        state["attrs"] = writer.other("attrs", dict(obj.attrs), "attrs")
    return state


def _write_scalar(writer: ColumnWriter, obj: Any) -> Described:
    for name, missing in _MISSING.items():
        if obj is missing:
            return {"type": name}
    if type(obj) is pd.Interval:
        ends = {end: writer.other(f"the {end} end", getattr(obj, end), end) for end in ("left", "right")}
        return {"type": "Interval", "closed": obj.closed, **ends}
    if type(obj) in {pd.Timestamp, pd.Timedelta, pd.Period}:
        name = writer.packer.reserve("data")
        values = writer.values("the value", pd.Series([obj]), name, (writer.packer.reserve("data_0"),))
        return {"type": "scalar", "values": values}
    cls = type(obj)
    raise NotStorable(
        f"objects of {cls.__module__}.{cls.__qualname__} can't be stored as they are; convert to a "
        "DataFrame or Series of pandas itself, or call register_type()",
        key=cls.__qualname__,
    )


def _read_frame(reader: ColumnReader, state: Mapping[str, Any]) -> pd.DataFrame:
    index = read_index(reader, state["index"])
    columns = {number: _series(reader, column) for number, column in enumerate(state["columns"])}
    frame = pd.DataFrame(columns, index=None if columns else index)
    frame.index = index
    frame.columns = _read_labels(reader, state["labels"])
    return _with_attrs(reader, frame, state)  # type: ignore[no-any-return]


def _read_labels(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Index:
    if state["type"] != "inline":
        return read_index(reader, state)
    dtype: Any = object
    if state["values"]["type"] == "string":
        missing = pd.NA if state["values"]["missing"] == "NA" else float("nan")
        dtype = pd.StringDtype(state["values"]["storage"], na_value=missing)
    name = read_label(reader, state.get("names", [None])[0])
    return pd.Index(state["text"], dtype=dtype, name=name)  # type: ignore[no-any-return]


def _series(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Series:
    values, dtype = reader.values(state)
    return pd.Series(values, dtype=dtype)  # type: ignore[no-any-return]


def _read_series(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Series:
    series = _series(reader, state["values"])
    series.index = read_index(reader, state["index"])
    series.name = read_label(reader, state.get("name"))
    return _with_attrs(reader, series, state)  # type: ignore[no-any-return]


def _with_attrs(reader: ColumnReader, obj: Any, state: Mapping[str, Any]) -> Any:
    if "attrs" in state:
        obj.attrs = reader.other(state["attrs"])
    return obj.set_flags(allows_duplicate_labels=False) if state.get("unique") else obj


def _read_interval(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Interval[Any]:
    left, right = (reader.other(state[end]) for end in ("left", "right"))
    return pd.Interval(left, right, closed=state["closed"])


_READERS: dict[str, Callable[[ColumnReader, Mapping[str, Any]], Any]] = {
    "DataFrame": _read_frame,
    "Series": _read_series,
    "Index": lambda reader, state: read_index(reader, state["index"]),
    "scalar": lambda reader, state: _series(reader, state["values"]).iloc[0],
    "Interval": _read_interval,
    "NaT": lambda reader, state: pd.NaT,
    "NA": lambda reader, state: pd.NA,
}
