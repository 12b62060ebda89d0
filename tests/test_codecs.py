"""Objects through their codec, an engine and JSON text, and back: equal, and of the same type."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import importlib
import json
import math
import pathlib
import struct
import sys
import types
import uuid
import zoneinfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from tabular import GRIDS, TABLES, through, trip

from datastore_lab.codecs.array import ArrayCodec
from datastore_lab.codecs.value import ValueCodec
from datastore_lab.codecs.xarray import ArraysCodec
from datastore_lab.errors import Corrupt, NotStorable, Untrusted
from datastore_lab.objects import decode, encode, forget_type, register_type
from datastore_lab.records import CODEC_STATE, Record
from datastore_lab.testing import samples, strategies
from datastore_lab.testing.equality import assert_same


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


class Ranked(Point):
    def norm(self):
        return self.x


@dataclasses.dataclass
class Late:
    known: int
    later: int = dataclasses.field(init=False)

    @classmethod
    def made(cls):
        return cls(1)


class Spectrum:
    """The storage protocol, as a user writes it."""

    def __init__(self, values, note):
        self.values, self.note = values, note

    def storage_prepare(self):
        return self.values, {"note": self.note, "shape": (1, 2)}

    @classmethod
    def storage_retrieve(cls, array, json):
        assert json["shape"] == (1, 2)
        return cls(array, json["note"])

    def __eq__(self, other):
        return (
            type(other) is Spectrum and self.note == other.note and np.array_equal(self.values, other.values)
        )

    __hash__ = None


def nested(levels, make):
    value = make(0) if make is not dict else {}
    for _ in range(levels - 1):
        value = make(value)
    return value


NANS = ["010000000000f87f", "000000000000f8ff", "efbeaddebeadf4ff"]


VALUES = {
    "none": None,
    "true": True,
    "int": 3,
    "long": -(7**300),
    "huge": 1 << 50_000,
    "minus zero": -0.0,
    "nan": math.nan,
    "infinity": -math.inf,
    "subnormal": 5e-324,
    "complex": complex(-0.0, math.inf),
    "text": "µV\0\n",
    "bytes": b"\0\xff",
    "long bytes": bytes(range(256)) * 8,
    "bytearray": bytearray(b"ab"),
    "long bytearray": bytearray(5000),
    "datetime": dt.datetime(2026, 3, 1, 12, 30, 1, 5),  # noqa: DTZ001
    "utc": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "offset": dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=1), "lab")),
    "fold": dt.datetime(2020, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    "year one": dt.date(1, 1, 1),
    "time": dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
    "timedelta": dt.timedelta(-1, 5, 7),
    "zone": zoneinfo.ZoneInfo("Asia/Tokyo"),
    "decimal": decimal.Decimal("1.100"),
    "decimal nan": decimal.Decimal("-0E+5"),
    "fraction": fractions.Fraction(-1, 3),
    "path": pathlib.Path("/data/run 1"),
    "windows path": pathlib.PureWindowsPath(r"c:\data"),
    "uuid": uuid.UUID(int=5),
    "range": range(0, 10**30, 7),
    "slice": slice(None, 5, None),
    "ellipsis": ...,
    "empty": [[], (), {}, set(), frozenset(), "", b""],
    "list": [1, [2.0, "x"], None],
    "tuple": (1, (2, [3])),
    "set": {1, "1", (2, 3), None},
    "frozenset": frozenset({frozenset({1}), 2}),
    "keys": {1: "int", "1": "str", None: 0, (1, "a"): 1, 2.5: 2, b"x": 3, frozenset({1}): 4},
    "order": {"z": 1, "a": 2, "m": 3},
    "dollar": {"$float": "nan", "$tuple": [1]},
    "dollar within": [{"$set": {"$x": 1}}],
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "default": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1, 2], maxlen=5),
    "long integers as keys": {10**5000: 1, (10**5000, "a"): 2},
    "long integers in a set": {10**5000, -(10**6000), 1},
    "long fraction": fractions.Fraction(7**4000, 3),
    "signalling decimal": [decimal.Decimal("sNaN7"), decimal.Decimal("-NaN")],
    "large decimal": decimal.Decimal("1." + "3" * 5000 + "E+999999"),
    "lone surrogates": ["\ud800", {"\udcff": ("a\udc80",)}, pathlib.Path("\udcff/x")],
    "name of a zone": dt.timezone(dt.timedelta(0), "\ud800"),
    "payload of a nan": [struct.unpack("<d", bytes.fromhex(text))[0] for text in NANS],
    "payload in a complex": complex(1, struct.unpack("<d", bytes.fromhex(NANS[1]))[0]),
    "payload in numpy": np.array([0x7FC00001], "u4").view("f4")[0],
    "types": {"dtype": np.dtype(">f8"), "fields": np.dtype([("a", "U3")])},
    "subclass of a named tuple": Ranked(2, [1]),
    "unset field": Late.made(),
    "tuple as a key": {((1, 2), (3,)): 1, range(3): 2, None: {}},
    "enum": {"colour": Colour.RED, "gain": Gain.HIGH, "mode": Mode.AC | Mode.FAST},
    "named tuple": Point(1, [2]),
    "dataclass": Fit(1.5, {"matrix": np.eye(2)}),
    "slots": [Slotted((1,))],
    "long list": list(range(100)),
    "long floats": [math.nan, -0.0, *map(float, range(100))],
    "matrix": [[1.5, 2.5, 3.5]] * 40,
    "pairs": [(i, -i) for i in range(60)],
    "long mix": [1, True, 2.0] * 40,
    "long bools": [True, False] * 50,
    "long complex": (1j,) * 100,
    "ragged": [[1] * 50, [2] * 51],
    "wide integers": [2**70] * 100,
    "uneven types": [[1, 2]] * 40 + [(1, 2)],
    "deep list": nested(100, lambda inner: [inner]),
    "deep tuple": nested(100, lambda inner: (inner,)),
    "deep mapping": nested(100, lambda inner: {"a": inner}),
    "numpy inside": {"mean": np.float64(1.5), "n": np.int8(3), "t": np.datetime64("2026-01-01", "s")},
    "odd numpy inside": [
        np.longdouble(1) / 3,
        np.complex64(1j),
        np.str_("ab"),
        np.void(b"ab"),
        np.bool_(True),
    ],
    "arrays inside": {"a": {"b": np.eye(2)}, "a.b": np.arange(3), "list": [np.zeros((0, 2), ">i2")]},
    "masked inside": [np.ma.masked_array([1, 2], [False, True])],
    "protocol inside": [Spectrum(np.arange(4), "x")],
    "protocol": Spectrum(None, {"deep": (Spectrum(np.eye(2), None),)}),
    "frames inside": {"f": pd.DataFrame({"x": [1, 2]}), "d": xr.Dataset({"v": ("t", [1.0])})},
    "pandas scalars": [
        pd.Timestamp("2026-01-01", tz="UTC"),
        pd.NaT,
        pd.NA,
        pd.Timedelta("1s"),
        pd.Interval(0, 1),
    ],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_equal_and_of_the_same_type(name):
    assert_same(trip(VALUES[name]), VALUES[name])


@settings(max_examples=150, deadline=None)
@given(strategies.values())
def test_any_plain_value_comes_back(value):
    assert_same(trip(value), value)


def test_a_plain_mapping_is_readable_json():
    record = encode({"rate": 1000.0, "name": "run", "channels": [1, 2], "trace": np.zeros(3)})
    assert json.loads(json.dumps(record.meta[CODEC_STATE]["value"])) == {
        "rate": 1000.0,
        "name": "run",
        "channels": [1, 2],
        "trace": {"$record": {"kind": "array", "arrays": {"data": "trace"}}},
    }
    assert list(record.arrays) == ["trace"]


def test_arrays_inside_are_named_by_their_place():
    value = {"results": {"matrix": np.eye(2), "matrix_0": np.ones(3)}, "long": [0.5] * 100}
    assert list(encode(value).arrays) == ["results.matrix", "results.matrix_0~2", "long"]
    assert_same(trip(value), value)


def test_long_lists_become_one_array():
    arrays = encode({"m": [[1.0, 2.0]] * 1000}).arrays
    assert arrays["m"].shape == (1000, 2)


class Plain:
    pass


def cycle():
    value = [1]
    value.append({"again": value})
    return value


def endless():
    made = Fit(1.0, None)
    object.__setattr__(made, "data", {"self": made})
    return made


@dataclasses.dataclass
class Wide(str):
    x: int = 1


@dataclasses.dataclass
class Closing:
    x: int

    def __del__(self):
        pass


def hidden():
    made = Slotless(1)
    made.note = "lost"
    return made


@dataclasses.dataclass
class Slotless:
    x: int


REFUSED = {
    "object": ({"a": [1, 2, 3, Plain()]}, r"value\['a'\]\[3\].*Plain"),
    "top": (Plain(), r"value is an object of .*Plain"),
    "function": ([len], r"value\[0\]"),
    "class": ({"cls": int}, r"value\['cls'\]"),
    "cycle": (cycle(), r"value\[1\]\['again'\] contains itself"),
    "cycle of objects": (endless(), r"value\.data\['self'\] contains itself"),
    "too deep": (nested(150, lambda inner: [inner]), "deeper than 100"),
    "objects in an array": ({"x": np.array([object()])}, r"value\['x'\].*object"),
    "subclass of dict": ({"d": type("Special", (dict,), {})()}, r"value\['d'\].*Special"),
    "subclass of list": ([type("Special", (list,), {})()], r"value\[0\].*Special"),
    "subclass of str": (type("Special", (str,), {})("x"), "Special"),
    "hidden attribute": (hidden(), r"value\.note is not a field"),
    "dataclass over a built-in class": (Wide("x"), "value is an object of .*Wide"),
    "dataclass with a destructor": (Closing(1), "value is an object of .*Closing"),
    "dtype of objects": ({"t": np.dtype(object)}, r"value\['t'\]"),
    "memoryview": ({"m": memoryview(b"")}, r"value\['m'\].*memoryview"),
    "mapping proxy": (types.MappingProxyType({}), "mappingproxy"),
    "factory": (collections.defaultdict(lambda: 1), "factory"),
    "foreign zone": (dt.datetime(2026, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {})()), "time zone"),
    "through a dataclass": ({"fit": Fit(1.0, [Plain()])}, r"value\['fit'\]\.data\[0\]"),
    "through the protocol": ([Spectrum(None, [Plain()])], r"value\[0\].*\['note'\]\[0\]"),
    "own class": (np.zeros(3).view(type("Own", (np.ndarray,), {})), "Own"),
    "masked subclass": (type("Own", (np.ma.MaskedArray,), {})([1]), "Own"),
    "missing text": (np.array(["a"], np.dtypes.StringDType(na_object=5)), "missing"),
    "titles": (np.zeros(2, [(("title", "x"), "f8")]), "titles"),
    "object column": (pd.DataFrame({"a": [1], "o": [Plain()]}), r"column 'o': value\[0\]"),
    "surrogate column": (
        pd.DataFrame({"o": pd.array(["\ud800"], dtype=pd.StringDtype("python"))}),
        "column 'o'.*surrogate",
    ),
    "subclass of frame": (type("Geo", (pd.DataFrame,), {})({"a": [1]}), "Geo"),
    "frame attribute": (
        pd.Series([1]).rename("x").pipe(lambda s: s.attrs.update(a=Plain()) or s),
        r"attrs.*\['a'\]",
    ),
    "number as variable": (xr.Dataset({1: ("x", [1])}), "rename"),
    "mixed variable": (xr.Dataset({"m": ("x", np.array([1, "a"], object))}), "variable 'm'"),
    "attribute": (xr.DataArray([1], attrs={"bad": Plain()}), r"\['bad'\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stored_is_refused_by_its_path(name):
    obj, message = REFUSED[name]
    with pytest.raises(NotStorable, match=f"(?s){message}"):
        encode(obj)


def test_a_local_class_is_refused_until_it_is_registered():
    @dataclasses.dataclass
    class Local:
        x: int

    with pytest.raises(NotStorable, match=r"value\['l'\].*register_type"):
        encode({"l": Local(1)})
    register_type(Local, lambda obj: obj.x, lambda x: Local(x), kind="tests.Local")
    try:
        assert_same(trip({"l": Local(5)})["l"].x, 5)
    finally:
        forget_type(Local)


@pytest.fixture
def module():
    """Make a module that a session may have loaded or not."""
    made = types.ModuleType("lab_test_module")
    source = """
