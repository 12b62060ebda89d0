"""Writers: blocks and the documents of the event model, into every engine that appends."""

from __future__ import annotations

import datetime as dt
import itertools
import pathlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zarr

from datastore_lab import cli, dtypes, open_store
from datastore_lab.acquire import (
    ArrowDocumentWriter,
    CSVWriter,
    HDF5Writer,
    ParquetDocumentWriter,
    StoreWriter,
    ZarrWriter,
    documents,
)
from datastore_lab.acquire.documents import descriptor_document, plain, start_document, stop_document
from datastore_lab.errors import AlreadyExists, EngineError, NotStorable, StreamError
from datastore_lab.records import ArrayInfo, Block, Stat, Writer
from datastore_lab.registry import WRITERS

FILES = {
    "hdf5": "run.h5",
    "zarr": "run.zarr",
    "arrow": "run.arrow",
    "parquet": "run.parquet",
    "csv": "run.csv",
}


@pytest.fixture(params=["memory", *FILES])
def place(request, tmp_path):
    """A writer, and how to open afterwards what it wrote."""
    if request.param == "memory":
        store = open_store("memory://")
        yield StoreWriter(store), lambda: store
        return
    path = tmp_path / "new" / "folder" / FILES[request.param]
    writer = WRITERS.load(request.param)(path)
    yield writer, lambda: open_store(path, "r")
    writer.close()


START = {"uid": "run-1", "time": 1.7e9, "scan_id": 1, "plan_name": "count", "sample": {"name": "gold"}}
KEYS = {
    "det": {"source": "PV:det", "dtype": "number", "shape": [], "units": "V"},
    "count": {"source": "PV:n", "dtype": "integer", "shape": []},
    "open": {"source": "PV:shutter", "dtype": "boolean", "shape": []},
    "note": {"source": "user", "dtype": "string", "shape": []},
    "image": {
        "source": "PV:cam",
        "dtype": "array",
        "shape": [2, 3],
        "dtype_numpy": "<u2",
        "dims": ["y", "x"],
    },
    "spectrum": {"source": "PV:spec", "dtype": "array", "shape": [4]},
    "file": {"source": "PV:file", "dtype": "array", "shape": [100, 100], "external": "FILESTORE:"},
}
DESCRIPTOR = {
    "uid": "desc-1",
    "run_start": "run-1",
    "time": 1.7e9,
    "name": "primary",
    "data_keys": KEYS,
    "configuration": {"det": {"data": {"gain": 2}, "timestamps": {"gain": 1.0}, "data_keys": {}}},
}


def data(number: int) -> dict:
    return {
        "det": number / 3,
        "count": number,
        "open": number % 2 == 0,
        "note": f"№ {number}",
        "image": np.full((2, 3), number),
        "spectrum": [number, 1, 2, 3],
        "file": f"datum/{number}",
    }


def event(number: int) -> dict:
    stamps = dict.fromkeys(KEYS, 1.7e9)
    base = {"uid": f"event-{number}", "descriptor": "desc-1", "seq_num": number, "filled": {"file": False}}
    return {**base, "time": 1.7e9 + number / 8, "data": data(number), "timestamps": stamps}


def page(numbers) -> dict:
    rows = [data(number) for number in numbers]
    return {
        "descriptor": "desc-1",
        "uid": [f"event-{number}" for number in numbers],
        "seq_num": list(numbers),
        "time": [1.7e9 + number / 8 for number in numbers],
        "data": {name: [row[name] for row in rows] for name in KEYS},
        "timestamps": {name: [1.7e9 for _ in rows] for name in KEYS},
        "filled": {},
    }


STOP = {"uid": "stop-1", "run_start": "run-1", "time": 1.7e9 + 5, "exit_status": "success", "num_events": {}}


