"""Views that read nothing before values are asked for."""

import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from engines import WHOLE

from datastore_lab import open_store
from datastore_lab.errors import EngineError, NotFound
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.store.mapping import Store


@pytest.fixture(params=["memory://", "lab.h5", "lab.zarr"])
def store(request, tmp_path):
    with open_store(request.param if "://" in request.param else tmp_path / request.param) as opened:
        yield opened


@pytest.fixture
def reads(store, monkeypatch):
    """Every read of array data, as (key, name, selection)."""
    seen = []
    original = store.engine.read

    def read(key, name, selection=()):
        seen.append((key, name, selection))
        return original(key, name, selection)

    monkeypatch.setattr(store.engine, "read", read)
    return seen


def stream(store, key, n=100):
    spec = Stat(
        "stream",
        {
            "time": ArrayInfo("<M8[ns]", (0,), ("time",), 0, None),
            "v": ArrayInfo("<f8", (0, 4), ("time", "ch"), 0, None),
        },
        {"rate": 10.0, "units": {"v": "V"}},
    )
    appender = store.append(key, spec)
    time = np.datetime64("2026-01-01", "ns") + np.arange(n) * np.timedelta64(100, "ms")
    appender.extend({"time": time, "v": np.arange(4.0 * n).reshape(n, 4)})
    appender.flush()
    return appender


def same(lazily, original):
    """Identical but for the type of the indexes, which is how they are lazy; their labels are equal."""
    xr.testing.assert_equal(lazily, original)
    names = list(original.indexes)
    xr.testing.assert_identical(lazily.load().drop_indexes(names), original.drop_indexes(names))


def test_an_array_opens_without_a_read_and_reads_only_what_is_asked(store, reads):
    store["run/frames"] = np.arange(10 * 6 * 4).reshape(10, 6, 4)
    reads.clear()
    view = store.lazy("run/frames")
    assert isinstance(view, xr.DataArray)
    assert view.name == "frames"
    part = view[2:4, ::2, 1]
    assert part.shape == (2, 3)
    repr(view)
    assert reads == []
    assert np.array_equal(part.values, store["run/frames"][2:4, ::2, 1])
    assert reads[0][2] == (slice(2, 4, 1), slice(0, 6, 2), 1)


@pytest.mark.parametrize(
    "pick",
    [
        lambda a: a[::-1, 3],
        lambda a: a[[4, 1, 1], :],
        lambda a: a[-3:, [0, 2]],
        lambda a: a[5:2:-1],
        lambda a: a[2:2],
    ],
)
def test_every_way_of_indexing_agrees_with_numpy(store, pick):
    array = np.arange(60).reshape(10, 6)
    store["a"] = array
    assert np.array_equal(pick(store.lazy("a")).values, pick(array))


def test_a_growing_stream_is_a_dataset_with_its_time_axis(store, reads):
    appender = stream(store, "daq")
    view = store.lazy("daq")
    assert reads == []
    assert view.v.dims == ("time", "ch")
    assert view.v.attrs["units"] == "V"
    assert reads == []
    window = view.sel(time=slice("2026-01-01T00:00:01", "2026-01-01T00:00:01.5"))
    assert {name for _key, name, _selection in reads} == {"time"}
    assert np.array_equal(window.v.values, np.arange(400.0).reshape(100, 4)[10:16])
    appender.extend({"time": np.array(["2027-01-01"], "M8[ns]"), "v": np.ones((1, 4))})
    appender.flush()
    assert store.lazy("daq").sizes["time"] == 101
    appender.close({})


def test_arithmetic_and_reduction(store):
    stream(store, "daq").close({})
    view = store.lazy("daq")
    loaded = view.load()
    assert float((store.lazy("daq") + store.lazy("daq")).v.sum()) == 2 * float(loaded.v.sum())
    pd.testing.assert_index_equal(store.lazy("daq").indexes["time"], loaded.indexes["time"])
    assert store.lazy("daq").isel(time=slice(3, 5)).sel(time="2026-01-01T00:00:00.4").v.shape[-1] == 4
    assert store.lazy("daq").isel(time=3).v.shape == (4,)
    assert store.lazy("daq").rename(time="when").indexes["when"].size == 100


def test_xarray_objects_come_back_the_same(store, reads):
    array = xr.DataArray(
        np.arange(12.0).reshape(3, 4),
        {
            "wavelength": ("wavelength", [400.0, 500.0, 600.0], {"units": "nm"}),
            "label": ("pixel", list("abcd")),
        },
        ["wavelength", "pixel"],
        "counts",
        {"units": "1"},
    )
    dataset = xr.Dataset({"a": array, "b": ("wavelength", [1, 2, 3])}, attrs={"sample": "gold"})
    store["array"] = array
    store["dataset"] = dataset
    reads.clear()
    lazily = store.lazy("array"), store.lazy("dataset")
    assert reads == []
    same(lazily[0], array)
    same(lazily[1], dataset)


