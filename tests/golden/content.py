"""What the golden files hold: never change what is here, as the files of version 1 were written from it.

Arrays are made from a seed by Python's Mersenne Twister, so that they are the same everywhere and always.
"""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import random
import sys
import uuid
import zoneinfo

import numpy as np
import pandas as pd
import xarray as xr

from datastore_lab import dtypes
from datastore_lab.records import ArrayInfo, Record, Stat

ROOT = pathlib.Path(__file__).parent

MODULE = "lab_golden"
"""Name under which the files know the classes below, wherever this module lies."""

sys.modules.setdefault(MODULE, sys.modules[__name__])

_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s")

DTYPES = (
    *("|b1", "|i1", "|u1"),
    *(f"{order}{code}" for order in "<>" for code in ("i2", "i4", "i8", "u2", "u4", "u8")),
    *(f"{order}{code}" for order in "<>" for code in ("f2", "f4", "f8", "c8", "c16")),
    *(f"<M8[{unit}]" for unit in _UNITS),
    *(f"<m8[{unit}]" for unit in _UNITS),
    *("<M8", "<m8", ">M8[ns]", ">m8[s]", "|S1", "|S7", "<U1", "<U5", ">U3", "|V1", "|V6", "T"),
    json.dumps([["x", "<f8"], ["y", "<i2"]]),
    json.dumps([["x", ">f4"], ["t", "<M8[us]"], ["name", "|S4"], ["label", "<U3"]]),
    json.dumps([["point", [["x", "<f4"], ["y", "<f4"]]], ["ok", "|b1"]]),
    json.dumps([["matrix", "<f8", [2, 3]], ["raw", "|V2"]]),
    json.dumps({"fields": [["a", "|i1"], ["b", "<f8"]], "offsets": [0, 8], "itemsize": 16}),
    json.dumps({"fields": [["b", "<i2"], ["a", "|u1"]], "offsets": [4, 1], "itemsize": 9}),
    json.dumps([["é/ .", "<i4"], ["z", "<c16"]]),
)
"""Types of arrays by canonical name. Extended precision differs between computers, and is left out."""

SHAPES = ((), (0,), (1,), (7,), (2, 0, 3), (3, 4), (2, 1, 3, 2))

KEYS = (
    ".",
    "..",
    "a/b",
    "/",
    "nul\0inside",
    "%2F",
    "zarr.json",
    "__x",
    "lab_kind",
    "Case",
    "case",
    "trailing.",
    "trailing ",
    "con",
    'a:b*c?d"e<f>g|h',
    "\N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}",
    "é",
    "e\u0301",
    "n" * 300,
    "<script>",
)
"""Parts of keys that no file system and no format takes as they are."""

ATTRIBUTES = {
    "none": None,
    "true": True,
    "int": 3,
    "float": 1.0,
    "text": "µV\0",
    "floats": [math.inf, -math.inf, -0.0, 1 / 3],
    "wide": -(7**100),
    "mix": [1, 1.0, True, {"a": None}],
    "empty": [[], {}, ""],
    "": "no name",
}
"""Attributes of a record and of a group."""


def array(name, shape, seed=0):
    """Make an array of any type, by canonical name, with arbitrary bits."""
    dtype, source = dtypes.parse(name), random.Random(seed)
    count = math.prod(shape)
    if dtype.kind == "T":
        texts = ["", "a", "µV", "a\0b", "x" * 40, "\N{SNOWMAN}" * 30]
        return np.array([source.choice(texts) for _ in range(count)], dtype).reshape(shape)
    whole = np.frombuffer(bytearray(source.randbytes(count * dtype.itemsize)), dtype, count).reshape(shape)
    if dtype.names is not None:
        for number, (field, (inner, *_)) in enumerate(dtype.fields.items()):
            part = whole[field]
            part[...] = array(dtypes.name(inner.base), part.shape, seed + number + 1)
    elif dtype.kind == "b":
        return np.array([source.getrandbits(1) for _ in range(count)], bool).reshape(shape)
    elif dtype.kind == "U":
        size = dtype.itemsize // 4
        texts = ["".join(source.choice("aZµ中\N{SNOWMAN}") for _ in range(size)) for _ in range(count)]
        return np.array(texts, dtype).reshape(shape)
    return whole


class Colour(enum.Enum):
    RED = "r"


class Gain(enum.IntEnum):
    HIGH = 10