def check(store, key, count):
    got = store.record(key)
    numbers = np.arange(1, count + 1)
    arrays = got.arrays
    assert arrays["sequence"].tolist() == numbers.tolist()
    assert np.array_equal(
        arrays["time"].astype("i8"), (1_700_000_000 * 10**9 + numbers * 125_000_000).astype("i8")
    )
    assert np.array_equal(arrays["det"], numbers / 3)
    assert arrays["count"].dtype == np.int64
    assert arrays["open"].tolist() == [number % 2 == 0 for number in numbers]
    assert arrays["note"].tolist() == [f"№ {number}" for number in numbers]
    assert arrays["image"].dtype == np.dtype("<u2")
    assert np.array_equal(arrays["image"], np.broadcast_to(numbers[:, None, None], (count, 2, 3)))
    assert arrays["spectrum"].tolist() == [[number, 1, 2, 3] for number in numbers]
    assert arrays["file"].tolist() == [f"datum/{number}" for number in numbers]
    assert got.dims["image"] == ("time", "y", "x")
    assert got.meta["lab_attrs"]["det"] == {"units": "V"}
    assert got.meta["run"]["sample"] == {"name": "gold"}
    assert got.meta["configuration"]["det"]["data"] == {"gain": 2}
    assert got.meta["exit_status"] == "success"


def test_documents_of_the_event_model(place):
    writer, reopen = place
    assert isinstance(writer, Writer)
    writer.consume_document("start", START)
    writer.consume_document("descriptor", DESCRIPTOR)
    for number in range(1, 4):
        writer.consume_document("event", event(number))
    writer.flush()
    assert reopen().stat("primary").arrays["det"].shape == (3,)
    writer.consume_document("resource", {"uid": "x"})
    writer.consume_document("event_page", page(range(4, 9)))
    writer.consume_document("stop", STOP)
    writer.close()
    check(reopen(), "primary", 8)


def test_the_next_run_lies_beside_the_first(place):
    writer, reopen = place
    for _ in range(2):
        writer.consume_document("start", START)
        writer.consume_document("descriptor", DESCRIPTOR)
        writer.consume_document("event_page", page(range(1, 4)))
        writer.consume_document("stop", STOP)
    writer.close()
    writer.close()
    store = reopen()
    assert list(store) == ["primary", "run-0002/primary"]
    check(store, "primary", 3)
    check(store, "run-0002/primary", 3)


def test_a_run_that_never_stopped_says_so(place):
    writer, reopen = place
    writer.consume_document("start", START)
    writer.consume_document("descriptor", DESCRIPTOR)
    writer.consume_document("event", event(1))
    writer.close()
    store = reopen()
    assert store.stat("primary").meta["exit_status"] == "abort"
    assert store.record("primary").arrays["note"].tolist() == ["№ 1"]


SPEC = Stat(
    "stream",
    {
        "frame": ArrayInfo("|u1", (0, 3, 4), ("time", "y", "x"), 0, None),
        "adc": ArrayInfo("<f8", (0,), ("time",), 0, None),
    },
    {"rate": 10.0, "units": {"adc": "V"}, "device_time": True},
)


def block(first, count):
    number = np.arange(first, first + count)
    frame = np.broadcast_to(number.astype("u1")[:, None, None], (count, 3, 4))
    return Block(first, number * 10**9 + 1, {"frame": frame, "adc": number / 2}, number * 7)


