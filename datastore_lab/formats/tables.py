"""What of a store is a table, and how its rows become lines of text."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from datastore_lab import dtypes
from datastore_lab.errors import NotStorable
from datastore_lab.keys import Key, show
from datastore_lab.records import ARRAY_ATTRIBUTES, RESERVED, ArrayInfo, Stat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datastore_lab.store import Store

MOST_COLUMNS = 16_384
"""As many as a spreadsheet takes."""

_BLOCK = 4_000_000
_TYPES = {"b": "boolean", "i": "integer", "u": "integer", "f": "double", "M": "dateTime", "m": "integer"}
_BYTES = "SV"


class Column(NamedTuple):
    """One column: its heading, its type by the names of CSV on the Web, its unit, and whose part it is."""

    heading: str
    datatype: str
    unit: str | None
    array: str


class Table(Protocol):
    """Rows that can be exported."""

    rows: int
    columns: list[Column]
    notes: dict[str, Any]

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield lines as bytes, and how many rows there are up to their end."""
        ...


def as_table(store: Store, key: Key) -> Table:
    """Find the table in an item.

    Raises
    ------
    NotStorable
        If it is none; the message says why.
    """
    stat = store.stat(key)
    if stat.kind == "table":
        return Frame(store, key, stat)
    if stat.kind == "array" and len(stat.arrays) > 1:
        return Frame(store, key, stat)  # with what is masked or missing
    if stat.kind in {"array", "arrays", "stream", "xarray"}:
        return Columns(store, key, stat)
    raise NotStorable(f"{show(key)!r} is of the kind {stat.kind!r}, which is no table", key=key)


