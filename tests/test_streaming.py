"""Channels of a card, written block by block into several formats at once."""

from __future__ import annotations

import subprocess
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from datastore_lab import open_store
from datastore_lab.acquire.channels import ChannelConfig, CompressionType, StorageFormat
from datastore_lab.acquire.streaming import StreamWriter
from datastore_lab.errors import AlreadyExists, NotStorable, StreamError

CHANNELS = [ChannelConfig(0, "AI0", -10.0, 10.0), ChannelConfig(3, "lamp", 0.0, 5.0, "mW")]
ROWS = np.linspace(-9, 9, 2000).reshape(1000, 2)
ALL = [StorageFormat.BOTH, StorageFormat.ZARR, StorageFormat.PARQUET, StorageFormat.CSV]


def write_all(writer, rows=ROWS, each=90):
    for start in range(0, len(rows), each):
        writer.write(rows[start : start + each])


def test_every_format_holds_the_same_with_the_same_sums(tmp_path):
    metadata = {"operator": "Ada", "gain": 2}
    with StreamWriter(
        tmp_path / "data.h5", CHANNELS, "100 kS/s", storage_format=ALL, metadata=metadata
    ) as writer:
        write_all(writer)
    assert [path.name for path in writer.paths] == [
        "data.h5", "data.arrow", "data.zarr", "data.parquet", "data.csv",
    ]  # fmt: skip
    sums = []
    for path in writer.paths:
        with open_store(path, "r") as store:
            record = store.record("daq")
            assert np.array_equal(record.arrays["AI0"], ROWS[:, 0])
            assert np.array_equal(record.arrays["lamp"], ROWS[:, 1])
            assert record.arrays["sequence"].tolist() == list(range(1000))
            assert set(np.diff(record.arrays["time"]).astype(int)) == {10_000}
            assert record.meta["units"] == {"AI0": "V", "lamp": "mW"}
            assert record.meta["lab_attrs"]["lamp"]["units"] == "mW"
            assert record.meta["channels"][1]["range"] == [0.0, 5.0]
            assert record.meta["run"]["metadata"] == metadata
            assert record.meta["exit_status"] == "success"
            assert record.meta["written"] == 1000
            assert store.verify() == []
            sums.append(record.meta["checksums"])
    assert sums.count(sums[0]) == 5


def test_the_guide_is_understood(tmp_path):
    """The predecessor's options by its names, HDF5 and Arrow at once, as plain tools see them."""
    with StreamWriter(
        output_path=tmp_path / "data.h5",
        channels=[ChannelConfig(0, "AI0", -10.0, 10.0)],
        sample_rate=100_000.0,
        storage_format=StorageFormat.BOTH,
        compression=CompressionType.GZIP,
        compression_level=5,
        chunk_size=1024,
        flush_interval=1.0,
    ) as writer:
        write_all(writer, np.zeros(5000))
    with h5py.File(tmp_path / "data.h5") as file:
        dataset = file["daq/AI0"]
        assert (dataset.compression, dataset.compression_opts, dataset.chunks) == ("gzip", 5, (1024,))
        assert dataset.attrs["units"] == "V"
        assert not dataset[:].any()
    with pa.ipc.open_file(str(tmp_path / "data.daq.arrow")) as file:
        assert file.read_all()["AI0"].to_pylist() == [0.0] * 5000
        assert {file.get_batch(number).num_rows for number in range(file.num_record_batches)} <= {
            0,
            904,
            1024,
        }