def test_blocks(place):
    writer, reopen = place
    start = start_document({"who": "me"}, ["cam"])
    writer.consume_document("start", start)
    writer.consume_document("descriptor", descriptor_document("cam", SPEC, start))
    writer.write("cam", block(0, 5))
    writer.flush()
    writer.write("cam", block(7, 2))
    with pytest.raises(StreamError, match="'other' was not described; described are 'cam'"):
        writer.write("other", block(0, 1))
    ledger = {"written": 7, "device_gaps": [[5, 6]], "lost": 0}
    writer.consume_document("stop", stop_document(start, None, {"cam": ledger}))
    writer.close()
    store = reopen()
    got = store.record("cam")
    assert got.kind == "stream"
    numbers = np.array([0, 1, 2, 3, 4, 7, 8])
    assert got.arrays["sequence"].tolist() == numbers.tolist()
    assert got.arrays["time"].dtype == np.dtype("M8[ns]")
    assert got.arrays["time"].astype("i8").tolist() == (numbers * 10**9 + 1).tolist()
    assert got.arrays["device_time"].tolist() == (numbers * 7).tolist()
    assert got.arrays["adc"].tolist() == (numbers / 2).tolist()
    assert (got.arrays["frame"] == numbers[:, None, None]).all()
    assert got.meta["device_gaps"] == [[5, 6]]
    assert got.meta["run"]["metadata"] == {"who": "me"}
    assert got.meta["rate"] == 10.0
    lazy = store.lazy("cam")
    assert lazy["adc"].dims == ("time",)
    assert lazy["frame"].attrs.get("units") is None
    assert lazy["adc"].attrs["units"] == "V"
    assert lazy["time"].values[-1] == np.datetime64(8 * 10**9 + 1, "ns")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"det": "high"}, "'det'"),
        ({"image": np.zeros((3, 3))}, "shape"),
        ({"count": 1.5}, "not int64"),
        ({"count": 2**63}, "not int64"),
        ({"image": np.full((2, 3), -1)}, "uint16"),
        ({"zzz": 1}, "zzz"),
        ({"det": 2**53 + 1}, "not float64"),
        ({"det": 1j}, "complex"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_and_takes_no_other_along(change, why):
    store = open_store("memory://")
    writer = StoreWriter(store)
    writer.consume_document("start", START)
    writer.consume_document("descriptor", DESCRIPTOR)
    writer.consume_document("event", event(1))
    bad = event(2)
    bad["data"] = {**bad["data"], **change}
    with pytest.raises(StreamError, match=why):
        writer.consume_document("event", bad)
    writer.consume_document("event", event(2))
    writer.consume_document("stop", STOP)
    check(store, "primary", 2)


@pytest.mark.parametrize(
    "stamp", [{"time": float("nan")}, {"time": 1e300}, {"seq_num": "2"}, {"seq_num": 2**64}]
)
def test_an_event_without_a_usable_stamp_is_refused_and_takes_no_other_along(stamp):
    store = open_store("memory://")
    writer = StoreWriter(store)
    writer.consume_document("start", START)
    writer.consume_document("descriptor", DESCRIPTOR)
    writer.consume_document("event", event(1))
    with pytest.raises(StreamError, match=repr(next(iter(stamp.values()))).replace("+", ".")):
        writer.consume_document("event", {**event(2), **stamp})
    writer.consume_document("event", event(2))
    writer.consume_document("stop", STOP)
    check(store, "primary", 2)


@pytest.mark.parametrize("data", [{}, {"x": [1], "z": 1}, {"x": None}])
def test_a_first_event_that_does_not_show_the_layout_is_refused(data):
    writer = StoreWriter(open_store("memory://"))
    writer.consume_document("start", START)
    key = {"x": {"source": "", "dtype": "array", "shape": [-1]}}
    writer.consume_document("descriptor", {**DESCRIPTOR, "data_keys": key})
    with pytest.raises(StreamError, match="primary"):
        writer.consume_document("event", {**event(1), "data": data})


def test_a_value_beyond_a_shorter_float_is_refused():
    assert documents.fit(0.1, np.dtype("f4"), ()) == np.float32(0.1)
    assert np.isnan(documents.fit(np.nan, np.dtype("f4"), ()))
    with pytest.raises(ValueError, match="float32"):
        documents.fit(1e300, np.dtype("f4"), ())


def test_an_event_without_its_descriptor_is_refused():
    writer = StoreWriter(open_store("memory://"))
    writer.consume_document("start", START)
    with pytest.raises(StreamError, match="desc-1"):
        writer.consume_document("event", event(1))


def test_events_are_staged():
    writer = StoreWriter(open_store("memory://"))
    writer.consume_document("start", START)
    key = {"x": {"source": "", "dtype": "number", "shape": []}}
    writer.consume_document("descriptor", {**DESCRIPTOR, "data_keys": key})
    calls = []
    appender = writer._streams["primary"].appender
    plain_extend = appender.extend
    appender.extend = lambda rows: calls.append(len(rows["x"])) or plain_extend(rows)
    for number in range(20_000):
        writer.consume_document(
            "event", {"descriptor": "desc-1", "seq_num": number, "time": 0.5, "data": {"x": number}}
        )
    writer.close()
    assert sum(calls) == 20_000
    assert len(calls) < 5


@pytest.mark.parametrize(
    "make", [HDF5Writer, ZarrWriter, ArrowDocumentWriter, ParquetDocumentWriter, CSVWriter]
)
def test_a_writer_refuses_another_suffix(tmp_path, make):
    with pytest.raises(EngineError, match=r"run\.dat"):
        make(tmp_path / "sub" / "run.dat")
    assert list(tmp_path.iterdir()) == []


def test_runs_never_overwrite(place):
    writer, _reopen = place
    writer.consume_document("start", START)
    writer.consume_document("descriptor", {**DESCRIPTOR, "data_keys": {"det": KEYS["det"]}})
    other = StoreWriter(writer.store)
    with pytest.raises(AlreadyExists, match="run_name"):
        other.check(["primary"])
    other.consume_document("start", START)
    with pytest.raises(AlreadyExists):
        other.consume_document("descriptor", {**DESCRIPTOR, "data_keys": {"det": KEYS["det"]}})
    writer.close()


def test_metadata_is_json():
    given = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": pathlib.PurePosixPath("x/y"),
        "d": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "e": (1, None, True),
        "f": np.datetime64("2026-01-02"),
    }
    assert plain(given, "metadata") == {
        "a": 0.5, "b": [0, 1], "c": "x/y", "d": "2026-01-02T00:00:00+00:00", "e": [1, None, True],
        "f": "2026-01-02",
    }  # fmt: skip
    with pytest.raises(NotStorable, match=r"metadata\['x'\]"):
        plain({"x": object()}, "metadata")