class Columns:
    """Arrays that go along one dimension, a column for each element of a row; read block by block."""

    def __init__(self, store: Store, key: Key, stat: Stat) -> None:
        self._store, self._key = store, key
        along = _rows_of(key, stat)
        self._arrays = {name: info for name, info in stat.arrays.items() if info.dims[:1] == (along,)}
        self.rows = next(info.shape[0] for info in self._arrays.values())
        self.columns = _checked(key, list(_columns(stat, self._arrays)))
        self.notes = _notes(store, key, stat)
        for name, info in stat.arrays.items():
            if name not in self._arrays:
                self.notes.setdefault("coordinates", {})[name] = self._coordinate(name, info)

    def _coordinate(self, name: str, info: ArrayInfo) -> Any:
        if len(info.shape) > 1 or math.prod(info.shape) > MOST_COLUMNS:
            along = next(iter(self._arrays.values())).dims[0]
            raise NotStorable(
                f"{show(self._key)!r} is no table: {name!r} lies along {', '.join(info.dims)}, the others "
                f"along {along}; export them one by one, or leave them in HDF5",
                key=self._key,
            )
        values = self._store.engine.read((*self._store.prefix, *self._key), name)
        return values.astype(str).tolist() if values.dtype.kind not in "biuf" else values.tolist()

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield lines of about 4 MB of data."""
        from datastore_lab.streams.text.cells import write
        from datastore_lab.streams.text.write import as_lines

        each = sum(info.nbytes for info in self._arrays.values()) // max(1, self.rows)
        step = max(1, _BLOCK // max(1, each))
        for start in range(0, self.rows, step):
            stop = min(self.rows, start + step)
            yield stop, as_lines([write(column) for column in self._read(start, stop)])[0]

    def _read(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        for name in self._arrays:
            key = (*self._store.prefix, *self._key)
            rows = self._store.engine.read(key, name, (slice(start, stop),))
            for column in rows.reshape(len(rows), -1).T if rows.ndim > 1 else [rows]:
                yield from [column[field] for field in column.dtype.names or ()] or [column]


def _rows_of(key: Key, stat: Stat) -> str:
    """Choose the dimension of the rows: that along which most arrays go first."""
    first = collections.Counter(info.dims[0] for info in stat.arrays.values() if info.dims)
    if not first:
        raise NotStorable(f"{show(key)!r} holds single values and is no table", key=key)
    return first.most_common(1)[0][0]


def _columns(stat: Stat, arrays: dict[str, ArrayInfo]) -> Iterator[Column]:
    from datastore_lab.streams.text.sidecar import column_names

    for name, info in arrays.items():
        if math.prod(info.shape[1:]) > MOST_COLUMNS:
            yield from [Column(name, "", None, name)] * (MOST_COLUMNS + 1)
            return
        dtype, unit = dtypes.parse(info.dtype), _unit(stat, name)
        for heading in column_names(name, info.shape[1:]):
            if dtype.names is None:
                yield Column(heading, _datatype(dtype), unit, name)
            for field in dtype.names or ():
                yield Column(f"{heading}.{field}", _datatype(dtype[field]), unit, name)


def _checked(key: Key, columns: list[Column]) -> list[Column]:
    if not 0 < len(columns) <= MOST_COLUMNS:
        raise NotStorable(
            f"{show(key)!r} is no table: it would have more than {MOST_COLUMNS} columns; leave it in HDF5 or "
            "Zarr, or export a part of it",
            key=key,
        )
    return columns


def _datatype(dtype: Any) -> str:
    return _TYPES.get(dtype.kind, "hexBinary" if dtype.kind in _BYTES else "string")


def _unit(stat: Stat, name: str) -> str | None:
    """Find the unit of an array: its own, that in the stream's list, or the item's if it is alone."""
    own = (stat.meta.get(ARRAY_ATTRIBUTES) or {}).get(name) or {}
    listed = stat.meta.get("units")
    alone = stat.meta if len(stat.arrays) == 1 else {}
    candidates = [own.get("units"), own.get("unit"), alone.get("units"), alone.get("unit")]
    if isinstance(listed, dict):
        candidates.append(listed.get(name))
    return next((text for text in candidates if isinstance(text, str)), None)


def _notes(store: Store, key: Key, stat: Stat) -> dict[str, Any]:
    attributes = {name: value for name, value in stat.meta.items() if not name.startswith(RESERVED)}
    own = stat.meta.get(ARRAY_ATTRIBUTES) or {}
    made = {"item": [*store.prefix, *key], "kind": stat.kind, "attributes": attributes}
    return {**made, "array attributes": own} if own else made


class Frame:
    """What pandas keeps, written as pandas writes it, with the index where it says something."""

    def __init__(self, store: Store, key: Key, stat: Stat) -> None:
        import pandas as pd

        found = store[key]
        if not isinstance(found, (pd.DataFrame, pd.Series)):
            found = _masked(key, found)
        frame = found.to_frame() if isinstance(found, pd.Series) else found
        plain = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
        self._frame = frame if plain else frame.reset_index()
        self.rows = len(self._frame)
        kinds = zip(self._frame.columns, self._frame.dtypes, strict=True)
        made = [Column(_heading(name), _frame_type(dtype), None, _heading(name)) for name, dtype in kinds]
        self.columns = _checked(key, made)
        self.notes = _notes(store, key, stat)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield lines of some thousand rows."""
        step = max(1, 1_000_000 // max(1, len(self.columns)))
        for start in range(0, self.rows, step):
            part = _with_plain_times(self._frame.iloc[start : start + step])
            text = part.to_csv(header=False, index=False, lineterminator="\n")
            yield min(self.rows, start + step), text.encode()


def _with_plain_times(part: Any) -> Any:
    """Write times in one way: pandas leaves out what is zero in all of a block."""
    import numpy as np
    import pandas as pd

    made = {}
    for number, dtype in enumerate(part.dtypes):
        column = part.iloc[:, number]
        if dtype.kind == "M":
            zoned = getattr(dtype, "tz", None) is not None
            times = column.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else column
            texts = np.datetime_as_string(times.to_numpy()).astype(object)
            column = pd.Series(texts + "Z" if zoned else texts, part.index).mask(column.isna())
        made[number] = column
    return pd.DataFrame(made)


def _masked(key: Key, found: Any) -> Any:
    """Make a table of an array in which values are masked or missing: these cells stay empty."""
    import numpy as np
    import pandas as pd

    if not found.ndim or found.dtype.names or math.prod(found.shape[1:]) > MOST_COLUMNS:
        raise NotStorable(f"{show(key)!r} is no table", key=key)
    mask = np.ma.getmaskarray(found) if isinstance(found, np.ma.MaskedArray) else pd.isna(found)
    values = np.ma.getdata(found).astype(object)
    values[mask] = None
    rows = values.reshape(len(values), -1)
    names = ["data"] if found.ndim == 1 else [f"data[{number}]" for number in range(rows.shape[1])]
    return pd.DataFrame(rows, columns=names)


def _heading(name: Any) -> str:
    return ".".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _frame_type(dtype: Any) -> str:
    import numpy as np

    return _datatype(dtype) if isinstance(dtype, np.dtype) else "string"