@pytest.mark.parametrize(
    ("path", "formats", "names"),
    [
        ("run", StorageFormat.HDF5, ["run.h5"]),
        ("run.hdf5", "both", ["run.hdf5", "run.arrow"]),
        ("run.v2", ["zarr", "csv"], ["run.v2.zarr", "run.v2.csv"]),
        ("run.arrow", "hdf5", ["run.h5"]),
        ("run.csv", ["csv", "csv"], ["run.csv"]),
    ],
)
def test_files_are_named_after_their_formats(tmp_path, path, formats, names):
    with StreamWriter(tmp_path / "new" / path, CHANNELS, 10, storage_format=formats) as writer:
        writer.write(ROWS[:2])
    assert [found.name for found in writer.paths] == names


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i2"])
def test_samples_come_as_tables_lists_or_by_name(tmp_path, dtype):
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 10, dtype=dtype) as writer:
        writer.write([[1, 2], [3, 4]])
        writer.write({"lamp": np.array([6]), "AI0": [5]})
        writer.write(np.empty((0, 2), dtype))
    with open_store(tmp_path / "a.h5", "r") as store:
        assert store.record("daq").arrays["AI0"].tolist() == [1, 3, 5]
        assert store.record("daq").arrays["lamp"].tolist() == [2, 4, 6]
        assert store.stat("daq").arrays["lamp"].dtype == dtype


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros(3), StreamError),
        (np.zeros((3, 3)), StreamError),
        (np.zeros((3, 2, 1)), StreamError),
        ({"AI0": [1]}, StreamError),
        ({"AI0": [1], "lamp": [1, 2]}, StreamError),
        ([[0.5, 1.5]], NotStorable),
        ([[40_000, 0]], NotStorable),
        ([["a", "b"]], NotStorable),
    ],
)
def test_samples_that_are_none_of_these_channels_change_nothing(tmp_path, samples, error):
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 10, dtype="<i2", storage_format="both") as writer:
        writer.write([[1, 2]])
        with pytest.raises(error):
            writer.write(samples)
        writer.write([[3, 4]])
    for path in writer.paths:
        with open_store(path, "r") as store:
            assert store.record("daq").arrays["AI0"].tolist() == [1, 3]
            assert store.verify() == []


def test_lost_samples_are_noted_as_gaps(tmp_path):
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 1000, storage_format="both") as writer:
        writer.write(ROWS[:10], time=1_700_000_000_000_000_000)
        writer.write(ROWS[:5], first=30)
        with pytest.raises(StreamError, match="sample 34"):
            writer.write(ROWS[:5], first=34)
        writer.write(ROWS[:1])
    for path in writer.paths:
        with open_store(path, "r") as store:
            record = store.record("daq")
            assert record.meta["gaps"] == [[10, 29]]
            assert record.arrays["sequence"].tolist() == [*range(10), *range(30, 36)]
            elapsed = (record.arrays["time"].astype("i8") - 1_700_000_000_000_000_000).tolist()
            assert elapsed == [number * 1_000_000 for number in (*range(10), *range(30, 36))]


def test_times_may_be_given_for_each_sample(tmp_path):
    times = np.array(["2026-01-25T14:32:45.5", "2026-01-25T14:32:47"], "M8[ms]")
    with StreamWriter(tmp_path / "a.csv", CHANNELS, 1, storage_format="csv") as writer:
        writer.write(ROWS[:2], time=times)
        writer.write(ROWS[:2], time=times.astype("M8[ns]").view("i8") + 10**9)
        with pytest.raises(StreamError, match="times"):
            writer.write(ROWS[:2], time=times[:1])
    frame = pd.read_csv(tmp_path / "a.daq.csv")
    assert frame["time"].iloc[0].startswith("2026-01-25T14:32:45.5")
    assert list(frame) == ["time", "sequence", "AI0", "lamp"]


def test_without_times_the_clock_of_the_computer_counts(tmp_path):
    before = time.time_ns()
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 1000) as writer:
        writer.write(ROWS[:100])
    with open_store(tmp_path / "a.h5", "r") as store:
        times = store.record("daq").arrays["time"].astype("i8")
    assert abs(int(times[-1]) - before) < 5e9


def test_samples_at_the_limits_are_counted(tmp_path):
    rows = np.array([[-10, 1.0], [10, 1], [9.9, 5], [11, np.nan], [np.nan, -1]])
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 10) as writer:
        writer.write(rows)
    with open_store(tmp_path / "a.h5", "r") as store:
        assert store.attrs("daq")["at_limits"] == {"AI0": 3, "lamp": 2}


LOOK = """
import sys
from datastore_lab import open_store
print(open_store(sys.argv[1], "r").stat("daq").arrays["AI0"].shape[0])
"""


def test_what_is_flushed_is_read_by_others_meanwhile(tmp_path):
    options = {"storage_format": ALL, "flush_interval": "100 ms"}
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 10, **options) as writer:
        writer.write(ROWS)
        time.sleep(1.0)
        for path in writer.paths:
            command = [sys.executable, "-c", LOOK, path]
            seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            assert int(seen.stdout) == 1000, path