def test_plain_tools_open_what_was_written(tmp_path):
    import h5py
    import pyarrow as pa
    import xarray
    import zarr

    for name in FILES.values():
        writer = WRITERS.load(next(kind for kind, file in FILES.items() if file == name))(tmp_path / name)
        start = start_document({}, ["cam"])
        writer.consume_document("start", start)
        writer.consume_document("descriptor", descriptor_document("cam", SPEC, start))
        writer.write("cam", block(0, 5))
        writer.consume_document("stop", stop_document(start, None, {"cam": {"written": 5}}))
        writer.close()
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["cam/adc"][:].tolist() == [0, 0.5, 1, 1.5, 2]
        assert file["cam/adc"].attrs["units"] == "V"
        assert file["cam/frame"].shape == (5, 3, 4)
    group = zarr.open_group(tmp_path / "run.zarr", mode="r")
    assert group["cam/adc"][:].tolist() == [0, 0.5, 1, 1.5, 2]
    table = pa.ipc.open_file(tmp_path / "run.cam.arrow").read_all()
    assert table["adc"].to_pylist() == [0, 0.5, 1, 1.5, 2]
    with xarray.open_datatree(tmp_path / "run.h5", engine="h5netcdf") as tree:
        times = tree["cam/time"].values
    assert times.dtype.kind == "M"
    assert times.astype("M8[ns]").astype("i8").tolist() == [n * 10**9 + 1 for n in range(5)]


# -- one sum per array, the same in every format ---------------------------------------------------------

ODD = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1e-310, 0.1])
ODD_ROWS = {
    "volt": ODD,
    "half": np.arange(7, dtype="f2"),
    "big": np.arange(7).astype(">i4"),
    "open": np.arange(7) % 2 == 0,
    "note": np.array(["", "a,b", '"', "ß", "line\nbreak", "a", "b"], np.dtypes.StringDType()),
    "image": np.arange(7 * 6, dtype="<u2").reshape(7, 2, 3),
    "wave": np.arange(7) * (1 - 2j),
}
ODD_SPEC = Stat(
    "stream",
    {
        name: ArrayInfo(
            dtypes.name(rows.dtype), (0, *rows.shape[1:]), ("time", "y", "x")[: rows.ndim], 0, None
        )
        for name, rows in ODD_ROWS.items()
    },
    {"rate": None, "units": {}},
)


