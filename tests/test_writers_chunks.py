"""Arrays of many dimensions in Zarr, written chunk by chunk in any order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from datastore_lab import open_store
from datastore_lab.acquire import ZarrWriter
from datastore_lab.errors import AlreadyExists, EngineError, NotFound, NotStorable, StreamError

AXES = ["wavelength", "position", "y", "x"]
SHAPE, CHUNKS = (4, 5, 6, 7), (4, 1, 4, 7)
CUBE = np.arange(np.prod(SHAPE), dtype="u2").reshape(SHAPE)


def chunks_of(cube, chunks):
    for index in np.ndindex(*(-(-length // size) for length, size in zip(cube.shape, chunks, strict=True))):
        cut = tuple(slice(at * size, (at + 1) * size) for at, size in zip(index, chunks, strict=True))
        yield index, cube[cut]


@pytest.mark.parametrize("compression", [None, "none"])
def test_a_nested_scan_is_labelled_and_read_by_xarray_zarr_and_us(tmp_path, compression):
    path = tmp_path / "new" / "experiment.zarr"
    writer = ZarrWriter(path, compression=compression, metadata={"operator": "Ada"})
    writer.create_array("frames", SHAPE, CHUNKS, AXES, "uint16", {"units": "counts"})
    writer.create_array("wavelength", (4,), (4,), ["wavelength"], "f8", {"units": "nm"})
    writer.write_chunk("wavelength", (0,), [700, 710, 720, 730])
    for index, part in reversed(list(chunks_of(CUBE, CHUNKS))):
        writer.write_chunk("frames", index, part if index[1] else part.reshape(-1))
    writer.close()
    writer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(path)
        assert found["frames"].dims == tuple(AXES)
        assert np.array_equal(found["frames"], CUBE)
        assert found["wavelength"].values.tolist() == [700, 710, 720, 730]
    assert found.attrs["operator"] == "Ada"
    assert found["frames"].attrs == {"units": "counts", "written_chunks": 10, "missing_chunks": []}
    assert np.array_equal(zarr.open_array(path / "frames", mode="r")[:], CUBE)
    with open_store(path, "r") as store:
        assert np.array_equal(store.lazy(())["frames"], CUBE)
        assert store.verify() == []


def test_chunks_that_were_not_written_are_listed_and_read_as_missing(tmp_path):
    writer = ZarrWriter(tmp_path / "a.zarr")
    writer.create_array("x", (6, 2), (2, 2), ["t", "c"], "f4")
    writer.create_array("n", (6,), (1,), ["t"], "i4")
    writer.write_chunk("x", (1, 0), np.zeros((2, 2)))
    writer.write_chunk("n", (5,), [0])
    writer.close()
    found = xr.open_zarr(tmp_path / "a.zarr")
    assert np.isnan(found["x"].values[:2]).all()
    assert not found["x"].values[2:4].any()
    assert found["x"].attrs["missing_chunks"] == [[0, 0], [2, 2]]
    assert found["n"].attrs == {"written_chunks": 1, "missing_chunks": [[0, 4]]}
    assert not (tmp_path / "a.zarr" / "n" / "c" / "4").exists(), (
        "a chunk is there if, and only if, it was written"
    )
    assert (tmp_path / "a.zarr" / "n" / "c" / "5").exists()


@pytest.mark.parametrize("compression", [None, "none"])
def test_a_flipped_bit_in_a_chunk_is_found(tmp_path, compression):
    writer = ZarrWriter(tmp_path / "a.zarr", compression=compression)
    writer.create_array("x", (100,), (100,), ["t"], "i4")
    writer.write_chunk("x", (0,), np.arange(100))
    writer.close()
    chunk = tmp_path / "a.zarr" / "x" / "c" / "0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    with open_store(tmp_path / "a.zarr", "r") as store:
        assert [problem.name for problem in store.verify()] == ["x"]


def test_streams_may_follow_arrays_but_not_precede_them(tmp_path):
    start = {"uid": "a", "time": 0.0}
    described = {"uid": "b", "name": "s", "data_keys": {"v": {"source": "x", "dtype": "number", "shape": []}}}
    event = {"descriptor": "b", "seq_num": 1, "time": 1.0, "data": {"v": 0.5}}
    writer = ZarrWriter(tmp_path / "a.zarr")
    assert "not open yet" in repr(writer)
    writer.create_array("x", (2,), (2,), ["t"], "i4")
    for name, document in (("start", start), ("descriptor", described), ("event", event)):
        writer.consume_document(name, document)
    writer.write_chunk("x", (0,), [1, 2])
    writer.flush()
    writer.consume_document("stop", {"uid": "c", "time": 2.0, "exit_status": "success"})
    writer.close()
    with open_store(tmp_path / "a.zarr", "r") as store:
        assert store.record("s").arrays["v"].tolist() == [0.5]
        assert store.record(()).arrays["x"].tolist() == [1, 2]
        assert store.verify() == []
    writer = ZarrWriter(tmp_path / "b.zarr")
    writer.consume_document("start", start)
    writer.consume_document("descriptor", described)
    with pytest.raises(EngineError, match="arrays first"):
        writer.create_array("x", (2,), (2,), ["t"], "i4")
    writer.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("", (2,), (2,), ["t"], "i4"), "named"),
        (("../x", (2,), (2,), ["t"], "i4"), "named"),
        (("x", (2, 2), (2,), ["t"], "i4"), "go together"),
        (("x", (2, 2), (2, 2), ["t", "t"], "i4"), "go together"),
        (("x", (), (), [], "i4"), "go together"),
        (("x", (0,), (2,), ["t"], "i4"), "whole number"),
        (("x", (2,), (2.5,), ["t"], "i4"), "whole number"),
        (("x", (2,), (2,), ["t"], "S4"), "numbers"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tmp_path, arguments, named):
    writer = ZarrWriter(tmp_path / "a.zarr")
    with pytest.raises(StreamError, match=named):
        writer.create_array(*arguments)
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("y", (0, 0), np.zeros((2, 2))), NotFound, "'y'"),
        (("x", (3, 0), np.zeros((2, 2))), StreamError, r"\(3, 0\)"),
        (("x", (-1, 0), np.zeros((2, 2))), StreamError, r"\(-1, 0\)"),
        (("x", (0,), np.zeros((2, 2))), StreamError, r"\(0,\)"),
        (("x", (2, 0), np.zeros((2, 2))), StreamError, r"shape \(1, 2\)"),
        (("x", (0, 0), np.zeros((4, 1))), StreamError, r"shape \(2, 2\)"),
        (("x", (0, 0), [[1, 2], [3, 70_000]]), NotStorable, "'x'"),
        (("x", (0, 0), [[1, 2], [3, 0.5]]), NotStorable, "'x'"),
        (("x", (1, 0), np.zeros((2, 2), "u2")), AlreadyExists, r"\(1, 0\)"),
    ],
)
def test_chunks_that_do_not_fit_change_nothing(tmp_path, arguments, error, named):
    writer = ZarrWriter(tmp_path / "a.zarr")
    writer.create_array("x", (5, 2), (2, 2), ["t", "c"], "u2")
    writer.write_chunk("x", (1, 0), [[1, 2], [3, 4]])
    with pytest.raises(error, match=named):
        writer.write_chunk(*arguments)
    with pytest.raises(AlreadyExists, match="'x'"):
        writer.create_array("x", (5,), (2,), ["t"], "u2")
    writer.close()
    found = xr.open_zarr(tmp_path / "a.zarr")["x"]
    assert found.values.tolist() == [[0, 0], [0, 0], [1, 2], [3, 4], [0, 0]]
    assert found.attrs["missing_chunks"] == [[0, 0], [2, 2]]


def test_a_chunk_is_replaced_if_that_is_asked_for(tmp_path):
    writer = ZarrWriter(tmp_path / "a.zarr")
    writer.create_array("x", (2,), (2,), ["t"], "i4")
    writer.write_chunk("x", (0,), [1, 2])
    writer.write_chunk("x", (0,), [3, 4], overwrite=True)
    writer.close()
    assert xr.open_zarr(tmp_path / "a.zarr")["x"].values.tolist() == [3, 4]


CHILD = """
import sys, numpy as np
from datastore_lab.acquire import ZarrWriter
writer = ZarrWriter(sys.argv[1])
writer.create_array("x", (1000, 100, 100), (1, 100, 100), ["t", "y", "x"], "f8")
for number in range(1000):
    writer.write_chunk("x", (number, 0, 0), np.full((1, 100, 100), number))
    writer.flush()
    print(number, flush=True)
"""


def test_after_a_kill_everything_that_was_flushed_is_there(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "a.zarr"], stdout=subprocess.PIPE, text=True
    )
    acknowledged = -1
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= 20:
            os.kill(child.pid, signal.SIGKILL)
            break
    rest, _ = child.communicate(timeout=60)
    acknowledged = max([acknowledged, *map(int, rest.split())])
    with open_store(tmp_path / "a.zarr", "r") as store:
        values = store.engine.read((), "x")
        assert store.verify() == []
    assert (values[: acknowledged + 1] == np.arange(acknowledged + 1)[:, None, None]).all()
    assert np.isnan(values[acknowledged + 2 :]).all()
