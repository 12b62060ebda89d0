"""CSV export: every table of a store, with units and attributes, as other programs read it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

from datastore_lab import open_store
from datastore_lab.errors import AlreadyExists, EngineError, NotFound, NotStorable
from datastore_lab.formats import export_csv
from datastore_lab.formats.exporting import exportable
from datastore_lab.records import ArrayInfo, Stat

TIMES = np.array(["2026-01-25T14:32:45.000000001", "NaT", "1969-12-31T23:59:59"], "M8[ns]")
VOLTS = np.array([0.1, np.nan, -1e300])


@pytest.fixture(params=["memory", "lab.h5", "lab.zarr"])
def store(request, tmp_path):
    with open_store("memory://" if request.param == "memory" else tmp_path / request.param) as made:
        yield made


def put_stream(store, key="run/daq"):
    infos = {
        "time": ArrayInfo("<M8[ns]", (0,), ("time",), 0, None),
        "volt": ArrayInfo("<f8", (0,), ("time",), 0, None),
        "wave": ArrayInfo("<i2", (0, 2), ("time", "channel"), 0, None),
        "note": ArrayInfo("T", (0,), ("time",), 0, None),
    }
    meta = {
        "rate": 10.0,
        "units": {"volt": "V"},
        "operator": "Ada\nL.",
        "lab_attrs": {"wave": {"units": "mV"}},
    }
    appender = store.append(key, Stat("stream", infos, meta))
    notes = np.array(['say "hi", all', "ß", "two\nlines"], np.dtypes.StringDType())
    appender.extend(
        {"time": TIMES, "volt": VOLTS, "wave": np.arange(6, dtype="i2").reshape(3, 2), "note": notes}
    )
    appender.close({"exit_status": "success"})
    return notes


def test_a_recording_becomes_a_table_that_others_read(store, tmp_path):
    notes = put_stream(store)
    path = export_csv(store, tmp_path / "daq.csv", "run/daq")
    frame = pd.read_csv(path)
    assert list(frame) == ["time", "volt", "wave[0]", "wave[1]", "note"]
    assert np.array_equal(frame["volt"].to_numpy(), VOLTS, equal_nan=True)
    assert np.array_equal(frame["time"].to_numpy().astype("M8[ns]"), TIMES, equal_nan=True)
    assert frame["note"].tolist() == notes.tolist()
    assert pl.read_csv(path)["wave[1]"].to_list() == [1, 3, 5]
    known = json.loads((tmp_path / "daq.csv-metadata.json").read_text())
    assert known["@context"] == "http://www.w3.org/ns/csvw"
    assert known["url"] == "daq.csv"
    columns = {column["titles"]: column for column in known["tableSchema"]["columns"]}
    assert columns["volt"] == {"titles": "volt", "datatype": "double", "schema:unitText": "V"}
    assert columns["wave[1]"]["schema:unitText"] == "mV"
    assert columns["time"]["datatype"] == "dateTime"
    (about,) = known["notes"]
    assert (about["item"], about["rows"], about["kind"]) == (["run", "daq"], 3, "stream")
    assert about["attributes"]["operator"] == "Ada\nL."
    assert not [name for name in about["attributes"] if name.startswith("lab_")]


def test_metadata_as_comments(store, tmp_path):
    put_stream(store)
    path = export_csv(store.group("run"), tmp_path / "daq.csv", "daq", metadata="comments")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("daq")] == ["daq.csv"]
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[len(head)] == "time,volt,wave[0],wave[1],note"
    assert "# item: run/daq" in head
    assert "# unit of volt: V" in head
    assert "# unit of wave: mV" in head
    assert r'# attribute operator: "Ada\nL."' in head
    assert np.array_equal(pd.read_csv(path, comment="#")["volt"], VOLTS, equal_nan=True)


def test_without_metadata_there_is_the_table_only(store, tmp_path):
    store["a"] = np.arange(3)
    export_csv(store, tmp_path / "a.csv", "a", metadata="none")
    assert (tmp_path / "a.csv").read_text() == "data\n0\n1\n2\n"
    assert not (tmp_path / "a.csv-metadata.json").exists()


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (np.array([[1, 2], [3, 4]]), "data[0],data[1]\n1,2\n3,4\n"),
        (np.zeros((1, 2, 2), "u1"), "data[0][0],data[0][1],data[1][0],data[1][1]\n0,0,0,0\n"),
        (np.array([True, False]), "data\ntrue\nfalse\n"),
        (np.array([1.5 - 2j]), "data\n1.5-2j\n"),
        (np.array([(1, 2.5)], [("n", "i4"), ("x", ">f8")]), "data.n,data.x\n1,2.5\n"),
        (np.array([]), "data\n"),
        (np.ma.array([1.5, 2.5], mask=[False, True]), "data\n1.5\n\"\"\n"),
        (pd.DataFrame({"x": [1, 2], "label": ["a", None]}), 'x,label\n1,a\n2,\n'),
        (pd.Series([0.1], pd.Index(["b"], name="who"), name="x"), "who,x\nb,0.1\n"),
        (
            pd.DataFrame({"t": np.array(["2026-01-01T00:00:00", "2026-01-01T00:00:00.5"], "M8[us]")}),
            "t\n2026-01-01T00:00:00.000000\n2026-01-01T00:00:00.500000\n",
        ),
        (
            pd.DataFrame({"t": pd.DatetimeIndex(["2026-01-01", None], tz="+01:00").as_unit("us")}),
            "t\n2025-12-31T23:00:00.000000Z\n\"\"\n",
        ),
        (
            xr.DataArray(np.eye(2), {"t": [10, 20], "c": ["u", "v"]}, ["t", "c"], name="m"),
            None,
        ),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_things_that_are_tables(thing, text, store, tmp_path):
    store["thing"] = thing
    path = export_csv(store, tmp_path / "thing.csv", "thing")
    if text is not None:
        assert path.read_text() == text
        return
    lines = path.read_text().splitlines()
    assert sorted(lines[0].split(",")) == ["m[0]", "m[1]", "t"]
    assert len(lines) == 3
    about = json.loads((tmp_path / "thing.csv-metadata.json").read_text())["notes"][0]
    assert about["coordinates"] == {"c": ["u", "v"]}


def test_units_of_xarray_variables(store, tmp_path):
    store["x"] = xr.Dataset({"p": ("t", [1.0], {"units": "Pa"})}, {"t": [0]})
    path = export_csv(store, tmp_path / "x.csv", "x", metadata="comments")
    assert "# unit of p: Pa" in path.read_text()


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        ({"gain": 2.0}, "'value', which is no table"),
        (np.float64(1), "no table"),
        (np.zeros((2, 200, 200)), "16384 columns"),
        (xr.Dataset({"a": (("t", "u"), np.eye(2)), "b": (("v", "t"), np.eye(2))}), "no table"),
    ],
    ids=["value", "scalar", "image", "two ways"],
)
def test_things_that_are_none_are_refused_before_anything_is_written(thing, named, store, tmp_path):
    store["thing"] = thing
    with pytest.raises(NotStorable, match=named):
        export_csv(store, tmp_path / "thing.csv", "thing")
    assert not (tmp_path / "thing.csv").exists()
    tables, others = exportable(store)
    assert tables == []
    assert [key for key, _why in others] == [("thing",)]


def test_nothing_is_overwritten_unasked(store, tmp_path):
    store["a"], store["b"] = np.arange(2), np.arange(3)
    export_csv(store, tmp_path / "a.csv", "a")
    with pytest.raises(AlreadyExists, match=r"a\.csv"):
        export_csv(store, tmp_path / "a.csv", "b")
    assert (tmp_path / "a.csv").read_text() == "data\n0\n1\n"
    export_csv(store, tmp_path / "a.csv", "b", overwrite=True)
    assert (tmp_path / "a.csv").read_text() == "data\n0\n1\n2\n"
    (tmp_path / "c.csv-metadata.json").touch()
    with pytest.raises(AlreadyExists, match="metadata"):
        export_csv(store, tmp_path / "c.csv", "b")
    assert not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_export_that_is_stopped_leaves_what_was_there(error, store, tmp_path):
    store["a"] = np.arange(3_000_000)
    (tmp_path / "a.csv").write_text("before")

    def stop(done, rows):
        assert 0 < done < rows
        raise error

    with pytest.raises(error):
        export_csv(store, tmp_path / "a.csv", "a", overwrite=True, progress=stop)
    assert (tmp_path / "a.csv").read_text() == "before"
    assert {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("lab.")} == {"a.csv"}


def test_rows_are_counted_as_they_are_written(tmp_path):
    with open_store("memory://") as store:
        store["a"] = np.arange(1_200_000)
        told = []
        path = export_csv(store, tmp_path / "a.csv", "a", progress=lambda *step: told.append(step))
        assert told[-1] == (1_200_000, 1_200_000)
        assert len(told) > 1
        assert np.array_equal(pd.read_csv(path)["data"], np.arange(1_200_000))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("no.csv", "nothing"), NotFound, "nothing"),
        (("no/folder/a.csv", "a"), EngineError, "can't be written"),
    ],
)
def test_what_goes_wrong_is_named(arguments, error, named, store, tmp_path):
    store["a"] = np.arange(3)
    with pytest.raises(error, match=named):
        export_csv(store, tmp_path / arguments[0], arguments[1])
    with pytest.raises(ValueError, match="'json'"):
        export_csv(store, tmp_path / "a.csv", "a", metadata="json")