def test_nothing_is_overwritten_or_made_beside_a_name_that_is_taken(tmp_path):
    with StreamWriter(tmp_path / "a.arrow", CHANNELS, 10, storage_format="arrow") as writer:
        writer.write(ROWS[:5])
    with pytest.raises(AlreadyExists, match="daq"):
        StreamWriter(tmp_path / "a.h5", CHANNELS, 10, storage_format="both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.daq.arrow"]
    with StreamWriter(tmp_path / "a.h5", CHANNELS, 10, storage_format="both", name="second"):
        pass
    with open_store(tmp_path / "a.arrow", "r") as store:
        assert sorted(store) == ["daq", "second"]


def test_an_error_in_the_block_is_noted_in_the_files(tmp_path):
    writer = StreamWriter(tmp_path / "a.h5", CHANNELS, 10)

    def record():
        with writer:
            writer.write(ROWS[:5])
            raise RuntimeError("lamp broke")

    with pytest.raises(RuntimeError):
        record()
    with open_store(tmp_path / "a.h5", "r") as store:
        meta = store.attrs("daq")
        assert (meta["exit_status"], meta["reason"]) == ("fail", "lamp broke")
        assert store.verify() == []
    with pytest.raises(StreamError, match="closed"):
        writer.write(ROWS[:5])
    writer.close()


def test_one_file_that_fails_ends_all_and_keeps_what_was_flushed(tmp_path, monkeypatch):
    writer = StreamWriter(tmp_path / "a.h5", CHANNELS, 10, storage_format="both", flush_interval="1 h")
    writer.write(ROWS[:5])
    writer.flush()
    broken = writer._writers[writer.paths[1]]

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, "write", fail)
    with pytest.raises(StreamError, match=r"a\.arrow: .*No space left"):
        writer.write(ROWS[5:9])
    with pytest.raises(StreamError, match="No space left"):
        writer.write(ROWS[5:9])
    with pytest.raises(StreamError, match="No space left"):
        writer.flush()
    writer.close()
    for path in writer.paths:
        with open_store(path, "r") as store:
            assert store.attrs("daq")["exit_status"] == "fail"
            assert len(store.record("daq").arrays["AI0"]) >= 5


def test_a_flush_that_fails_in_the_background_is_raised_at_the_next_call(tmp_path, monkeypatch):
    writer = StreamWriter(tmp_path / "a.h5", CHANNELS, 10, flush_interval="20 ms")
    writer.write(ROWS[:5])

    def fail():
        raise OSError(5, "Input/output error")

    (only,) = writer._writers.values()
    with monkeypatch.context() as patched:
        patched.setattr(type(only), "flush", lambda _self: fail())
        writer._flusher.join(10)
    with pytest.raises(StreamError, match="Input/output error"):
        writer.write(ROWS[:5])
    writer.close()


def test_a_program_that_ends_without_closing_closes_its_streams(tmp_path):
    script = """
import sys, numpy as np
from datastore_lab.acquire.channels import ChannelConfig
from datastore_lab.acquire.streaming import StreamWriter
writer = StreamWriter(sys.argv[1], [ChannelConfig(0, "AI0", -1.0, 1.0)], 10, flush_interval="1 h")
writer.write(np.zeros(7))
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.h5"], check=True, timeout=60)
    with open_store(tmp_path / "a.h5", "r") as store:
        assert store.stat("daq").arrays["AI0"].shape == (7,)
        assert "checksums" in store.attrs("daq")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(channels=[]), "channels need names"),
        (dict(channels=[CHANNELS[0], CHANNELS[0]]), "AI0"),
        (dict(sample_rate=0), "above 0"),
        (dict(sample_rate="5 s"), "'5 s'"),
        (dict(dtype="S3"), "S3"),
        (dict(chunk_size=0), "chunk_size=0"),
        (dict(storage_format=[]), "one format"),
        (dict(storage_format="xls"), "xls"),
        (dict(compression="rar"), "rar"),
        (dict(compression="gzip", storage_format="arrow"), r"a\.arrow"),
        (dict(compression="gzip", compression_level=3, storage_format=["csv", "parquet"]), "gzip"),
        (dict(flush_interval="1 MB"), "1 MB"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_a_file_is_made(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        StreamWriter(**{"output_path": tmp_path / "a.h5", "channels": CHANNELS, "sample_rate": 10, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [(0, "AI0", 1.0, 1.0), (0, "AI0", 0.0, float("inf")), (0, "", 0.0, 1.0), (0, "time", 0.0, 1.0)],
)
def test_channels_that_are_none(arguments):
    with pytest.raises(ValueError, match=r"range|named"):
        ChannelConfig(*arguments)
