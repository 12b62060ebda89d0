"""A first look at one item, from a bounded part of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from datastore_lab import dtypes
from datastore_lab.notebook import text
from datastore_lab.notebook.decimate import min_max, thin, to_bytes
from datastore_lab.records import ARRAY_ATTRIBUTES, GROUP, RESERVED, ArrayInfo, Selection, Stat
from datastore_lab.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.store import Store

BUDGET = 8_000_000
"""Bytes of array data that one preview reads at most, counted in whole stored chunks."""

_PAIRS = 1000
_LINES = 8
_NARROW = 16
_SIDE = 512
_STRIP = 32
_ROWS = 50
_COLUMNS = 12
_NUMBERS = frozenset("biuf")
_SHOWN_ATTRS = 200
_SHOWN_ARRAYS = 100
_AXIS_NAMES = frozenset({"time", "device_time", "sequence", "index"})
"""Arrays that say where the others lie; shown only when there is nothing else."""

_PARTS = (".categories", ".mask")
"""What a table's columns are stored in beside their own arrays."""

_CATEGORIES = 1000


Part: TypeAlias = "Callable[[NDArray[Any]], NDArray[Any]]"


class Look(NamedTuple):
    """What the page draws: JSON, and raw buffers that it refers to by position."""

    view: dict[str, Any]
    buffers: list[NDArray[Any]]


