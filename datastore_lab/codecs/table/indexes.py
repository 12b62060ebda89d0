"""Indexes of rows and columns."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from datastore_lab.codecs.table.columns import ColumnReader, ColumnWriter, Described, place_of
from datastore_lab.errors import NotStorable


def write_index(
    writer: ColumnWriter, what: str, index: pd.Index, name: str, dims: tuple[str, ...]
) -> Described:
    """Add an index to a record; its values become the coordinate `name` where it is also the dimension.

    Raises
    ------
    NotStorable
        If its values, its names or its frequency can't be stored.
    """
    names = [write_label(writer, f"a name of {what}", label) for label in index.names]
    described = _write(writer, what, index, name, dims)
    return {**described, "names": names} if any(label is not None for label in names) else described


def read_index(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Index:
    """Undo `write_index`."""
    index = _read(reader, state)
    names = [read_label(reader, label) for label in state.get("names", [None] * index.nlevels)]
    return index.set_names(names if index.nlevels > 1 or isinstance(index, pd.MultiIndex) else names[0:1])


def _write(writer: ColumnWriter, what: str, index: pd.Index, name: str, dims: tuple[str, ...]) -> Described:
    if isinstance(index, pd.RangeIndex):
        return {"type": "range", "start": index.start, "stop": index.stop, "step": index.step}
    if isinstance(index, pd.MultiIndex):
        return _write_multi(writer, what, index, name, dims)
    return {"type": "values", "values": writer.values(what, index, name, dims), **_freq(what, index)}


def _write_multi(
    writer: ColumnWriter, what: str, index: pd.MultiIndex, name: str, dims: tuple[str, ...]
) -> Described:
    levels = []
    for number, (level, codes) in enumerate(zip(index.levels, index.codes, strict=True)):
        place = place_of(index.names[number], f"{name}.{number}")
        at = writer.packer.reserve(f"{place}.levels")
        levels.append(
            {
                **_write(writer, what, level, at, (at,)),
                "codes": writer.packer.add(f"{place}.codes", codes.copy(), dims),
            }
        )
    return {"type": "multi", "levels": levels}


def _freq(what: str, index: Any) -> Described:
    freq = getattr(index, "freq", None)
    if freq is None or isinstance(index, pd.PeriodIndex):
        return {}
    if pd.tseries.frequencies.to_offset(freq.freqstr) != freq:
        raise NotStorable(
            f"{what} has the frequency {freq!r}, which its name {freq.freqstr!r} does not give; set its "
            "freq to None before storing",
            key=what,
        )
    return {"freq": freq.freqstr}


def _read(reader: ColumnReader, state: Mapping[str, Any]) -> pd.Index:
    if state["type"] == "range":
        return pd.RangeIndex(state["start"], state["stop"], state["step"])
    if state["type"] == "multi":
        levels: list[Any] = [_read(reader, level) for level in state["levels"]]
        codes = [reader.column(level["codes"], "i") for level in state["levels"]]
        return pd.MultiIndex(levels, codes, verify_integrity=True)
    values, dtype = reader.values(state["values"])
    index: Any = pd.Index(values, dtype=dtype)
    if "freq" in state:
        index.freq = pd.tseries.frequencies.to_offset(state["freq"])
    return index  # type: ignore[no-any-return]


def write_label(writer: ColumnWriter, what: str, label: Hashable) -> Any:
    """Describe a name; anything but text goes through the codec that is for it."""
    if label is None or (type(label) is str and label.isprintable()):
        return label
    return {"of": writer.other(what, label, "name")}


def read_label(reader: ColumnReader, label: Any) -> Any:
    """Undo `write_label`."""
    return reader.other(label["of"]) if isinstance(label, Mapping) else label