def test_the_tree_mirrors_the_store(store, reads):
    store["a"] = np.arange(3)
    store["b/c"] = np.arange(4)
    stream(store, "b/daq").close({})
    store["note"] = "text"
    reads.clear()
    tree = store.tree()
    assert reads == []
    assert {node.path for node in tree.subtree} == {"/", "/a", "/b", "/b/c", "/b/daq", "/note"}
    assert tree["b/daq/v"].shape == (100, 4)
    assert np.array_equal(tree["b/c/data"].values, np.arange(4))
    assert store.tree("b")["daq/v"].shape == (100, 4)


def test_conflicting_dimensions_do_not_stop_the_view(store):
    store.write(
        "x",
        Record("arrays", {"a": np.zeros(3), "b": np.zeros((4, 4))}, {}, {"a": ("n",), "b": ("n", "n")}),
    )
    view = store.lazy("x")
    assert view.a.shape == (3,)
    assert view.b.shape == (4, 4)
    assert view.b.dims == store["x"].b.dims == ("b_0", "b_1")


def test_a_view_survives_pickling_and_dask(tmp_path):
    with open_store(tmp_path / "lab.h5") as store:
        store["a"] = np.arange(1000.0)
        view = store.lazy("a")
        blob = pickle.dumps(view)
        assert len(blob) < 20_000
        assert float(pickle.loads(blob).sum()) == float(view.sum())
        assert (
            float(view.chunk({"a_0" if "a_0" in view.dims else view.dims[0]: 100}).mean().compute()) == 499.5
        )


def test_a_view_of_a_stream_keeps_its_length_while_the_stream_grows(store):
    appender = stream(store, "run", 3)
    view, other = store.lazy("run"), store.lazy("run")
    appender.extend({"time": np.zeros(2, "M8[ns]"), "v": np.zeros((2, 4))})
    appender.flush()
    assert view["v"].values.shape == (3, 4)
    assert other["v"][-1].values.tolist() == [8.0, 9.0, 10.0, 11.0]
    assert store.lazy("run")["v"].values.shape == (5, 4)


@pytest.mark.parametrize("other", [np.arange(5.0), np.arange(10), np.zeros((2, 2))])
def test_a_view_of_an_array_that_was_replaced_by_another_says_so(store, other):
    store["a"] = np.arange(10.0)
    view = store.lazy("a")
    store["a"] = other
    with pytest.raises(EngineError, match="replaced by another array"):
        view.mean().load()


@pytest.fixture(params=["memory", *WHOLE], ids=lambda case: getattr(case, "engine", case))
def anywhere(request, tmp_path):
    """A store of every engine that can be changed."""
    if request.param == "memory":
        store = open_store("memory://")
    else:
        store = Store(request.param.open(tmp_path / request.param.name))
    with store:
        yield store