def describe(store: Store, key: Key, array: str | None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Describe a node, or one array of it, with a look into its data.

    Parameters
    ----------
    store : Store
    key : Key
        The node.
    array : str or None
        One of its arrays, or None for the node itself.

    Returns
    -------
    dict, list of ndarray
        Plain JSON and its buffers. A look that fails is told in the view; a node that can't even be
        described raises.
    """
    stat = store.stat(key)
    chosen = stat.arrays if array is None else {array: stat.arrays[array]}
    try:
        look = _look(store, key, stat, chosen)
    except Exception as error:  # shown in the place of the look
        look = Look({"type": "error", "text": f"{type(error).__name__}: {error}"}, [])
    described = {
        "kind": stat.kind if array is None else "data",
        "attrs": _attributes(stat, array),
        "arrays": [_array(name, info) for name, info in list(chosen.items())[:_SHOWN_ARRAYS]],
        "more": max(0, len(chosen) - _SHOWN_ARRAYS),
        "view": look.view,
    }
    return described, look.buffers


def _attributes(stat: Stat, array: str | None) -> list[list[str]]:
    if array is None:
        found = {name: value for name, value in stat.meta.items() if not name.startswith(RESERVED)}
    else:
        found = stat.meta.get(ARRAY_ATTRIBUTES, {}).get(array, {})
    return [[name, text.short(value, 500)] for name, value in list(found.items())[:_SHOWN_ATTRS]]


def _array(name: str, info: ArrayInfo) -> dict[str, Any]:
    return {
        "name": name,
        "type": text.dtype(info.dtype),
        "shape": text.shape(info.shape) or "single value",
        "dims": ", ".join(info.dims),
        "size": format_size(info.nbytes),
        "chunks": text.shape(info.chunks) if info.chunks else "",
    }


# -- what to look at ------------------------------------------------------------------------------------


def _look(store: Store, key: Key, stat: Stat, arrays: Mapping[str, ArrayInfo]) -> Look:
    if stat.kind == GROUP and not arrays:
        return Look({"type": "none"}, [])
    if stat.kind == "value" or not arrays:
        return _value_look(store, key, stat)
    if stat.kind == "table" or _is_text_table(arrays):
        return _table_look(store, key, stat, arrays)
    pictures = {name: info for name, info in arrays.items() if len(_kept(info)) >= 2 and _is_number(info)}
    signals = {name: info for name, info in arrays.items() if _is_signal(info)}
    shown = {name: info for name, info in signals.items() if name not in _AXIS_NAMES} or signals
    if not pictures and all(_is_small_matrix(info) for info in shown.values()):
        return _table_look(store, key, stat, arrays)
    if pictures and not (shown and max(map(_bytes, shown.values())) > max(map(_bytes, pictures.values()))):
        name = max(pictures, key=lambda name: pictures[name].nbytes)
        return _picture_look(store, key, name, pictures[name])
    if shown:
        return _line_look(store, key, shown)
    return _table_look(store, key, stat, arrays)


def _bytes(info: ArrayInfo) -> int:
    return info.nbytes


def _is_number(info: ArrayInfo) -> bool:
    dtype = dtypes.parse(info.dtype)
    return dtype.kind in _NUMBERS or dtype.kind == "c"


def _kept(info: ArrayInfo) -> tuple[int, ...]:
    """Give the shape without those 2-D arrays that are a few signals side by side."""
    return () if len(info.shape) == 2 and min(info.shape) <= _NARROW else info.shape


def _is_signal(info: ArrayInfo) -> bool:
    return (
        _is_number(info)
        and not _kept(info)[1:]
        and len(info.shape) >= 1
        and info.shape != (1,)
        and info.nbytes > 0
    )


def _is_small_matrix(info: ArrayInfo) -> bool:
    """Tell whether the numbers themselves say more than lines through so few of them."""
    return len(info.shape) == 2 and max(info.shape) <= _COLUMNS


def _is_text_table(arrays: Mapping[str, ArrayInfo]) -> bool:
    flat = {info.shape for info in arrays.values()}
    return len(flat) == 1 and len(next(iter(flat))) == 1 and not any(map(_is_number, arrays.values()))


# -- looks ----------------------------------------------------------------------------------------------


def _value_look(store: Store, key: Key, stat: Stat) -> Look:
    nbytes = sum(info.nbytes for info in stat.arrays.values())
    if nbytes > BUDGET:
        return Look({"type": "text", "text": f"{format_size(nbytes)}: too large for a preview"}, [])
    return Look({"type": "text", "text": text.long(store[key])}, [])


def _line_look(store: Store, key: Key, signals: Mapping[str, ArrayInfo]) -> Look:
    length = max(info.shape[_long_axis(info)] for info in signals.values())
    lines: list[tuple[str, NDArray[Any]]] = []
    notes: set[str] = set()
    for name, info in signals.items():
        if len(lines) >= _LINES:
            break
        for label, part in _real_parts(name, info):
            values, note = _signal(store, key, name, info, part)
            notes.add(note)
            lines += [(label + at, column) for at, column in _columns(values)]
    lines = lines[:_LINES]
    view = {"type": "line", "names": [name for name, _ in lines], "length": length, "axis": _axis(signals)}
    return Look({**view, "note": "; ".join(sorted(notes - {""}))}, [column for _, column in lines])


def _axis(signals: Mapping[str, ArrayInfo]) -> str:
    info = next(iter(signals.values()))
    return info.dims[_long_axis(info)] if info.dims else "index"


def _long_axis(info: ArrayInfo) -> int:
    return 1 if len(info.shape) == 2 and info.shape[0] <= _NARROW < info.shape[1] else 0


def _columns(values: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    if values.ndim == 1:
        yield "", values
        return
    for index in range(min(_LINES, values.shape[1])):
        yield f"[{index}]", np.ascontiguousarray(values[:, index])


def _real_parts(name: str, info: ArrayInfo) -> Iterator[tuple[str, Part]]:
    """Give what is drawn of an array: itself, or its real and its imaginary part."""
    if dtypes.parse(info.dtype).kind == "c":
        yield f"real {name}", np.real
        yield f"imag {name}", np.imag
    else:
        yield name, _plain


def _signal(store: Store, key: Key, name: str, info: ArrayInfo, part: Part) -> tuple[NDArray[Any], str]:
    """Read a signal as at most 2,000 points per line; returns them and what was left out."""
    axis = _long_axis(info)
    length = info.shape[axis]
    parts = _parts(info, axis)
    blocks = [part(_read(store, key, name, _stretch(axis, stretch))) for stretch in parts]
    if len(parts) == 1 and parts[0] == (0, length):
        return min_max(blocks[0], _PAIRS).astype(np.float64), ""
    pairs = max(1, _PAIRS // len(blocks))
    read = sum(stop - start for start, stop in parts)
    kept = np.concatenate([min_max(block, pairs) for block in blocks]).astype(np.float64)
    return kept, f"{len(parts)} stretches, {read:,} of {length:,} values read"


def _parts(info: ArrayInfo, axis: int) -> list[tuple[int, int]]:
    """Choose the stretches of the long axis to read: everything, or evenly spaced ones within the budget."""
    length = info.shape[axis]
    row = max(1, info.nbytes // max(1, length))
    if info.nbytes <= BUDGET:
        return [(0, length)]
    chunk = info.chunks[axis] if info.chunks else max(1, min(4096, BUDGET // row // 64))
    count = max(1, min(128, BUDGET // (chunk * row)))
    chunks = -(-length // chunk)
    starts = np.unique(np.linspace(0, chunks - 1, count).astype(int)) * chunk
    width = max(1, min(chunk, BUDGET // row))
    return [(int(start), int(min(start + width, length))) for start in starts]


def _stretch(axis: int, part: tuple[int, int]) -> Selection:
    return (slice(*part),) if axis == 0 else (slice(None), slice(*part))


def _read(store: Store, key: Key, name: str, part: Selection) -> NDArray[Any]:
    values = store.engine.read((*store.prefix, *key), name, part)
    return values.T if len(part) > 1 else values


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return (
        values.astype(np.uint8) if values.dtype.kind == "b" else values.astype(values.dtype.newbyteorder("="))
    )


def _picture_look(store: Store, key: Key, name: str, info: ArrayInfo) -> Look:
    colour = len(info.shape) >= 3 and info.shape[-1] in {3, 4} and info.dtype == "|u1"
    planes = info.shape[: -3 if colour else -2]
    height, width = info.shape[len(planes) :][:2]
    if not all(info.shape):
        return Look({"type": "none"}, [])
    where = tuple(length - 1 if axis == 0 else 0 for axis, length in enumerate(planes))
    rows, columns = _window(info, height, width, info.shape[-1] if colour else 1)
    image = store.engine.read((*store.prefix, *key), name, (*where, slice(0, rows), slice(0, columns)))
    notes = [f"{name}[{', '.join(map(str, where))}]" if where else name]
    if image.dtype.kind == "c":
        image, notes = np.abs(image), [f"magnitude of {notes[0]}"]
    if (rows, columns) != (height, width):
        notes.append(f"the first {rows:,} × {columns:,} of {height:,} × {width:,} values")
    if not np.isfinite(image).all():
        notes.append("black where it is not a finite number")
    return _picture(_small(_plain(image)), colour, ", ".join(notes))


def _small(image: NDArray[Any]) -> NDArray[Any]:
    """Thin an image evenly, and a long strip more along its long side: a few pixels across show nothing."""
    even = thin(image, _SIDE)
    if min(even.shape[:2]) >= _STRIP:
        return even
    down, across = (max(1, -(-length // _SIDE)) for length in image.shape[:2])
    return image[::down, ::across]


def _window(info: ArrayInfo, height: int, width: int, samples: int) -> tuple[int, int]:
    cell = dtypes.parse(info.dtype).itemsize * samples
    rows = min(height, max(1, BUDGET // (cell * width)))
    if rows >= min(height, 256):
        return rows, width
    side = int((BUDGET // cell) ** 0.5)
    return min(height, side), min(width, max(side, BUDGET // (cell * min(height, side))))


def _picture(image: NDArray[Any], colour: bool, note: str) -> Look:
    view = {"type": "image", "height": image.shape[0], "width": image.shape[1], "note": note}
    if colour:
        return Look({**view, "samples": image.shape[2]}, [np.ascontiguousarray(image)])
    finite = image[np.isfinite(image)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return Look({**view, "samples": 1, "low": low, "high": high}, [to_bytes(image, low, high)])


def _table_look(store: Store, key: Key, stat: Stat, arrays: Mapping[str, ArrayInfo]) -> Look:
    flat = {name: info for name, info in arrays.items() if len(info.shape) <= 1} or arrays
    whole = [name for name in flat if name.rpartition(".")[0] not in flat or not name.endswith(_PARTS)]
    whole.sort(key=lambda name: arrays[name].dims[:1] != (name,))  # the index comes first
    names = whole[:_COLUMNS]
    columns = {name: _cells(store, key, name, arrays) for name in names}
    if stat.kind == "stream" and "time" in columns and columns["time"].dtype == np.int64:
        columns["time"] = columns["time"].astype("M8[ns]")  # the clock of a stream: ns, UTC
    expanded = dict(_fields(columns))
    length = max((len(column) for column in expanded.values()), default=0)
    rows = [[_cell(column, index) for column in expanded.values()] for index in range(length)]
    total = max((arrays[name].shape[0] if arrays[name].shape else 1 for name in whole), default=0)
    left_out = len(whole) - len(names)
    note = f"{len(rows):,} of {total:,} rows" if arrays[names[0]].shape else ""
    note += f", {left_out} more columns" if left_out else ""
    return Look({"type": "table", "columns": list(expanded), "rows": rows, "note": note}, [])


def _cells(store: Store, key: Key, name: str, arrays: Mapping[str, ArrayInfo]) -> NDArray[Any]:
    """Read the first values of a column, with its categories or its mask put in."""
    values = _first(store, key, name, arrays[name], _ROWS)
    categories, mask = (f"{name}{part}" for part in _PARTS)
    if categories in arrays and values.dtype.kind in "iu":
        words = _first(store, key, categories, arrays[categories], _CATEGORIES)
        return np.array([_word(words, int(code)) for code in values], object)
    if mask in arrays:
        missing = _first(store, key, mask, arrays[mask], _ROWS)
        values = values.astype(object)
        values[missing.astype(bool)] = None
    return values


def _word(words: NDArray[Any], code: int) -> Any:
    if code < 0:
        return None
    return words[code] if code < len(words) else f"category {code}"


def _first(store: Store, key: Key, name: str, info: ArrayInfo, rows: int) -> NDArray[Any]:
    part = tuple(slice(0, rows if axis == 0 else _COLUMNS) for axis in range(len(info.shape)))
    values = store.engine.read((*store.prefix, *key), name, part)
    return values.reshape(-1, *values.shape[1:])[:rows] if values.ndim != 1 else values


def _fields(columns: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, values in columns.items():
        if values.ndim == 2:
            for index in range(values.shape[1]):
                yield f"{name}[:, {index}]", values[:, index]
        elif values.dtype.names is None:
            yield name, values
        for field in (values.dtype.names or ())[:_COLUMNS]:
            yield f"{name}.{field}", values[field]


def _cell(column: NDArray[Any], index: int) -> str:
    if index >= len(column):
        return ""
    value = column[index]
    if value is None:
        return "missing"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    return text.short(_date(value) if isinstance(value, np.datetime64) else str(value), 80)


def _date(value: np.datetime64) -> str:
    """Write a date without the zeros behind the last digit that says something."""
    if np.isnat(value):
        return "NaT"
    day, _, clock = str(value).partition("T")
    clock = clock.rstrip("0").rstrip(".") if "." in clock else clock
    return day if clock in {"", "00:00:00"} else f"{day} {clock}"
