"""Content: what is equal has equal digests, what differs in anything that counts has not."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import functools
import ipaddress
import operator
import os
import random
import re
import sys
import tracemalloc
import types
import uuid
import warnings
import zoneinfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from datastore_lab.cache import CacheWarning, cached, sources
from datastore_lab.cache.hashing import hexdigest
from datastore_lab.cache.walk import Walk, digest
from datastore_lab.errors import NotStorable


def mk(k):
    def a(x):
        return x + k

    return a


class Cyclic:
    def __init__(self, x):
        self.x, self.me = x, self


class List(list):
    pass


class Array(np.ndarray):
    pass


class Float(float):
    pass


def with_attrs(frame):
    frame.attrs["u"] = 1
    return frame


DIFFERENT = {
    "multiindex": lambda: (
        pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (1, "b")])),
        pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (1, "c")])),
    ),
    "tz": lambda: (
        pd.Series(pd.date_range("2020", periods=2, tz="UTC")),
        pd.Series(pd.date_range("2020", periods=2, tz="Europe/Paris")),
    ),
    "int64 na": lambda: (pd.Series([1, None], dtype="Int64"), pd.Series([1, 0], dtype="Int64")),
    "mixed obj2": lambda: (pd.Series([1, "a"], dtype=object), pd.Series([True, "a"], dtype=object)),
    "period": lambda: (
        pd.Series(pd.period_range("2020", periods=2, freq="M")),
        pd.Series(pd.period_range("2020", periods=2, freq="Q")),
    ),
    "interval": lambda: (
        pd.IntervalIndex.from_breaks([0, 1, 2]),
        pd.IntervalIndex.from_breaks([0, 1, 2], closed="left"),
    ),
    "sparse": lambda: (pd.Series([0, 0, 1], dtype="Sparse[int]"), pd.Series([0, 0, 2], dtype="Sparse[int]")),
    "cat order": lambda: (pd.Categorical(["a", "b"], ordered=True), pd.Categorical(["a", "b"])),
    "index name": lambda: (
        pd.Series([1], index=pd.Index([0], name="x")),
        pd.Series([1], index=pd.Index([0])),
    ),
    "series name": lambda: (pd.Series([1], name="x"), pd.Series([1])),
    "str None vs nan": lambda: (pd.Series(["a", None], dtype=object), pd.Series(["a", np.nan], dtype=object)),
    "attrs": lambda: (with_attrs(pd.DataFrame({"a": [1]})), pd.DataFrame({"a": [1]})),
    "bool vs uint8": lambda: (np.array([True]), np.array([1], "u1")),
    "endian": lambda: (np.arange(3, dtype=">f8"), np.arange(3, dtype="<f8")),
    "empty shapes": lambda: (np.zeros((0, 3)), np.zeros((0, 4))),
    "0-d vs scalar": lambda: (np.array(1.0), np.float64(1.0)),
    "struct": lambda: (np.zeros(2, [("a", "f8"), ("b", "i4")]), np.zeros(2, [("b", "f8"), ("a", "i4")])),
    "datetime64": lambda: (np.array(["2020"], "M8[D]"), np.array(["2020"], "M8[Y]")),
    "stringdtype": lambda: (
        np.array(["a", "bb"], np.dtypes.StringDType()),
        np.array(["ab", "b"], np.dtypes.StringDType()),
    ),
    "ma": lambda: (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    "U": lambda: (np.array(["a", "b"]), np.array(["a", "c"])),
    "xr attrs": lambda: (xr.DataArray([1], attrs={"a": 1}), xr.DataArray([1])),
    "xr dims": lambda: (xr.DataArray([[1]], dims=("a", "b")), xr.DataArray([[1]], dims=("b", "a"))),
    "xr coord vs var": lambda: (xr.Dataset({"a": 1}, coords={"b": 2}), xr.Dataset({"b": 2}, coords={"a": 1})),
    "xr multi": lambda: (
        xr.DataArray(
            np.zeros(2), dims="x", coords={"x": pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=["p", "q"])}
        ),
        xr.DataArray(
            np.zeros(2), dims="x", coords={"x": pd.MultiIndex.from_tuples([(1, 2), (3, 5)], names=["p", "q"])}
        ),
    ),
    "xr tree": lambda: (
        xr.DataTree.from_dict({"/a": xr.Dataset({"v": 1})}),
        xr.DataTree.from_dict({"/b": xr.Dataset({"v": 1})}),
    ),
    "closures": lambda: (mk(1), mk(2)),
    "2 closures list": lambda: ([mk(1), mk(2)], [mk(2), mk(1)]),
    "cyclic obj2": lambda: (Cyclic(1), Cyclic(2)),
    "list sub": lambda: (List([1]), List([2])),
    "list sub2": lambda: (List([1]), [1]),
    "arr sub": lambda: (np.zeros(2).view(Array), np.ones(2).view(Array)),
    "float sub": lambda: (Float(1), Float(2)),
}

EQUAL = {
    "dup columns": lambda: (
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
    ),
    "mixed obj": lambda: (
        pd.Series([1, "a", None, 2.5], dtype=object),
        pd.Series([1, "a", None, 2.5], dtype=object),
    ),
    "pyarrow str": lambda: (pd.Series(["a", "b"], dtype="string"), pd.Series(["a", "b"], dtype="string")),
    "slice of str": lambda: (pd.Series(["z", "a", "b"])[1:].reset_index(drop=True), pd.Series(["a", "b"])),
    "empty df": lambda: (pd.DataFrame(), pd.DataFrame()),
    "nested struct sub": lambda: (np.zeros(2, [("a", "f8", (2,))]), np.zeros(2, [("a", "f8", (2,))])),
    "xr dask": lambda: (xr.DataArray(np.zeros(4)).chunk(2), xr.DataArray(np.zeros(4))),
    "closures=": lambda: (mk(1), mk(1)),
    "cyclic obj": lambda: (Cyclic(1), Cyclic(1)),
}

OBJECTS = [
    ("dt", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.date(2020, 1, 1)),
    ("dec", decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    ("frac", fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    ("uuid", uuid.UUID(int=1), uuid.UUID(int=2)),
    ("re", re.compile("a"), re.compile("a", re.I)),
    ("deque", collections.deque([1]), collections.deque([1], 5)),
    ("dd", collections.defaultdict(int), collections.defaultdict(list)),
    ("od", collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    ("ip", ipaddress.ip_address("1.1.1.1"), ipaddress.ip_address("1.1.1.2")),
    ("zi", zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("Europe/Paris")),
    ("getter", operator.itemgetter(1), operator.itemgetter(2)),
    ("ns", types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    ("arr", array.array("i", [1]), array.array("i", [2])),
    ("rnd", random.Random(1), random.Random(2)),
    ("fs", frozenset("ab"), set("ab")),
    ("range", range(3), range(4)),
    ("exc", ValueError("a"), ValueError("b")),
    ("cm", collections.ChainMap({1: 2}), collections.ChainMap({1: 3})),
    ("time", dt.timedelta(1), dt.timedelta(2)),
    ("ud", collections.UserDict(a=1), collections.UserDict(a=2)),
    ("type", int, float),
    ("gen", list[int], list[str]),
]


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(name):
    one, other = DIFFERENT[name]()
    assert digest(one) != digest(other)


@pytest.mark.parametrize("name", EQUAL)
def test_equal(name):
    one, other = EQUAL[name]()
    assert digest(one) == digest(other)


@pytest.mark.parametrize(("name", "one", "other"), OBJECTS, ids=[name for name, *_ in OBJECTS])
def test_objects(name, one, other):
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a.reshape(2000, 2000).T,
        lambda a: a.reshape(1, 2000, 2000)[:, ::2],
        lambda a: a.reshape(2, 1000, 2000)[:, :, ::2],
        lambda a: np.broadcast_to(a[:2000], (2000, 2000)),
        lambda a: a[::-1],
    ],
)
def test_large_arrays_are_not_copied(cut):
    array = cut(np.arange(4e6))
    tracemalloc.start()
    found = digest(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert found == digest(np.ascontiguousarray(array))


def test_the_version_of_numpy_is_no_content(monkeypatch):
    before = digest(np.arange(3)), digest([pd.Series([1])])
    monkeypatch.setattr(sources, "distribution", lambda module: (module, "another"))
    assert (digest(np.arange(3)), digest([pd.Series([1])])) == before


def test_a_plain_value_is_digested_as_by_a_walk():
    for value in (1, "a", None, 2.5, b"x", True):
        assert digest(value) == hexdigest(Walk().hasher.encode(value, "value"))


def test_a_compiled_local_module_counts_by_its_file(tmp_path, monkeypatch):
    file = tmp_path / "compiled.so"
    file.write_bytes(b"one")
    module = types.ModuleType("compiled")
    module.__file__, module.work = str(file), abs
    monkeypatch.setitem(sys.modules, "compiled", module)
    before = digest(module)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert digest(module) != before
    file.unlink()
    with pytest.raises(NotStorable, match="the code of compiled"):
        digest(module)


def test_a_property_that_a_function_fills_is_no_change_of_its_argument():
    class Model:
        @functools.cached_property
        def first(self):
            return 1

        @functools.cached_property
        def second(self):
            return 2

    model = Model()
    one, two = cached(lambda m: m.first), cached(lambda m: m.first + m.second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [one(model), two(model), two(model)] == [1, 3, 3]
    assert two._core.counts == {"hits": 1, "misses": 1}
    with pytest.warns(CacheWarning, match="changes its argument 'm' in place"):
        cached(lambda m: m.__dict__.update(third=3))(model)