class Mode(enum.Flag):
    AC = 1
    FAST = 2


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass(frozen=True)
class Fit:
    slope: float
    data: object
    order: int = dataclasses.field(default=1, init=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    value: object


class Spectrum:
    """The storage protocol, as a user writes it."""

    def __init__(self, values, note):
        self.values, self.note = values, note

    def storage_prepare(self):
        return self.values, {"note": self.note}

    @classmethod
    def storage_retrieve(cls, array, json):
        return cls(array, json["note"])

    def __eq__(self, other):
        return self.note == other.note and np.array_equal(self.values, other.values)

    __hash__ = None


for _class in (Colour, Gain, Mode, Point, Fit, Slotted, Spectrum):
    _class.__module__ = MODULE


PYTHON = {
    "None": None,
    "bool": [True, False],
    "int": [0, -3, 2**63, -(7**300)],
    "int of 15,000 digits": 1 << 50_000,
    "float": [1.5, -0.0, math.nan, -math.inf, 5e-324],
    "complex": complex(-0.0, math.inf),
    "str": ["", "µV\0\n", "\N{SNOWMAN}"],
    "str with lone surrogates": ["\udcff", {"\ud800": 1}],
    "bytes, bytearray": [b"\0\xff", bytes(range(256)) * 8, bytearray(b"ab")],
    "datetime": dt.datetime(2026, 3, 1, 12, 30, 1, 5),  # noqa: DTZ001
    "datetime with a fixed offset": dt.datetime(
        2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=1), "lab")
    ),
    "datetime with a time zone": dt.datetime(
        2020, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1
    ),
    "date, time, timedelta": [
        dt.date(1, 1, 1),
        dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
        dt.timedelta(-1, 5, 7),
    ],
    "timezone, ZoneInfo": [dt.UTC, zoneinfo.ZoneInfo("Asia/Tokyo")],
    "Decimal": [decimal.Decimal(text) for text in ("1.100", "-0E+5", "NaN", "-sNaN12", "Infinity", "1E-999")],
    "Fraction": [fractions.Fraction(-1, 3), fractions.Fraction(7**400, 2)],
    "UUID": uuid.UUID(int=5),
    "PurePath": [pathlib.PurePosixPath("/data/run 1"), pathlib.PureWindowsPath(r"c:\data")],
    "Enum, IntEnum, Flag": [Colour.RED, Gain.HIGH, Mode.AC | Mode.FAST],
    "dataclass": Fit(1.5, {"matrix": np.eye(2)}),
    "dataclass with slots": [Slotted((1,))],
    "named tuple": Point(1, [2]),
    "tuple": (1, (2, [3])),
    "list": [1, [2.0, "x"], None],
    "list of numbers": [[1.5, 2.5, 3.5]] * 40,
    "dict": {"z": 1, "a": {"$tuple": [1]}},
    "dict with any keys": {1: "int", "1": "str", None: 0, (1, "a"): 1, 2.5: 2, b"x": 3, frozenset({1}): 4},
    "set, frozenset": [{1, "1", (2, 3), None}, frozenset({frozenset({1}), 2})],
    "OrderedDict": collections.OrderedDict([("b", 1), ("a", 2)]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "Counter": collections.Counter("abca"),
    "deque": collections.deque([1, 2], maxlen=5),
    "range, slice, Ellipsis": [range(0, 10**30, 7), slice(None, 5, None), ...],
    "numpy inside": {"mean": np.float64(1.5), "t": np.datetime64("2026-01-01", "s"), "v": np.arange(3)},
    "numpy dtype": [np.dtype("<f8"), np.dtype([("x", "<i4")])],
    "storage protocol": Spectrum(np.arange(4.0), "x"),
    "pandas, xarray inside": {"f": pd.DataFrame({"x": [1, 2]}), "d": xr.Dataset({"v": ("t", [1.0])})},
}