def record_odd_rows(writer, cuts):
    writer.consume_document("start", START)
    writer.consume_document("descriptor", descriptor_document("odd", ODD_SPEC, START))
    for first, last in itertools.pairwise([0, *cuts, 7]):
        data = {name: rows[first:last] for name, rows in ODD_ROWS.items()}
        writer.write("odd", Block(first, np.arange(first, last, dtype="i8"), data))
    writer.consume_document("stop", stop_document(START, None, {"odd": {"written": 7}}))
    writer.close()


@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 6]])
def test_a_sum_per_array_agrees_across_formats_and_is_checked(place, cuts):
    writer, reopen = place
    reference = open_store("memory://")
    record_odd_rows(StoreWriter(reference), [])
    record_odd_rows(writer, cuts)
    sums = reopen().attrs("odd")["checksums"]
    assert sums == reference.attrs("odd")["checksums"]
    assert sums.keys() == {"time", "sequence", *ODD_ROWS}
    raw = np.arange(7, dtype="<i4").tobytes()
    assert sums["big"] == f"xxh3_128:{xxhash.xxh3_128_hexdigest(raw)}", "little-endian, one after another"
    texts = [text.encode() for text in ODD_ROWS["note"].tolist()]
    raw = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    assert sums["note"] == f"xxh3_128:{xxhash.xxh3_128_hexdigest(raw)}"
    assert reopen().verify() == []


@pytest.mark.parametrize("name", ["volt", "note", "image"])
def test_rows_that_are_not_those_recorded_are_found(tmp_path, name):
    """Sums of blocks are of what was put in: rows that changed before that only the stream's sum finds."""
    record_odd_rows(HDF5Writer(tmp_path / "run.h5"), [3])
    with open_store(tmp_path / "run.h5") as store:
        record = store.record("odd")
        rows = record.arrays[name].copy()
        rows[[0, 1]] = rows[[1, 0]]
        store.write("odd", record._replace(arrays={**record.arrays, name: rows}))
        (problem,) = store.verify("odd")
        assert (problem.key, problem.name) == (("odd",), name)
        assert "not those that were recorded" in problem.what
        assert cli.main(["verify", str(tmp_path / "run.h5")]) == 1
        store.repair("odd")
        assert len(store.verify()) == 1
        (step,) = store.repair("odd", accept=True)
        assert step.mended
        assert store.verify() == []


def test_a_stream_whose_writing_failed_has_no_sums(tmp_path):
    writer = HDF5Writer(tmp_path / "run.h5")
    writer.consume_document("start", START)
    writer.consume_document("descriptor", descriptor_document("odd", ODD_SPEC, START))
    with pytest.raises(NotStorable):
        writer.write("odd", Block(0, np.arange(7), {**ODD_ROWS, "volt": np.arange(6.0)}))
    writer.close()
    with open_store(tmp_path / "run.h5", "r") as store:
        assert store.attrs("odd")["checksums"] == {}
        assert store.verify() == []


# -- how rows lie in the files -------------------------------------------------------------------------


def record_frames(writer, count=1000, each=7):
    spec = Stat(
        "stream", {"x": ArrayInfo("<i4", (0, 4), ("time", "c"), 0, None)}, {"rate": None, "units": {}}
    )
    writer.consume_document("start", START)
    writer.consume_document("descriptor", descriptor_document("s", spec, START))
    rows = np.arange(4 * count, dtype="i4").reshape(count, 4) // 100
    for first in range(0, count, each):
        part = rows[first : first + each]
        writer.write("s", Block(first, np.arange(first, first + len(part)), {"x": part}))
    return rows


def finish(writer):
    writer.consume_document("stop", STOP)
    writer.close()


