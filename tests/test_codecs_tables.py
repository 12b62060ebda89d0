"""Tables and grids through their codecs, and back: equal, and of the same type."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from tabular import DATASET, FRAME, GRIDS, TABLES, through, trip

from datastore_lab.objects import decode, encode
from datastore_lab.records import Record
from datastore_lab.testing import strategies
from datastore_lab.testing.equality import assert_same


@pytest.mark.parametrize("name", TABLES)
def test_frames_come_back(name):
    assert_same(trip(TABLES[name]), TABLES[name])


@pytest.mark.parametrize("column", FRAME.columns)
def test_series_come_back(column):
    assert_same(trip(FRAME[column]), FRAME[column])


INDEXES = [
    pd.Index([1, 2], name="q"),
    pd.Index([]),
    pd.Index(["a", 1], name=("x", 2)),
    pd.RangeIndex(2, 10, 3),
    pd.date_range("2026", periods=3, freq="ME"),
    pd.date_range("2026", periods=3, freq="B", tz="America/New_York"),
    pd.timedelta_range("0s", periods=2, freq="h"),
    pd.period_range("2026", periods=2, freq="Q"),
    pd.CategoricalIndex(["a", "b"], ordered=True),
    pd.MultiIndex.from_product([[1, 2], ["a"]], names=["u", None])[:1],
    pd.MultiIndex.from_arrays([[1]], names=["single"]),
]


@pytest.mark.parametrize("index", INDEXES, ids=range(len(INDEXES)))
def test_indexes_come_back(index):
    assert_same(trip(index), index)


@settings(max_examples=80, deadline=None)
@given(strategies.frames())
def test_any_frame_comes_back(frame):
    assert_same(trip(frame), frame)


@settings(max_examples=30, deadline=None)
@given(strategies.grids())
def test_any_grid_comes_back(grid):
    assert_same(trip(grid), grid)


def test_what_a_file_format_left_in_an_encoding_is_left_out():
    grid = xr.DataArray([1.0], name="v")
    grid.encoding = {"scale_factor": 0.5, "compressors": (object(),), "chunks": (1,)}
    assert trip(grid).encoding == {"scale_factor": 0.5, "chunks": (1,)}


def test_columns_are_arrays_over_the_rows():
    record = encode(pd.DataFrame({"v": [1.0, 2.0]}, index=pd.Index([5, 6], name="t")))
    assert record.dims == {"v": ("t",), "t": ("t",)}
    assert record.arrays["t"].tolist() == [5, 6]


@pytest.mark.parametrize("name", GRIDS)
def test_xarray_comes_back(name):
    assert_same(trip(GRIDS[name]), GRIDS[name])


def test_attributes_are_where_people_look():
    record = encode(DATASET)
    assert record.meta["title"] == "bench"
    assert record.meta["lab_attrs"]["v"] == {"units": "V"}


def test_a_stream_is_a_dataset():
    record = Record(
        "stream",
        {"time": np.arange(3), "v": np.zeros((3, 2)), "odd": np.zeros(5), "odd_0": np.zeros(4)},
        {"rate": 10.0, "units": {"v": "V", "odd": None}, "lab_attrs": {"v": {"gain": 2}}},
        {"time": ("time",), "v": ("time", "channel"), "odd": ("time",)},
    )
    dataset = decode(through(record))
    assert dataset.sizes["time"] == 3
    assert dataset["v"].attrs == {"units": "V", "gain": 2}
    assert dataset["odd"].shape == (5,)
    assert dataset.attrs == {"rate": 10.0}
    assert list(dataset.coords) == ["time"]
    assert decode(record._replace(kind="arrays")).identical(dataset)


def test_times_that_xarray_lacks_are_shown_as_integers():
    moments = {
        "none": np.array([1, 2]).view("M8"),
        "several": np.array([3, 4], ">m8[25s]"),
        "plain": np.zeros(2, "M8[ns]"),
    }
    far = np.array([2**62, 0]).view("M8[Y]")
    dataset = decode(through(Record("stream", {**moments, "far": far}, {}, {})))
    assert dataset["none"].attrs == {"dtype": "<M8"}
    assert dataset["several"].values.tolist() == [3, 4]
    assert dataset["several"].attrs == {"dtype": ">m8[25s]"}
    assert dataset["far"].values.tolist() == [2**62, 0]
    assert dataset["plain"].dtype == "M8[ns]"