NUMPY = {
    "0-d": np.array(5, ">i4"),
    "empty": np.zeros((2, 0, 3), "<f4"),
    "Fortran order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided, reversed": np.arange(20)[::-3],
    "NaN payloads": np.array([0x7FF0000000000001, 0xFFF8DEADBEEF0001, 1 << 63], "<u8").view("<f8"),
    "scalar": np.float64(1.5),
    "scalar of text": np.str_("ab"),
    "scalar of a date": np.datetime64("NaT", "ns"),
    "scalar of a structured type": np.array((1, 2.5), "<i4,<f8")[()],
    "StringDType": np.array(["a\0b", "", "é" * 300], np.dtypes.StringDType()),
    "StringDType with missing text": np.array(["a", None], np.dtypes.StringDType(na_object=None)),
    "masked": np.ma.masked_array([1.5, np.nan, -0.0], [True, False, True], fill_value=-1),
    "masked, hard": np.ma.masked_array([[1, 2]], hard_mask=True),
    "masked, structured": np.ma.masked_array(np.zeros(2, "<i4,<f8"), [(True, False), (False, False)]),
    "masked constant": np.ma.masked,
    "recarray": np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", ">i4"), ("b", "<f8")]),
}

_ROWS = {
    "int64": [1, 2, 3],
    "float64": [1.0, np.nan, -0.0],
    "bool": [True, False, True],
    "float16": np.array([1, 2, 3], "<f2"),
    "big-endian": np.array([1, 2, 3], ">i4"),
    "complex": [1j, 2, 3],
    "str": pd.array(["a", None, "c\0"], dtype="str"),
    "object, text": pd.Series(["a", "b", "c"], dtype=object),
    "object, mixed": pd.Series([1, "a", None], dtype=object),
    "datetime64": pd.Series(np.array(["2026", "NaT", "1600"], "<M8[s]")),
    "datetime64 with a time zone": pd.date_range("2020-10-25", periods=3, freq="h", tz="Europe/Berlin"),
    "datetime64, UTC": pd.date_range("2026", periods=3, tz="UTC"),
    "datetime64, fixed offset": pd.date_range("2026", periods=3, tz=dt.timezone(dt.timedelta(hours=2))),
    "timedelta64": pd.to_timedelta([1, None, 3], unit="s"),
    "category": pd.Categorical(["x", None, "y"], categories=["y", "x", "z"], ordered=True),
    "category of numbers": pd.Categorical([1.5, 2.5, 1.5]),
    "category of dates": pd.Categorical(pd.to_datetime(["2026", "2025", "2026"])),
    "Int64": pd.array([1, None, 2**62 + 1], dtype="Int64"),
    "UInt8": pd.array([1, None, 3], dtype="UInt8"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "Float32": pd.array([1.5, None, 2], dtype="Float32"),
    "string[pyarrow]": pd.array(["a", None, "b"], dtype=pd.StringDtype("pyarrow")),
    "string[python]": pd.array(["a", None, "b"], dtype=pd.StringDtype("python", na_value=np.nan)),
    "period": pd.period_range("2026", periods=3, freq="M"),
    "interval": pd.interval_range(0.0, 3.0, closed="left"),
    "Sparse": pd.arrays.SparseArray([0, 0, 5]),
    "int64[pyarrow]": pd.array([1, None, 3], dtype="int64[pyarrow]"),
    "timestamp[pyarrow]": pd.array([dt.datetime(2026, 1, 1), None, None], dtype="timestamp[us][pyarrow]"),  # noqa: DTZ001
}

_FRAME = pd.DataFrame(_ROWS, index=pd.date_range("2026-01-01", periods=3, freq="D", name="when"))
_FRAME.attrs = {"source": "bench", "shape": (1, 2)}

PANDAS = {
    **{f"Series of {name}": _FRAME[name].reset_index(drop=True) for name in _ROWS},
    "DataFrame": _FRAME,
    "DataFrame without rows": _FRAME.iloc[:0],
    "DataFrame without columns": pd.DataFrame(index=["a", "b"]),
    "equal column labels": pd.DataFrame(np.eye(2), columns=["a", "a"]),
    "any column labels": pd.DataFrame([[1, 2, 3, 4, 5]], columns=[1, "a", None, 2.5, ("t", 1)]),
    "MultiIndex of rows and columns": pd.DataFrame(
        np.arange(4).reshape(2, 2),
        index=pd.MultiIndex.from_tuples([("a", 1), ("a", None)], names=["k", None]),
        columns=pd.MultiIndex.from_product([["u"], [1, 2]], names=["c", "d"]),
    ),
    "RangeIndex": pd.RangeIndex(10, 4, -3, name="r"),
    "Index": pd.Index(["a", 1], name=("x", 2)),
    "DatetimeIndex with freq": pd.date_range("2026", periods=3, freq="B", tz="America/New_York"),
    "TimedeltaIndex with freq": pd.timedelta_range("0s", periods=2, freq="h"),
    "PeriodIndex": pd.period_range("2026", periods=2, freq="Q"),
    "CategoricalIndex": pd.CategoricalIndex(["a", "b"], ordered=True),
    "MultiIndex with unused levels": pd.MultiIndex.from_product([[1, 2], ["a"]], names=["u", None])[:1],
    "Timestamp, Timedelta, Period, Interval": [
        pd.Timestamp("2026-01-01", tz="UTC"),
        pd.Timedelta("1s"),
        pd.Period("2026", "M"),
        pd.Interval(0, 1),
    ],
    "NaT, NA": [pd.NaT, pd.NA],
}

_GRID = xr.Dataset(
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
    {"title": "bench", "none": None, "nan": float("nan"), "single": np.float32(2), 1: 2},
)
_GRID["v"].encoding = {"dtype": np.dtype("<i2"), "scale_factor": 0.1, "_FillValue": -1, "chunksizes": (1, 3)}
_GRID.encoding = {"unlimited_dims": {"t"}}
_STACKED = _GRID[["v"]].stack(z=("t", "x"))

XARRAY = {
    "Dataset": _GRID,
    "Dataset without indexes": _GRID.drop_indexes(["x", "t"]),
    "Dataset with a MultiIndex": _STACKED,
    "empty Dataset": xr.Dataset(),
    "DataArray": _GRID["v"],
    "DataArray without name": _GRID["v"].rename(None),
    "DataArray without coordinates": xr.DataArray(np.zeros((2, 0), ">f4")),
    "coordinate": _GRID["t"],
    "Variable": _GRID["v"].variable,
    "DataTree": xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"a": 1}), "/g": _GRID, "/g/h": xr.Dataset({"z": ("t", [1, 2])})}, name="root"
    ),
}