@pytest.mark.parametrize(("rows", "sizes"), [(300, [300, 300, 300, 100]), (1, [1] * 1000), (5000, [1000])])
def test_batches_of_arrow_have_as_many_rows_as_asked(tmp_path, rows, sizes):
    writer = ArrowDocumentWriter(tmp_path / "run.arrow", batch_rows=rows)
    expected = record_frames(writer)
    finish(writer)
    with pa.ipc.open_file(str(tmp_path / "run.s.arrow")) as file:
        found = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
    assert [size for size in found if size] == sizes
    with open_store(tmp_path / "run.arrow", "r") as store:
        assert np.array_equal(store.record("s").arrays["x"], expected)
        assert store.verify() == []


def test_a_flush_ends_a_batch_of_arrow_and_nothing_is_kept_back(tmp_path):
    writer = ArrowDocumentWriter(tmp_path / "run.arrow", 300)
    record_frames(writer, count=350)
    writer.flush()
    with open_store(tmp_path / "run.arrow", "r") as store:
        assert store.stat("s").arrays["x"].shape == (350, 4)
    finish(writer)


@pytest.mark.parametrize(("rows", "sizes"), [(300, [300, 300, 300, 100]), (5000, [1000])])
def test_row_groups_of_parquet_have_as_many_rows_as_asked(tmp_path, rows, sizes):
    writer = ParquetDocumentWriter(tmp_path / "run.parquet", row_group_rows=rows)
    expected = record_frames(writer)
    writer.flush()
    finish(writer)
    groups = pq.ParquetFile(tmp_path / "run.s.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == sizes
    with open_store(tmp_path / "run.parquet", "r") as store:
        assert np.array_equal(store.record("s").arrays["x"], expected)
        assert store.verify() == []


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd", "blosc"])
def test_chunks_of_hdf5_are_compressed_as_asked(tmp_path, compression):
    level = None if compression == "none" else 2
    writer = HDF5Writer(tmp_path / "run.h5", compression=compression, compression_level=level, chunk_size=512)
    expected = record_frames(writer, count=2000)
    finish(writer)
    with h5py.File(tmp_path / "run.h5") as file:
        dataset = file["s/x"]
        assert dataset.chunks == (512, 4)
        assert dataset.id.get_create_plist().get_nfilters() == (
            0 if compression == "none" else 1 + (compression != "blosc")
        )
        size = dataset.id.get_storage_size()
        assert (size < expected.nbytes / 4) == (compression != "none")
        assert compression != "gzip" or np.array_equal(dataset[:], expected)
    with open_store(tmp_path / "run.h5", "r") as store:
        assert np.array_equal(store.record("s").arrays["x"], expected)
        assert store.verify() == []


@pytest.mark.parametrize("compression", [None, "none", "gzip", "zstd", "blosc"])
def test_chunks_of_zarr_have_as_many_rows_as_asked(tmp_path, compression):
    writer = ZarrWriter(tmp_path / "run.zarr", chunk_size=256, compression=compression)
    expected = record_frames(writer)
    finish(writer)
    array = zarr.open_array(tmp_path / "run.zarr" / "s" / "x", mode="r")
    assert array.chunks == (256, 4)
    described = (tmp_path / "run.zarr" / "s" / "x" / "zarr.json").read_text()
    assert (f'"{compression or "zstd"}"' in described) == (compression != "none")
    assert np.array_equal(array[:], expected)
    with open_store(tmp_path / "run.zarr", "r") as store:
        assert store.verify() == []
        assert np.array_equal(store.record("s").arrays["x"], expected)


@pytest.mark.parametrize(
    ("writer", "path", "options", "error", "named"),
    [
        (HDF5Writer, "a.h5", dict(compression_level=3), ValueError, "no compression"),
        (HDF5Writer, "a.h5", dict(chunk_size=0), ValueError, "chunk_size=0"),
        (ArrowDocumentWriter, "a.arrow", dict(batch_rows=True), ValueError, "True"),
        (ZarrWriter, "a.zarr", dict(shard_size="5 s"), ValueError, "'5 s'"),
    ],
)
def test_what_can_not_be_asked_for_is_refused_before_a_file_is_made(
    writer, path, options, error, named, tmp_path
):
    with pytest.raises(error, match=named):
        writer(tmp_path / path, **options)
    assert list(tmp_path.iterdir()) == []