def other_process(path, code, *arguments):
    """Run Python with a store that is open for writing there, if nobody else has it so."""
    run = f"import sys, pickle, numpy as np; from datastore_lab import open_store; path = sys.argv[1]; {code}"
    command = [sys.executable, "-c", run, str(path), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_view_notices_a_record_of_the_same_shape(anywhere):
    anywhere["a"] = xr.Dataset({"x": ("t", np.zeros(5)), "y": ("t", np.zeros(5))})
    view = anywhere.lazy("a")
    assert view.x.values.tolist() == [0.0] * 5
    anywhere["a"] = xr.Dataset({"x": ("t", np.ones(5)), "y": ("t", np.ones(5))})
    for array in view.y, view.isel(t=2).y:
        with pytest.raises(EngineError, match="replaced by another array"):
            array.load()
    assert anywhere.lazy("a").y.values.tolist() == [1.0] * 5


def test_a_view_notices_that_its_record_is_gone_or_another_was_moved_there(anywhere):
    anywhere["a"], anywhere["b"] = np.zeros(5), np.ones(5)
    view = anywhere.lazy("a")
    anywhere.move("a", "c")
    with pytest.raises(NotFound):
        view.copy().load()
    anywhere.move("b", "a")
    with pytest.raises(EngineError, match="replaced by another array"):
        view.copy().load()
    anywhere.delete("a")
    anywhere.move("c", "a")
    assert view.values.tolist() == [0.0] * 5


def test_a_view_stands_whatever_happens_beside_it(anywhere):
    anywhere["a"] = np.arange(5.0)
    view = anywhere.lazy("a")
    anywhere["b"] = np.zeros(5)
    anywhere["a/child"] = np.zeros(5)
    anywhere.update("a", {"note": "seen"})
    anywhere.delete("b")
    anywhere.compact()
    with pytest.raises(ZeroDivisionError), anywhere.transaction():  # noqa: PT012
        anywhere["a"] = np.zeros(5)
        raise ZeroDivisionError
    assert view.values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_view_of_a_stream_stands_until_it_is_replaced(anywhere):
    appender = stream(anywhere, "run", 3)
    views = [anywhere.lazy("run") for _ in range(30)]
    for view in views[:-4]:
        appender.extend({"time": np.zeros(2, "M8[ns]"), "v": np.zeros((2, 4))})
        appender.flush()
        assert view["v"][-1].values.tolist() == [8.0, 9.0, 10.0, 11.0]
    anywhere.update("run", {"note": "while it runs"})
    assert views[-4]["v"].values.shape == (3, 4)
    appender.close({"done": True})
    assert views[-3]["v"].values.shape == (3, 4)
    anywhere.compact()
    assert views[-2]["v"].values.shape == (3, 4)
    anywhere.delete("run")
    stream(anywhere, "run", 60).close({})
    with pytest.raises(EngineError, match="replaced by another array"):
        views[-1]["v"].load()


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_view_notices_what_another_process_writes(tmp_path, case):
    path = tmp_path / case.name
    with open_store(path) as store:
        store["a"], store["b"] = np.zeros(5), np.zeros(5)
        stream(store, "run", 3).close({})
    with open_store(path, mode="r") as store:
        a, b, run = store.lazy("a"), store.lazy("b"), store.lazy("run")
        (tmp_path / "views").write_bytes(pickle.dumps([a, b, run]))
        other_process(path, "s = open_store(path); s['a'] = np.ones(5); s.delete('run'); s.close()")
        assert b.values.tolist() == [0.0] * 5
        with pytest.raises(EngineError, match="replaced by another array"):
            a.load()
        with pytest.raises(NotFound):
            run.v.load()
    with open_store(path) as store:
        stream(store, "run", 4).close({})
    read = """
for view in pickle.load(open(sys.argv[2], 'rb')):
    try:
        print(view.load().sizes)
    except Exception as error:
        print(type(error).__name__, error)"""
    said = other_process(path, read, tmp_path / "views").splitlines()
    assert [line.startswith("EngineError") and "replaced by another" in line for line in said] == [1, 0, 1]


TICKS = {"NTFS": 100, "exFAT": 10_000_000, "FAT": 2_000_000_000}


@pytest.mark.parametrize("tick", TICKS.values(), ids=TICKS)
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_view_notices_a_change_where_files_have_coarse_times(tmp_path, monkeypatch, case, tick):
    set_time, path = os.utime, tmp_path / case.name
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000_000_001)
    monkeypatch.setattr(
        os, "utime", lambda path, ns: set_time(path, ns=tuple(at // tick * tick for at in ns))
    )
    with open_store(path) as store:
        store["a"] = np.zeros(5)
        with open_store(path, mode="r") as other:
            view = other.lazy("a")
            store["a"] = np.ones(5)
            with pytest.raises(EngineError, match="replaced by another array"):
                view.load()


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_view_notices_a_change_made_after_the_clock_was_set_back(tmp_path, case):
    path = tmp_path / case.name
    with open_store(path) as store:
        store["a"] = np.zeros(5)
    head = next((path / name for name in ("zarr.json", "lab.yaml") if (path / name).exists()), path)
    os.utime(head, (4e9, 4e9))
    with open_store(path, mode="r") as other:
        view = other.lazy("a")
        with open_store(path) as store:
            store["a"] = np.ones(5)
        os.utime(head, (3e9, 3e9))
        with pytest.raises(EngineError, match="replaced by another array"):
            view.load()


def test_reads_ask_for_the_fingerprint_only_after_a_commit(anywhere, monkeypatch):
    asked = []
    original = anywhere.engine.fingerprint
    anywhere["a"] = np.arange(50)
    view = anywhere.lazy("a")
    monkeypatch.setattr(anywhere.engine, "fingerprint", lambda key: asked.append(key) or original(key))
    assert [int(view[i]) for i in range(50)] == list(range(50))
    assert asked == []
    anywhere["b"] = 1
    assert [int(view[i]) for i in range(50)] == list(range(50))
    assert asked == [("a",)]


def test_a_view_can_be_copied(store):
    store["a"] = np.arange(3.0)
    assert store.lazy("a").copy(deep=True).values.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_another_process_reads_a_pickled_view_while_the_store_is_open_for_writing(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store["a"] = np.arange(3)
        (tmp_path / "view").write_bytes(pickle.dumps(store.lazy("a")))
        code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).values)"
        command = [sys.executable, "-c", code, str(tmp_path / "view")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[0 1 2]\n"


def test_a_tree_shows_arrays_with_slashes_in_their_names():
    store = open_store("memory://")
    store["tree"] = xr.DataTree.from_dict({"/g/h": xr.Dataset({"v": ("t", [1, 2])})})
    store.write("r", Record("arrays", {"a/b": np.arange(3)}, {}, {"a/b": ("x/y",)}))
    tree = store.tree()
    assert tree["r"]["a%2Fb"].values.tolist() == [0, 1, 2]
    assert tree["r"]["a%2Fb"].dims == ("x%2Fy",)
    assert "g.h.v" in tree["tree"]
