"""The HDF5 engine: what it keeps, what other programs see of it, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import types

import h5py
import numpy as np
import pytest
import xarray as xr

from datastore_lab import dtypes, media
from datastore_lab.engines.hdf5 import HDF5Engine, dims
from datastore_lab.errors import (
    AlreadyExists,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    NotFound,
    NotStorable,
    Untrusted,
)
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing import crash, samples


def record(value=0, **meta):
    return Record("array", {"data": np.full(4, value)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


@pytest.fixture
def engine(path):
    engine = HDF5Engine(path)
    yield engine
    engine.close()


def test_record_comes_back_after_reopening(path):
    arrays = {"signal": np.arange(12.0).reshape(4, 3), "time": np.arange(4)}
    meta = {"none": None, "one": 1, "real": 1.0, "true": True, "text": "", "list": [1, 1.0], "big": 10**30}
    with_dims = {"signal": ("time", "channel"), "time": ("time",)}
    engine = HDF5Engine(path)
    engine.write(("a", "b"), Record("table", arrays, meta, with_dims))
    engine.close()
    again = HDF5Engine(path, "r")
    stat = again.stat(("a", "b"))
    assert repr(stat.meta) == repr(meta)
    assert stat.kind == "table"
    assert {name: info.dims for name, info in stat.arrays.items()} == with_dims
    assert np.array_equal(again.read(("a", "b"), "signal", (slice(None, None, -2), 1)), [10.0, 4.0])
    again.close()


def delete_write_and_fail(engine):
    with engine.transaction():
        engine.delete(("kept",))
        engine.write(("new",), record(2))
        raise ZeroDivisionError


def test_failed_transaction_leaves_nothing(engine):
    engine.write(("kept",), record(1))
    with pytest.raises(ZeroDivisionError):
        delete_write_and_fail(engine)
    assert list(engine.keys()) == [("kept",)]
    with pytest.raises(NotFound):
        engine.stat(("new",))


def test_rows_appended_show_after_flush(engine, path):
    spec = Stat("stream", {"adc": ArrayInfo("<i2", (0, 2), ("time", "channel"), 0, None)}, {"rate": 10.0})
    stream = engine.append(("run",), spec)
    reader = HDF5Engine(path, "r")
    stream.extend({"adc": np.ones((3, 2), "i2")})
    assert reader.stat(("run",)).arrays["adc"].shape == (0, 2)
    stream.flush()
    assert reader.stat(("run",)).arrays["adc"].shape == (3, 2)
    stream.close({"done": True})
    assert reader.stat(("run",)).meta["done"] is True
    assert list(reader.verify()) == []
    reader.close()


@pytest.mark.parametrize("length", [300, 5000])
def test_long_names(engine, path, length):
    key = ("k" * length, "é" * length)
    engine.write(key, Record("array", {"a" * length: np.arange(3)}, {"m" * length: 1}, {}))
    assert list(engine.keys()) == [key]
    assert list(engine.stat(key).arrays) == ["a" * length]
    assert engine.stat(key).meta == {"m" * length: 1}


def test_plain_h5py_finds_native_types(engine, path):
    arrays = {
        "text": np.array(["µ", "ab"]),
        "when": np.array(["2026-01-01"], "M8[ns]"),
        "ok": np.array([True]),
    }
    engine.write(("item",), Record("array", arrays, {"gain": 2, "rate": 0.5, "on": True, "name": "x"}, {}))
    engine.close()
    with h5py.File(path) as file:
        node = file["item"]
        assert list(node["text"].asstr()[:]) == ["µ", "ab"]
        assert node["when"].attrs["units"] == "nanoseconds since 1970-01-01"
        assert node["ok"].dtype == bool
        found = {name: value for name, value in node.attrs.items() if name != "lab_seal"}
        assert found == {"lab_kind": "array", "gain": 2, "rate": 0.5, "on": True, "name": "x"}


def test_order_of_children_and_attributes_is_kept(engine, path):
    for name in "zebra", "ant", "bee":
        engine.write((name,), record(0, z=1, a=2, m=3))
    assert list(engine.children()) == ["zebra", "ant", "bee"]
    assert list(engine.stat(("ant",)).meta) == ["z", "a", "m"]


def test_xarray_shows_dimension_names_and_times(engine, path):
    arrays = {
        "signal": np.arange(6.0).reshape(3, 2),
        "time": np.array(["2026-01-01", "2026-01-02", "NaT"], "M8[ns]"),
        "empty": np.zeros((0, 3)),
    }
    dims = {"signal": ("time", "channel"), "time": ("time",), "empty": ("none", "x")}
    engine.write(("run", "a"), Record("xarray", arrays, {"lab_attrs": {"signal": {"units": "V"}}}, dims))
    engine.close()
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        found = tree["run/a"].to_dataset().load()
    assert found["signal"].dims == ("time", "channel")
    assert found["signal"].attrs["units"] == "V"
    assert found["empty"].sizes == {"none": 0, "x": 3}
    assert np.array_equal(found["time"].values, arrays["time"], equal_nan=True)


def test_dimensions_that_scales_cannot_say_are_kept(engine):
    arrays = {"a": np.zeros(3), "b": np.zeros(4), "x": np.zeros((2, 2))}
    dims = {"a": ("n",), "b": ("n",), "x": ("x", "y")}
    engine.write(("odd",), Record("array", arrays, {}, dims))
    assert {name: info.dims for name, info in engine.stat(("odd",)).arrays.items()} == dims
    with pytest.raises(AlreadyExists):
        engine.write(("odd", "n"), record())
    engine.write(("odd",), record())
    assert list(engine.stat(("odd",)).arrays) == ["data"]


def test_file_of_another_program_is_shown_and_kept(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("a%20b/c")
        group["values"] = np.arange(4, dtype=">i2")
        group["values"].attrs["units"] = np.bytes_(b"mV")
        group["names"] = ["x", "y"]
        group.attrs["vector"] = np.array([1.0, 2.0])
        group.attrs["reference"] = group.ref
        group.attrs["empty"] = h5py.Empty("f4")
        group.attrs["bytes"] = np.bytes_(b"abc")
        group.attrs["pair"] = np.array([(1, b"q")], [("n", "i4"), ("s", "S1")])
    engine = HDF5Engine(path, "r+")
    key = ("a%20b", "c")
    stat = engine.stat(key)
    assert list(engine.keys()) == [key]
    assert stat.kind == "arrays"
    assert stat.arrays["values"].dtype == ">i2"
    assert stat.arrays["names"].dtype == "T"
    assert engine.read(key, "names").tolist() == ["x", "y"]
    assert stat.meta["vector"] == [1.0, 2.0]
    assert stat.meta["empty"] is None
    assert stat.meta["bytes"] == "abc"
    assert stat.meta["pair"] == [{"n": 1, "s": "q"}]
    assert stat.meta["lab_attrs"] == {"values": {"units": "mV"}}
    engine.update(key, {"mine": 1})
    engine.close()
    with h5py.File(path) as file:
        assert file["a%20b/c"].attrs["reference"]
        assert list(file["a%20b/c"].attrs["vector"]) == [1.0, 2.0]
        assert file["a%20b/c"].attrs["mine"] == 1


def hostile(folder, path):
    secret = folder / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5.0)
    (folder / "raw").write_bytes(bytes(40))
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "data", (5,))
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file["external"] = h5py.ExternalLink(str(secret), "/data")
        file["soft"] = h5py.SoftLink("/good")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", (5,), "f8", external=[(str(folder / "raw"), 0, 40)])
        file["references"] = np.array([file.ref], h5py.ref_dtype)
        file["loop/inner"] = file["/"]
        file.create_dataset("huge", (10**12,), "f8", chunks=(1000,))


def test_what_leaves_the_file_is_named_and_refused(tmp_path, path):
    hostile(tmp_path, path)
    engine = HDF5Engine(path, "r")
    stat = engine.stat(())
    assert set(stat.arrays) == {"good", "huge"}
    refused = {"external", "soft", "virtual", "outside", "references"}
    assert set(stat.meta["lab_refused"]) == refused
    for name in refused - {"references"}:
        with pytest.raises(Untrusted, match=name):
            engine.read((), name)
    with pytest.raises(Foreign, match="references"):
        engine.read((), "references")
    with pytest.raises(Foreign, match="in parts"):
        engine.read((), "huge")
    assert engine.read((), "huge", (slice(0, 3),)).tolist() == [0, 0, 0]
    for key in (("external",), ("soft", "x")):
        with pytest.raises(Untrusted):
            engine.stat(key)
    assert list(engine.keys()) == [()]
    engine.close()
    writer = HDF5Engine(path, "r+")
    with pytest.raises(Foreign, match="h5repack"):
        writer.compact()
    writer.close()


@pytest.mark.parametrize("mode", ["r", "r+", "a", "w", "x"])
@pytest.mark.parametrize("content", [b"", b"some text\n" * 300, b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_file_that_is_not_a_store_stays_as_it_is(tmp_path, path, mode, content):
    path.write_bytes(content)
    before = path.read_bytes()
    replaced = mode == "w" and not content.startswith(b"some")
    if replaced:
        HDF5Engine(path, mode).close()
        assert h5py.is_hdf5(path)
    else:
        with pytest.raises((Foreign, Corrupt, AlreadyExists)):
            HDF5Engine(path, mode)
        assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["r", "r+", "a", "w", "x"])
def test_places_where_no_file_can_be(tmp_path, mode):
    for place in (tmp_path, tmp_path / "missing" / "store.h5", tmp_path / "nul\0"):
        with pytest.raises((EngineError, NotFound)):
            HDF5Engine(place, mode)
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_noticed(path, tmp_path):
    engine = HDF5Engine(path)
    engine.write(("a",), record(1))
    engine.close()
    whole = path.read_bytes()
    for size in range(8, len(whole) - 1, 97):
        path.write_bytes(whole[:size])
        for mode in ("r", "a"):
            with pytest.raises(LabError):
                HDF5Engine(path, mode)
        assert path.read_bytes() == whole[:size]
        assert list(tmp_path.iterdir()) == [path]


def test_flipped_bit_in_payload_is_found_by_verify(path):
    engine = HDF5Engine(path)
    engine.write(("a",), Record("array", {"data": np.full(1000, 77, "u1")}, {}, {}))
    engine.close()
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"M" * 1000) + 500] ^= 1
    path.write_bytes(raw)
    engine = HDF5Engine(path, "r")
    assert [(key, name) for key, name, _ in engine.verify()] == [(("a",), "data")]
    engine.close()


@pytest.mark.parametrize(
    "array", [np.ma.masked_array([1, 2], [0, 1]), np.array([object()]), np.array([{}, 1], object)]
)
def test_what_cannot_be_stored_changes_nothing(engine, path, array):
    engine.write(("a",), record(1))
    before = path.read_bytes()
    with pytest.raises(NotStorable):
        engine.write(("a",), Record("array", {"good": np.arange(3), "bad": array}, {}, {}))
    assert path.read_bytes() == before


def test_every_type_in_every_shape_bit_by_bit(engine):
    cases = itertools.product(samples.DTYPES, samples.SHAPES)
    arrays = [samples.array(dtype, shape or (1,)).reshape(shape) for dtype, shape in cases]
    with engine.transaction():
        for number, array in enumerate(arrays):
            engine.write((str(number),), Record("array", {"x": array}, {}, {}))
    for number, array in enumerate(arrays):
        found = engine.read((str(number),), "x")
        assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, True)
        assert media.checksum(found) == media.checksum(array)
        assert engine.stat((str(number),)).arrays["x"].nbytes == array.nbytes


def test_growing_text_and_times_and_structures(engine):
    columns = {
        "label": np.array(["a", "µµ"]),
        "free": np.array(["x\0y", "%00"], np.dtypes.StringDType()),
        "when": np.array([1, 2], "M8[us]"),
        "pair": np.array([(1, 2.0), (3, 4.0)], [("n", "i4"), ("v", "f8")]),
    }
    infos = {
        name: ArrayInfo(dtypes.name(rows.dtype), (0,), ("row",), 0, None) for name, rows in columns.items()
    }
    stream = engine.append(("log",), Stat("stream", infos, {}))
    for _ in range(3):
        stream.extend(columns)
    stream.close({})
    for name, rows in columns.items():
        assert engine.read(("log",), name).tolist() == rows.tolist() * 3
        assert engine.stat(("log",)).arrays[name].dtype == infos[name].dtype
    assert list(engine.verify()) == []


def test_several_streams_and_writes_between_them(engine, path):
    spec = Stat("stream", {"n": ArrayInfo("<i8", (0,), ("time",), 0, None)}, {"rate": 1e6})
    streams = [engine.append((name,), spec) for name in "abc"]
    for number in range(20):
        for stream in streams:
            stream.extend({"n": np.full(number * 1000, number)})
        engine.write((f"item {number}",), record(number))
        streams[number % 3].flush()
    for stream in streams:
        stream.close({"closed": True})
        stream.close({})
    expected = np.repeat(np.arange(20), np.arange(20) * 1000)
    for name in "abc":
        assert np.array_equal(engine.read((name,), "n"), expected)
    assert list(engine.verify()) == []
    with pytest.raises(EngineError, match="closed"):
        stream.extend({"n": np.arange(1)})


def test_compact_gives_space_back_and_keeps_all(engine, path):
    dims = {"signal": ("time", "channel"), "time": ("time",)}
    arrays = {"signal": np.ones((4, 3)), "time": np.arange(4)}
    engine.write(
        ("kept", "a"), Record("table", arrays, {"note": "x", "lab_attrs": {"time": {"units": "s"}}}, dims)
    )
    engine.write(("big",), Record("array", {"data": np.zeros(200_000)}, {}, {}))
    engine.write(("last",), record(1))
    engine.delete(("big",))
    before = crash.digest(engine)
    reader = HDF5Engine(path, "r")
    size = path.stat().st_size
    freed = engine.compact()
    assert freed > 1_500_000
    assert path.stat().st_size == size - freed
    assert crash.digest(engine) == crash.digest(reader) == before
    engine.write(("more",), record(2))
    assert ("more",) in list(reader.keys())
    reader.close()


def test_children_of_a_large_group_are_listed_without_opening_them(engine):
    with engine.transaction():
        for number in range(2000):
            engine.write(("many", str(number)), Record("array", {}, {}, {}))
    assert list(engine.children(("many",))) == [str(number) for number in range(2000)]


def test_failed_step_dooms_the_transaction_around_it(path):
    disk = crash.FailingDisk(0, errno.ENOSPC, forever=False)
    engine = HDF5Engine(path, disk=disk)
    with pytest.raises(EngineError, match="undone"):
        swallow_a_failure(engine, disk)
    assert list(engine.keys()) == []
    engine.write(("a",), record(1))
    engine.close()


def swallow_a_failure(engine, disk):
    with engine.transaction():
        engine.write(("first",), record(1))
        disk.arm()
        with contextlib.suppress(EngineError):
            engine.write(("second",), Record("array", {"data": np.zeros(100_000)}, {}, {}))
        with pytest.raises(EngineError, match="leave it"):
            engine.write(("third",), record(3))


def test_closed_store_says_so(path):
    engine = HDF5Engine(path)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.stat(())


def test_file_of_the_newest_format_opens_everywhere_after_a_crash(path):
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = np.arange(5)
    child = os.fork()
    if not child:
        HDF5Engine(path, "r+").write(("a",), record(1))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with h5py.File(path) as file:
        assert set(file) == {"x", "a"}
    HDF5Engine(path, "r+").close()
    assert not path.with_name("store.h5-journal").exists()


def test_xarray_opens_a_record_with_an_array_named_like_the_dimension_of_another(engine, path):
    arrays = {"x": np.arange(5.0), "image": np.zeros((5, 3, 4))}
    dims = {"x": ("time",), "image": ("time", "y", "x")}
    engine.write(("run",), Record("stream", arrays, {}, dims))
    assert engine.stat(("run",)).arrays["image"].dims == ("time", "y", "x")
    engine.close()
    with xr.open_datatree(path, engine="h5netcdf", phony_dims="sort") as tree:
        assert tree["run/image"].shape == (5, 3, 4)


def test_a_damaged_root_is_corrupt(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("a")
        root = h5py.h5o.get_info(file.id).addr
    raw = bytearray(path.read_bytes())
    raw[root + 4] ^= 0xFF
    path.write_bytes(raw)
    for mode in ("r", "a"):
        with pytest.raises(Corrupt, match=path.name):
            HDF5Engine(path, mode)


@pytest.mark.parametrize("tracked", [True, False])
def test_children_of_a_large_group_come_once_each_and_page_by_page(path, tracked):
    with h5py.File(path, "w", track_order=tracked) as file:
        for number in reversed(range(1000)):
            file.create_group(f"{number:03}", track_order=tracked)
    engine = HDF5Engine(path)
    names = [f"{number:03}" for number in range(1000)]
    expected = names[::-1] if tracked else names
    children = engine.children()
    first = [next(children) for _ in range(200)]
    assert first == expected[:200]
    engine.delete((expected[300],))
    engine.delete((expected[100],))
    assert [*first, *children] == [name for name in expected if name != expected[300]]
    reader = HDF5Engine(path, "r")
    left = [name for name in expected if name not in {expected[100], expected[300]}]
    assert list(reader.children()) == left
    children = reader.children()
    first = [next(children) for _ in range(200)]
    engine.delete((left[-1],))
    assert [*first, *children] == left[:-1]
    reader.close()
    engine.close()


def test_a_small_record_is_read_at_one_commit(path, engine):
    engine.write(("small",), record(1, unit="V"))
    engine.write(("large",), Record("array", {"data": np.zeros(200_000)}, {}, {}))
    reader = HDF5Engine(path, "r")
    assert repr(reader.read_whole(("small",))) == repr(
        Record("array", {"data": np.full(4, 1)}, {"unit": "V"}, {"data": ("data_0",)})
    )
    engine.write(("small",), record(2))
    found = reader.read_whole(("small",))
    assert (found.meta, found.arrays["data"].tolist()) == ({}, [2, 2, 2, 2])
    found.arrays["data"][:] = 7
    assert reader.read_whole(("small",)).arrays["data"].tolist() == [2, 2, 2, 2]
    assert reader.read_whole(("large",)) is None
    with pytest.raises(NotFound):
        reader.read_whole(("none",))
    reader.close()


def test_a_file_that_is_removed_during_a_transaction_is_missed_at_its_end(path):
    engine = HDF5Engine(path)
    engine.write(("before",), record())

    def write_and_remove():
        with engine.transaction():
            engine.write(("a",), record())
            path.rename(path.with_suffix(".moved"))
            engine.write(("b",), record())

    with pytest.raises(EngineError, match="was removed or replaced"):
        write_and_remove()
    assert list(engine.keys()) == [("before",)]
    engine.close()


def test_a_damaged_scale_is_an_error_of_ours(tmp_path, monkeypatch):
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["d"] = np.arange(3.0), np.arange(3)
        file["x"].make_scale("x")
        file["d"].dims[0].attach_scale(file["x"])

    def fail(_scale):
        raise RuntimeError("bad coordinate offset")

    monkeypatch.setattr(dims, "h5o", types.SimpleNamespace(get_info=fail))
    with contextlib.closing(HDF5Engine(path, "r")) as engine, pytest.raises(LabError):
        engine.stat(())


def test_large_arrays_begin_where_a_cache_line_does(path):
    with contextlib.closing(HDF5Engine(path, "w")) as engine:
        for number in range(5):
            engine.write((f"small {number}",), Record("array", {"data": np.arange(3.0)}, {}, {}))
            engine.write((f"large {number}",), Record("array", {"data": np.arange(20_000.0)}, {}, {}))
        found = [engine.spans((f"large {number}",))["data"].offset for number in range(5)]
    assert [offset % 64 for offset in found] == [0] * 5
    assert path.stat().st_size < 5 * 160_000 + 50_000