import collections, dataclasses, enum
@dataclasses.dataclass
class Data: x: int
class Choice(enum.Enum): A = 1
Named = collections.namedtuple("Named", "a")
class Proto:
    def storage_prepare(self): return None, None
    @classmethod
    def storage_retrieve(cls, array, json): return cls()
"""
    sys.modules[made.__name__] = made
    exec(source, made.__dict__)
    yield made
    sys.modules.pop(made.__name__, None)


@pytest.mark.parametrize("make", ["Data(1)", "Choice.A", "Named(2)", "Proto()"])
def test_a_class_that_is_not_loaded_is_never_imported(module, make, tmp_path, monkeypatch):
    record = through(encode(eval(make, vars(module))))
    assert type(decode(record)).__module__ == module.__name__
    del sys.modules[module.__name__]
    (tmp_path / f"{module.__name__}.py").write_text("raise SystemExit('this must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Untrusted, match="import lab_test_module"):
        decode(record)


@pytest.mark.parametrize(
    "state",
    [
        {"$enum": {"class": "os:system", "name": "A"}},
        {"$dataclass": {"class": "subprocess:Popen", "fields": {}}},
        {"$namedtuple": {"class": "builtins:tuple", "fields": {}}},
        {"$enum": {"class": "builtins:object.__subclasses__", "name": "A"}},
    ],
)
def test_other_callables_of_loaded_modules_are_not_reached(state):
    with pytest.raises(Untrusted):
        decode(Record("value", {}, {CODEC_STATE: {"value": state}}, {}))
    with pytest.raises(Untrusted):
        decode(Record("object", {}, {CODEC_STATE: {"class": "subprocess:Popen"}}, {}))


@pytest.mark.parametrize("fields", ["y: int", "x: int; y: int = 1", "pass"])
def test_changed_fields_are_not_guessed(module, fields):
    record = through(encode(module.Data(1)))
    exec(f"@dataclasses.dataclass\nclass Data: {fields}", vars(module))
    with pytest.raises(Untrusted, match="fields"):
        decode(record)


def test_a_registered_enum_is_known_inside_containers_too():
    class Local(enum.Enum):
        A = 1

    with pytest.raises(NotStorable, match=r"value\[0\].*register_type"):
        encode([Local.A])
    register_type(Local, lambda member: member.name, lambda name: Local[name], kind="tests.LocalEnum")
    try:
        assert trip([Local.A]) == [Local.A]
    finally:
        forget_type(Local)


def test_a_kind_can_be_taken_only_once():
    register_type(Fit, lambda fit: 1, lambda _: None, kind="tests.Taken")
    try:
        for kind in ("tests.Taken", "value", "stream", "group"):
            with pytest.raises(ValueError, match="taken"):
                register_type(Slotted, lambda it: 1, lambda _: None, kind=kind)
        register_type(Fit, lambda fit: fit.slope, Fit, kind="tests.Taken")  # the same class, defined anew
        assert encode(Fit(2.0, None)).kind == "tests.Taken"
    finally:
        forget_type(Fit)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"value": {"$int": 5}},
        {"value": {"$unknown": 1}},
        {"value": {"$set": [[1]]}},
        {"value": {"$packed": {"array": "missing", "levels": ["list"], "of": "int"}}},
        {"value": {"$datetime": "yesterday"}},
        {"value": {"$record": {}}},
        {"text": "{"},
    ],
)
def test_damaged_values_are_corrupt(state):
    with pytest.raises(Corrupt):
        decode(Record("value", {}, {CODEC_STATE: state}, {}))


ARRAYS = {
    "scalar": np.float64(1.5),
    "structured scalar": np.array((1, 2.5), "i4,f8")[()],
    "text scalar": np.str_("ab"),
    "long double scalar": np.longdouble(1) / 3,
    "not a time": np.datetime64("NaT", "ns"),
    "no axes": np.array(5, ">i4"),
    "empty": np.zeros((2, 0, 3), "f4"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20)[::-3],
    "text": np.array(["a\0b", "", "é" * 300], np.dtypes.StringDType()),
    "text without coercion": np.array(["a"], np.dtypes.StringDType(coerce=False)),
    "masked": np.ma.masked_array([1.5, np.nan, -0.0], [True, False, True], fill_value=-1),
    "masked without mask": np.ma.masked_array([1, 2]),
    "masked no axes": np.ma.masked_array(5, True, hard_mask=True),
    "masked text": np.ma.masked_array(["a", "b"], [False, True], fill_value="-"),
    "masked structured": np.ma.masked_array(np.zeros(2, "i4,f8"), [(True, False), (False, False)]),
    "masked constant": np.ma.masked,
    "record array": np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", ">i4"), ("b", "f8")]),
    "record": np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
    "records in a plain array": np.rec.array([(1, 2)], dtype="i4,i4").view(np.ndarray),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(name):
    assert_same(trip(ARRAYS[name]), ARRAYS[name])


@settings(max_examples=100, deadline=None)
@given(strategies.arrays())
def test_any_array_comes_back(array):
    assert_same(trip(array), array)


def test_what_lies_under_a_mask_is_kept():
    masked = np.ma.masked_array([7.0, 8.0], [True, False])
    assert trip(masked).data.tobytes() == masked.data.tobytes()


def test_a_memory_map_comes_back_as_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "m", "f8", "w+", shape=3)
    assert_same(trip(mapped), np.zeros(3))


@pytest.mark.parametrize("dtype", samples.DTYPES, ids=str)
def test_scalars_of_every_type_come_back(dtype):
    for scalar in samples.array(dtype, (3,), 5):
        if isinstance(scalar, np.generic):  # (text of variable length gives str)
            assert_same(trip(scalar), scalar)
            assert_same(trip([{"a": scalar}]), [{"a": scalar}])


def test_bare_arrays_are_no_form_of_an_object():
    with pytest.raises(NotStorable):
        ArraysCodec(encode, decode).encode([1])


def test_codecs_work_without_the_others():
    assert ValueCodec().decode(ValueCodec().encode([1, (2,)])) == [1, (2,)]
    with pytest.raises(NotStorable):
        ValueCodec().encode([np.zeros(3)])
    assert ArrayCodec().decode(ArrayCodec().encode(np.int8(3))) == 3


def test_a_protocol_that_gives_something_else_is_named():
    class Odd(Spectrum):
        def storage_prepare(self):
            return 5

    globals()["Odd"] = Odd
    Odd.__qualname__ = "Odd"
    try:
        with pytest.raises(NotStorable, match=r"Odd\.storage_prepare\(\) must give"):
            encode(Odd(None, None))
    finally:
        del globals()["Odd"]


@pytest.mark.parametrize("engine", ["hdf5:HDF5Engine", "zarr:ZarrEngine"])
def test_every_sample_survives_a_file(engine, tmp_path):
    module, _, name = engine.partition(":")
    make = getattr(importlib.import_module(f"datastore_lab.engines.{module}"), name)
    samples = {("v", k): o for k, o in VALUES.items()} | {("a", k): o for k, o in ARRAYS.items()}
    samples |= {("t", k): o for k, o in TABLES.items()} | {("g", k): o for k, o in GRIDS.items()}
    store = make(str(tmp_path / "store"), "w")
    with store.transaction():
        for key, obj in samples.items():
            store.write(key, encode(obj))
    store.close()
    store = make(str(tmp_path / "store"), "r")
    for key, obj in samples.items():
        stat = store.stat(key)
        arrays = {name: store.read(key, name) for name in stat.arrays}
        dims = {name: info.dims for name, info in stat.arrays.items()}
        assert_same(decode(Record(stat.kind, arrays, stat.meta, dims)), obj, str(key))
    assert list(store.verify()) == []
    store.close()
