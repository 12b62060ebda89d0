"""The parts of a scan: streams of points, and how they become labelled arrays."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes
from datastore_lab.acquire.axes import Axes, Index
from datastore_lab.errors import AlreadyExists, StreamError
from datastore_lab.records import GROUP, ArrayInfo, Stat, default_dims

if TYPE_CHECKING:
    import xarray
    from numpy.typing import NDArray

    from datastore_lab.keys import Key
    from datastore_lab.store import Store

POINT, TIME, DONE = "point", "time", "done"
_PART = "part-"
_LARGE = 64 << 20
_PIECE = 16 << 20


def parts(store: Store, name: str) -> Iterator[Key]:
    """Yield the keys of the parts of a scan, in the order in which they were measured."""
    if (name,) in store:
        yield from sorted((name, child) for child in store.children((name,)) if child.startswith(_PART))


def found(store: Store, name: str, axes: Axes) -> tuple[set[Index], Stat | None]:
    """Give the points of an unfinished scan that are there, and the layout of its rows.

    Raises
    ------
    AlreadyExists
        If something else has that name: a finished scan, one over other axes, any other item.
    """
    if (name,) not in store:
        return set(), None
    done: set[Index] = set()
    spec = None
    for part in parts(store, name):
        stat = store.stat(part)
        if _axes_of(stat) != axes:
            raise _taken(store, name, "an unfinished scan over other axes")
        spec = stat._replace(
            arrays={key: info._replace(shape=(0, *info.shape[1:])) for key, info in stat.arrays.items()}
        )
        numbers = store.engine.read((*store.prefix, *part), POINT)
        done.update(tuple(map(int, np.unravel_index(number, axes.shape))) for number in numbers)
    if spec is None:
        what = "a finished scan or another item" if store.stat((name,)).kind != GROUP else "a group"
        raise _taken(store, name, what)
    return done, spec


def _taken(store: Store, name: str, what: str) -> AlreadyExists:
    return AlreadyExists(
        f"{store.url} has {what} at {name!r} already, and nothing is overwritten: choose another name, or "
        "move or delete what is there",
        key=name,
    )


# -- the rows ------------------------------------------------------------------------------------------


def spec_of(
    arrays: Mapping[str, NDArray[Any]],
    axes: Axes,
    dims: Mapping[str, tuple[str, ...]],
    attributes: Mapping[str, Any],
) -> Stat:
    """Give the layout of the rows, by the first point that was measured."""
    if taken := sorted({POINT, TIME, DONE, *axes.names} & arrays.keys()):
        raise StreamError(f"a scan can't have quantities named {', '.join(taken)}: rename what was measured")
    if not arrays:
        raise StreamError("nothing was given to save at a point; give a quantity, as in save(power=1.5)")
    infos = {
        TIME: ArrayInfo("<M8[ns]", (0,), (POINT,), 0, None),
        POINT: ArrayInfo("<i8", (0,), (POINT,), 0, None),
    }
    for name, array in arrays.items():
        own = tuple(dims.get(name) or default_dims(name, array.ndim + 1)[1:])
        if len(own) != array.ndim:
            raise StreamError(f"{name!r} has {array.ndim} dimensions at a point, and dims names {own}")
        infos[name] = ArrayInfo(dtypes.name(array.dtype), (0, *array.shape), (POINT, *own), 0, None)
    described = {name: _described(values) for name, values in axes.values.items()}
    return Stat("stream", infos, {"scan": described, "attributes": dict(attributes), "rate": None})


def _described(values: NDArray[Any]) -> dict[str, Any]:
    plain = values.view("i8") if values.dtype.kind in "mM" else values
    return {"dtype": dtypes.name(values.dtype), "values": plain.tolist()}


def _axes_of(stat: Stat) -> Axes | None:
    try:
        return Axes({name: _restored(**own) for name, own in stat.meta["scan"].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _restored(dtype: str, values: list[Any]) -> NDArray[Any]:
    kind = dtypes.parse(dtype)
    return np.array(values, "i8").view(kind) if kind.kind in "mM" else np.array(values, kind)


def row_of(
    spec: Stat, arrays: Mapping[str, NDArray[Any]], place: Index, axes: Axes
) -> dict[str, NDArray[Any]]:
    """Give one row, held against the rows before it.

    Raises
    ------
    StreamError
        If a quantity is missing, new, of another shape, or does not fit its type.
    """
    expected = spec.arrays.keys() - {TIME, POINT}
    if expected != arrays.keys():
        raise StreamError(
            f"this point has {sorted(arrays)}, and those before it had {sorted(expected)}: save the same "
            "quantities at every point"
        )
    number = np.ravel_multi_index(place, axes.shape)
    row = {TIME: np.array([time.time_ns()]).view("M8[ns]"), POINT: np.array([number], "i8")}
    return {**row, **{name: _fitting(name, arrays[name], spec.arrays[name]) for name in arrays}}


def _fitting(name: str, array: NDArray[Any], info: ArrayInfo) -> NDArray[Any]:
    if array.shape != info.shape[1:]:
        raise StreamError(
            f"{name!r} has the shape {array.shape} at this point, and {info.shape[1:]} before it"
        )
    try:
        return dtypes.fit(array[np.newaxis], dtypes.parse(info.dtype), name)
    except (TypeError, ValueError) as error:
        raise StreamError(
            f"{name!r} was {info.dtype} at the points before, and is not at this one: {error}"
        ) from error


# -- the labelled arrays -------------------------------------------------------------------------------


@contextlib.contextmanager
def gathered(store: Store, name: str, axes: Axes) -> Iterator[xarray.Dataset]:
    """Give what was measured as labelled arrays, for as long as the block runs.

    Large ones lie in temporary files, beside a store that is a file, so that memory stays bounded.
    """
    import xarray as xr

    streams = {part: store.stat(part) for part in parts(store, name)}
    if not streams:
        raise StreamError(f"no point of the scan {name!r} was measured yet")
    first = next(iter(streams.values()))
    done = np.zeros(axes.shape, bool)
    with contextlib.ExitStack() as stack:
        folder = _folder(store)
        whole = {
            key: _canvas(axes.shape + info.shape[1:], dtypes.parse(info.dtype), folder, stack)
            for key, info in first.arrays.items()
            if key != POINT
        }
        for part, stat in streams.items():
            _fill(store, (*store.prefix, *part), stat, whole, done)
        if not done.all():
            for array in whole.values():
                _blank(array, ~done)
            whole[DONE] = done
        dims = {key: (*axes.names, *info.dims[1:]) for key, info in first.arrays.items()}
        attributes = dict(first.meta["attributes"])
        units = attributes.pop("units", {})
        labels = {key: {"units": unit} for key, unit in units.items()}
        yield xr.Dataset(
            {key: (dims.get(key, axes.names), array, labels.get(key)) for key, array in whole.items()},
            {axis: (axis, values, labels.get(axis)) for axis, values in axes.values.items()},
            attributes,
        )


def _folder(store: Store) -> str | None:
    place = Path(store.url)
    return str(place.parent) if place.exists() else None


def _canvas(
    shape: tuple[int, ...], dtype: np.dtype[Any], folder: str | None, stack: contextlib.ExitStack
) -> NDArray[Any]:
    if dtype.hasobject or dtype.kind == "T" or math.prod(shape) * dtype.itemsize < _LARGE:
        return np.zeros(shape, dtype)
    file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (the stack closes it)
    return np.memmap(file, dtype, "w+", shape=shape)


def _fill(store: Store, key: Key, stat: Stat, whole: Mapping[str, NDArray[Any]], done: NDArray[Any]) -> None:
    """Put the rows of a part where they belong; what was measured again replaces what was there."""
    points = store.engine.read(key, POINT)
    for name, array in whole.items():
        flat = array.reshape(done.size, *array.shape[done.ndim :])
        step = max(1, _PIECE // max(1, flat[0].nbytes))
        for start in range(0, len(points), step):
            rows = store.engine.read(key, name, (slice(start, start + step),))
            flat[points[start : start + step]] = rows
    done.reshape(-1)[points] = True


def _blank(array: NDArray[Any], where: NDArray[Any]) -> None:
    """Say of numbers and times that they are missing; others stay zero."""
    if array.dtype.kind in "fc":
        array[where] = np.nan
    elif array.dtype.kind in "mM":
        array[where] = np.array("NaT", array.dtype)
