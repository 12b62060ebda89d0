"""Tables and grids to store, and a way there and back."""

import datetime as dt

import numpy as np
import pandas as pd
import xarray as xr

from datastore_lab import media
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.objects import decode, encode
from datastore_lab.records import Record, check_record


def through(record):
    """Take a record through an engine, with its metadata as JSON text."""
    check_record(record)
    engine = MemoryEngine()
    engine.write(("k",), record._replace(meta=media.from_json(media.to_json(record.meta))))
    stat = engine.stat(("k",))
    arrays = {name: engine.read(("k",), name) for name in stat.arrays}
    return Record(stat.kind, arrays, stat.meta, {name: info.dims for name, info in stat.arrays.items()})


def trip(obj):
    return decode(through(encode(obj)))


TIMES = pd.date_range("2026-01-01", periods=3, freq="D", name="when")


FRAME = pd.DataFrame(
    {
        "int": [1, 2, 3],
        "float": [1.0, np.nan, -0.0],
        "bool": [True, False, True],
        "half": np.array([1, 2, 3], "f2"),
        "big-endian": np.array([1, 2, 3], ">i4"),
        "complex": [1j, 2, 3],
        "text": ["a", None, "c\0"],
        "text objects": pd.Series(["a", "b", "c"], dtype=object),
        "mixed": pd.Series([1, "a", None], dtype=object),
        "things": pd.Series([[1], (2,), {"x": np.float32(1)}], dtype=object),
        "times": pd.date_range("2026", periods=3),
        "seconds": pd.Series(np.array(["2026", "NaT", "1600"], "M8[s]")),
        "zone": pd.date_range("2020-10-25", periods=3, freq="h", tz="Europe/Berlin"),
        "utc": pd.date_range("2026", periods=3, tz="UTC"),
        "offset": pd.date_range("2026", periods=3, tz=dt.timezone(dt.timedelta(hours=2))),
        "spans": pd.to_timedelta([1, None, 3], unit="s"),
        "category": pd.Categorical(["x", None, "y"], categories=["y", "x", "z"], ordered=True),
        "numbers as category": pd.Categorical([1.5, 2.5, 1.5]),
        "Int64": pd.array([1, None, 2**62 + 1], dtype="Int64"),
        "UInt8": pd.array([1, None, 3], dtype="UInt8"),
        "boolean": pd.array([True, None, False], dtype="boolean"),
        "Float32": pd.array([1.5, None, 2], dtype="Float32"),
        "string": pd.array(["a", None, "b"], dtype="string"),
        "string in python": pd.array(["a", None, "b"], dtype=pd.StringDtype("python", na_value=np.nan)),
        "period": pd.period_range("2026", periods=3, freq="M"),
        "interval": pd.interval_range(0.0, 3.0, closed="left"),
    }
)
FRAME.attrs = {"source": "bench", "shape": (1, 2)}


TABLES = {
    "everything": FRAME,
    "no rows": FRAME.iloc[:0],
    "empty": pd.DataFrame(),
    "only rows": pd.DataFrame(index=["a", "b"]),
    "only columns": pd.DataFrame(columns=["a", "b"]),
    "duplicates": pd.DataFrame(np.eye(3), columns=["a", "a", "a"], index=TIMES),
    "index like a column": pd.DataFrame({"when": [1, 2, 3]}, index=TIMES),
    "column like a mask": pd.DataFrame({"x.mask": [1, 2], "x": pd.array([1, None], dtype="Int8")}),
    "column named labels": pd.DataFrame({"labels": [1], "columns": [2], "index": [3]}),
    "numbers as names": pd.DataFrame(np.eye(2)),
    "odd names": pd.DataFrame([[1, 2, 3, 4, 5]], columns=[1, "a", None, 2.5, ("t", 1)]),
    "empty name": pd.DataFrame({"": [1], "a/b": [2], "..": [3], "\n": [4]}),
    "dates as names": pd.DataFrame([[1, 2]], columns=pd.date_range("2026", periods=2, freq="D", name="day")),
    "name of the columns": pd.DataFrame({"x": [1]}).rename_axis(columns="what"),
    "object names": pd.DataFrame([[1]], columns=pd.Index(["x"], dtype=object, name=("a", 1))),
    "rows and columns of levels": pd.DataFrame(
        np.arange(4).reshape(2, 2),
        index=pd.MultiIndex.from_tuples([("a", 1), ("a", None)], names=["k", None]),
        columns=pd.MultiIndex.from_product([["u"], [1, 2]], names=["c", "d"]),
    ),
    "range": pd.DataFrame({"x": [1, 2]}, index=pd.RangeIndex(10, 4, -3, name="r")),
    "duplicated rows": pd.DataFrame({"x": [1, 2]}, index=["a", "a"]),
    "unique labels": pd.DataFrame({"x": [1]}).set_flags(allows_duplicate_labels=False),
    **{
        f"index of {name}": FRAME.set_index(name)[["int"]]
        for name in FRAME.columns
        if name not in {"int", "things", "half"}
    },
}


DATASET = xr.Dataset(
    {
        "v": (
            ("t", "x"),
            np.arange(6.0).reshape(2, 3),
            {"units": "V", "range": np.array([0, 5]), "pair": (1, 2)},
        ),
        "when": ((), np.datetime64("2026", "s")),
        "objects": ("t", np.array(["a", "bb"], object)),
        "text": ("t", np.array(["a", "bb"], np.dtypes.StringDType())),
        "fixed": ("t", np.array(["a", "bb"])),
        "half": ("t", np.array([1, 2], ">f2")),
    },
    {"t": pd.date_range("2026", periods=2), "x": ["p", "q", "r"], "label": ("x", [1, 2, 3]), "where": 5},
    {"title": "bench", "none": None, "nan": float("nan"), "lab_x": 1, "single": np.float32(2), 1: 2},
)


GRIDS = {
    "dataset": DATASET,
    "empty": xr.Dataset(),
    "without indexes": DATASET.drop_indexes(["x", "t"]),
    "computed later": DATASET.chunk(),
    "array": DATASET["v"],
    "without name": DATASET["v"].rename(None),
    "tuple as name": DATASET["v"].rename(("u", 1)),
    "empty name": DATASET["v"].rename(""),
    "coordinate": DATASET["t"],
    "named like its dimension": xr.DataArray([1, 2], dims="x", name="x"),
    "dimension called data": xr.DataArray([1, 2], dims="data"),
    "single value": xr.DataArray(5.0, name="x"),
    "no values": xr.DataArray(np.zeros((2, 0), ">f4")),
    "variable": DATASET["v"].variable,
    "index variable": DATASET["t"].variable,
    "tree": xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"a": 1}),
            "/g": DATASET,
            "/g/h": xr.Dataset({"z": ("t", [1, 2])}),
            "/i": xr.Dataset({"v": ("t", [1])}),
        },
        name="root",
    ),
    "empty tree": xr.DataTree(),
}
