"""Hypothesis strategies for everything that a store holds."""

from __future__ import annotations

import datetime as dt
import pathlib
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from datastore_lab.records import Record
from datastore_lab.testing import samples

if TYPE_CHECKING:
    import numpy as np

    from datastore_lab.keys import Key

_PANDAS_TIMES = dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)  # noqa: DTZ001 (local times on purpose)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def parts() -> st.SearchStrategy[str]:
    """Draw parts of keys, most of them adversarial."""
    return st.one_of(
        st.sampled_from(samples.PARTS), st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
    )


def keys(max_depth: int = 4) -> st.SearchStrategy[Key]:
    """Draw keys of at least one part."""
    return st.lists(parts(), min_size=1, max_size=max_depth).map(tuple)


def json_values() -> st.SearchStrategy[Any]:
    """Draw what metadata may hold."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=12,
    ).filter(_untagged)


def metas() -> st.SearchStrategy[dict[str, Any]]:
    """Draw metadata of records."""
    names = st.one_of(_TEXT, st.sampled_from(samples.PARTS)).filter(lambda name: not name.startswith("lab_"))
    drawn = st.dictionaries(names, json_values(), max_size=5)
    return st.one_of(st.sampled_from(samples.METAS), drawn).filter(_untagged)


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Draw array types."""
    return st.sampled_from(samples.DTYPES)


def shapes(max_side: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw shapes of up to four axes, some of them empty."""
    return st.lists(st.integers(0, max_side), max_size=4).map(tuple)


def arrays() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Draw arrays of every type, in C order, transposed, reversed or strided."""
    return st.builds(
        _array, dtypes(), shapes(), st.integers(0, 1 << 16), st.sampled_from(["c", "t", "r", "s"])
    )


def _array(dtype: Any, shape: tuple[int, ...], seed: int, view: str) -> np.ndarray[Any, Any]:
    made = samples.array(dtype, shape, seed)
    if not shape:
        return made
    return {"c": made, "t": made.T, "r": made[::-1], "s": made[..., ::2]}[view]


def records(kind: str = "array") -> st.SearchStrategy[Record]:
    """Draw records with up to three arrays and any metadata."""
    named = st.dictionaries(parts(), arrays(), max_size=3)
    return st.builds(lambda drawn, meta: Record(kind, drawn, meta, {}), named, metas())


def values() -> st.SearchStrategy[Any]:
    """Draw nested plain Python values."""
    hashable = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        _TEXT,
        st.binary(max_size=8),
        st.dates(),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.text(max_size=5).map(pathlib.PurePosixPath),
        st.builds(_lone, _TEXT),
        st.fractions(),
        st.uuids(),
    )
    leaves = st.one_of(
        hashable,
        st.floats(),
        st.complex_numbers(),
        st.decimals(allow_nan=True),
        st.times(),
        st.builds(slice, hashable, hashable),
        st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones()).filter(_exists),
        st.lists(st.integers(-(2**62), 2**62), min_size=60, max_size=70),
        st.builds(samples.array, st.sampled_from(samples.NATIVE_DTYPES), shapes(3)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=5),
            st.lists(inner, max_size=5).map(tuple),
            st.dictionaries(st.one_of(hashable, st.tuples(hashable, hashable)), inner, max_size=5),
            st.frozensets(hashable, max_size=5),
            st.sets(hashable, max_size=5),
        ),
        max_leaves=20,
    )


def frames() -> st.SearchStrategy[Any]:
    """Draw pandas frames with columns of many types under any text labels."""
    import pandas as pd

    columns: dict[str, st.SearchStrategy[Any]] = {
        "int64": st.integers(-(2**63), 2**63 - 1),
        "float64": st.floats(),
        "bool": st.booleans(),
        "str": st.none() | _TEXT,
        "string": st.none() | _TEXT,
        "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
        "boolean": st.none() | st.booleans(),
        "datetime64[ns]": st.none() | st.datetimes(*_PANDAS_TIMES),
        "datetime64[us, Europe/Berlin]": st.none() | st.datetimes(*_PANDAS_TIMES),
        "timedelta64[us]": st.none() | st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)),
        "category": st.none() | st.sampled_from(["a", "b", "µ"]),
        "Float32": st.none() | st.floats(width=32, allow_nan=False),
        "period[M]": st.none() | st.sampled_from(["2026-01", "1969-12"]),
        "Sparse[int64]": st.integers(-2, 2),
        "int64[pyarrow]": st.none() | st.integers(-(2**63), 2**63 - 1),
        "string[pyarrow]": st.none() | _TEXT,
        "object": st.one_of(st.none(), _TEXT, st.integers(), st.tuples(st.integers())),
    }

    @st.composite
    def frame(draw: st.DrawFn) -> Any:
        rows = draw(st.integers(0, 4))
        drawn = draw(st.lists(st.sampled_from(sorted(columns)), max_size=4))
        made = {
            number: pd.Series([draw(columns[dtype]) for _ in range(rows)], dtype=dtype)
            for number, dtype in enumerate(drawn)
        }
        table = pd.DataFrame(made)
        if made:
            table.columns = pd.Index([draw(_TEXT) for _ in drawn])
        return table

    return frame()


def grids() -> st.SearchStrategy[Any]:
    """Draw xarray datasets: several variables over shared dimensions, coordinates, attributes."""
    import xarray as xr

    @st.composite
    def grid(draw: st.DrawFn) -> Any:
        sizes = {name: draw(st.integers(0, 3)) for name in ("x", "y", "z")}
        made = xr.Dataset(attrs=draw(st.dictionaries(_TEXT, st.one_of(_TEXT, st.integers()), max_size=2)))
        for number in range(draw(st.integers(0, 3))):
            dims = draw(st.permutations(list(sizes)))[: draw(st.integers(0, 3))]
            values = samples.array(
                draw(dtypes().filter(_in_xarray)), tuple(sizes[dim] for dim in dims), draw(st.integers(0, 99))
            )
            made[f"v{number}"] = xr.Variable(dims, values, encoding=draw(_ENCODINGS))
        for dim in draw(st.lists(st.sampled_from(sorted(sizes)), unique=True)):
            made = made.assign_coords({dim: range(sizes[dim])})
        return made.set_coords([name for name in made.data_vars if draw(st.booleans())])

    return grid()


_ENCODINGS = st.dictionaries(
    st.sampled_from(["units", "_FillValue", "chunksizes", "source"]),
    st.one_of(st.none(), st.integers(), _TEXT, st.tuples(st.integers())),
    max_size=2,
)


def _in_xarray(dtype: Any) -> bool:
    """Say whether xarray keeps a type: of times it takes those that pandas has."""
    return dtype.kind not in "mM" or dtype.str in {"<M8[s]", "<M8[ns]", "<m8[s]", "<m8[ns]"}


def _lone(text: str) -> str:
    """Give text as a file name may be: with a byte that is no UTF-8."""
    return f"{text}\udcff"


def _exists(moment: dt.datetime) -> bool:
    """Say whether two readings of a local time are the same moment; in a gap no store could tell."""
    return moment.tzinfo is None or moment.utcoffset() is not None


def _untagged(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() != {"$float"} and all(map(_untagged, value.values()))
    return all(map(_untagged, value)) if isinstance(value, list) else True