OBJECTS = {"python": PYTHON, "numpy": NUMPY, "pandas": PANDAS, "xarray": XARRAY}
"""Objects of every codec, by family and name."""


def records():
    """Give all records but streams, by key."""
    made = {("types",): Record("array", {name: array(name, (2, 3), 1) for name in DTYPES}, {}, {})}
    shaped = {"x".join(map(str, shape)) or "0-d": array("<f8", shape, 2) for shape in SHAPES}
    dims = {"3x4": ("row", "column")}
    made[("shapes",)] = Record("array", shaped, {**ATTRIBUTES, "lab_attrs": {"7": {"units": "V"}}}, dims)
    for number, part in enumerate(KEYS):
        made["keys", part] = Record("array", {"v": np.array(number, "<i4")}, {}, {})
    made["below", "1", "2", "3"] = Record("array", {"v": array("<f8", (2,), 3)}, {}, {})
    return made


STREAM = ("run", "daq")
ROWS = 50


def stream(*, plain=False):
    """Give the declaration and the rows of a stream; a plain one has one number per column."""
    rows = {
        "time": np.arange(1_767_225_600_000_000_000, 1_767_225_600_000_000_000 + ROWS, dtype="<i8"),
        "v": np.arange(ROWS) * 0.1,
        "count": np.arange(ROWS, dtype="<i4"),
    }
    if not plain:
        rows |= {
            "flag": array("|b1", (ROWS,), 4),
            "frame": array("<u2", (ROWS, 2, 3), 5),
            "moment": array("<M8[us]", (ROWS,), 6),
            "text": np.array([f"row {number} µ" for number in range(ROWS)], np.dtypes.StringDType()),
        }
    infos = {
        name: ArrayInfo(dtypes.name(part.dtype), (0, *part.shape[1:]), _dims(name, part), 0, None)
        for name, part in rows.items()
    }
    meta = {"rate": 1000.0, "units": {"v": "V"}, "operator": "Ada µ"}
    return Stat("stream", infos, meta), rows


def _dims(name, rows):
    return ("time", *(f"{name}_{axis}" for axis in range(1, rows.ndim)))


def key_of(case):
    """Give the key of the stream; append-only stores may have no others."""
    return STREAM if case.whole else STREAM[-1:]


def append(engine, key, *, plain):
    spec, rows = stream(plain=plain)
    appender = engine.append(key, spec)
    for start in (0, 20):
        part = slice(start, start + 20 if start == 0 else None)
        appender.extend({name: values[part] for name, values in rows.items()})
        appender.flush()
    appender.close({"ended": True})
