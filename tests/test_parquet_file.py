"""Streams in Parquet files: spool, seal, recovery, and files of other programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_lab import dtypes, open_store
from datastore_lab.engines.parquet_file import ParquetFileEngine
from datastore_lab.engines.parquet_file import seal as seal_module
from datastore_lab.errors import Corrupt, EngineError, Foreign, Locked, NotFound
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Stat


def spec_of(arrays, meta=None):
    infos = {}
    for name, array in arrays.items():
        dims = ("time", *(f"{name}_{axis}" for axis in range(1, array.ndim)))
        infos[name] = ArrayInfo(dtypes.name(array.dtype), (0, *array.shape[1:]), dims, 0, None)
    return Stat("stream", infos, meta or {})


def store(path, arrays, meta=None, steps=3):
    engine = ParquetFileEngine(path)
    appender = engine.append(("s",), spec_of(arrays, meta))
    length = len(next(iter(arrays.values())))
    for step in range(steps):
        part = slice(length * step // steps, length * (step + 1) // steps)
        appender.extend({name: array[part] for name, array in arrays.items()})
        appender.flush()
    return engine, appender


random = np.random.default_rng(0)


def test_other_programs_open_a_sealed_file(tmp_path):
    arrays = {
        "time": np.arange(9).astype("M8[ns]"),
        "v": random.random((9, 3)),
        "text": np.array(list("abcdefghi"), np.dtypes.StringDType()),
        "image": random.integers(0, 255, (9, 20, 30)).astype("u1"),
    }
    meta = {"rate": 1.0, ARRAY_ATTRIBUTES: {"v": {"units": "V"}}}
    engine, appender = store(tmp_path / "run.parquet", arrays, meta)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.s.parquet-lock", "run.s.parquet-spool"]
    appender.close({"lost": 0})
    engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.s.parquet"]
    frame = pd.read_parquet(tmp_path / "run.s.parquet")
    assert frame["time"].dt.tz_localize(None).to_numpy().tolist() == arrays["time"].tolist()
    assert np.array_equal(np.stack(frame["v"]), arrays["v"])
    assert frame["text"].tolist() == arrays["text"].tolist()
    assert frame["image"][4] == arrays["image"][4].tobytes()
    table = pq.read_table(tmp_path / "run.s.parquet", page_checksum_verification=True)
    assert table.schema.field("v").metadata[b"units"] == b"V"
    assert pq.read_metadata(tmp_path / "run.s.parquet").row_group(0).column(1).compression == "ZSTD"
    with open_store(tmp_path / "run.parquet", "r") as opened:
        assert opened.lazy("s")["v"].attrs["units"] == "V"
        assert np.array_equal(opened.record("s").arrays["image"], arrays["image"])
        assert opened.stat("s").meta == {**meta, "lost": 0}


def test_a_killed_writer_leaves_a_spool_that_is_read_and_sealed_later(tmp_path):
    arrays = {"x": np.arange(3000.0), "m": random.random((3000, 2, 2))}
    engine, _appender = store(tmp_path / "run.parquet", arrays, {"rate": 2.0})
    left = tmp_path / "left"
    shutil.copytree(tmp_path, left, ignore=lambda folder, names: {"left"} & set(names))
    reader = ParquetFileEngine(left / "run.parquet", "r")
    for name, array in arrays.items():
        assert np.array_equal(reader.read(("s",), name), array)
    assert sorted(path.name for path in left.iterdir()) == ["run.s.parquet-lock", "run.s.parquet-spool"]
    ParquetFileEngine(left / "run.parquet", "a").close()
    assert [path.name for path in left.iterdir()] == ["run.s.parquet"]
    for name, array in arrays.items():  # the reader goes over to the sealed file
        assert np.array_equal(reader.read(("s",), name), array)
    assert reader.stat(("s",)).meta == {"rate": 2.0}
    assert list(reader.verify()) == []
    with pytest.raises(Locked, match="process"):
        ParquetFileEngine(tmp_path / "run.parquet", "a").append(("s",), spec_of(arrays))
    engine.close()


@pytest.mark.parametrize("at", ["write", "fsync", "replace", "unlink"])
def test_a_seal_that_fails_loses_nothing(tmp_path, monkeypatch, at):
    arrays = {"x": np.arange(1000)}
    engine, appender = store(tmp_path / "run.parquet", arrays)

    def fails(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    place = {
        "write": (seal_module.SummingFile, "write"),
        "fsync": (seal_module.SummingFile, "finish"),
        "replace": (seal_module.os, "replace"),
        "unlink": (seal_module.os, "unlink"),
    }[at]
    with monkeypatch.context() as patch:
        patch.setattr(*place, fails)
        with pytest.raises((EngineError, OSError), match="No space"):
            appender.close({"note": 1})
        with pytest.raises((EngineError, OSError), match="No space"):
            engine.close()
    assert (tmp_path / "run.s.parquet-spool").exists()
    reader = ParquetFileEngine(tmp_path / "run.parquet", "r")
    assert np.array_equal(reader.read(("s",), "x"), arrays["x"])
    assert reader.stat(("s",)).meta == {"note": 1}
    again = ParquetFileEngine(tmp_path / "run.parquet", "a")
    assert all(done.mended for done in again.repair())
    assert np.array_equal(again.read(("s",), "x"), arrays["x"])
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.s.parquet"]


def test_a_seal_that_failed_is_done_by_the_next_close(tmp_path, monkeypatch):
    engine, appender = store(tmp_path / "run.parquet", {"x": np.arange(1000)})
    with monkeypatch.context() as patch:
        patch.setattr(seal_module.os, "replace", refuse)
        with pytest.raises(EngineError, match="No space"):
            appender.close({"note": 1})
    appender.close({})
    engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.s.parquet"]
    reader = ParquetFileEngine(tmp_path / "run.parquet", "r")
    assert np.array_equal(reader.read(("s",), "x"), np.arange(1000))
    assert reader.stat(("s",)).meta == {"note": 1}


def refuse(*_arguments, **_options):
    raise OSError(28, "No space left on device")


def test_a_sealed_file_that_is_torn_does_not_hide_the_spool(tmp_path):
    engine, _appender = store(tmp_path / "run.parquet", {"x": np.arange(1000)})
    (tmp_path / "run.s.parquet").write_bytes(b"PAR1 torn")
    reader = ParquetFileEngine(tmp_path / "run.parquet", "r")
    assert np.array_equal(reader.read(("s",), "x"), np.arange(1000))
    engine.close()


def test_a_part_is_read_without_the_rest(tmp_path, monkeypatch):
    rows = random.random((40_000, 100))
    engine, appender = store(tmp_path / "run.parquet", {"x": rows, "y": rows[:, 0].copy()})
    appender.close({})
    engine.close()
    engine = ParquetFileEngine(tmp_path / "run.parquet", "r")
    file = engine._file(("s",))
    seen = []
    plain = type(file._source).checked
    monkeypatch.setattr(
        type(file._source), "checked", lambda self, a, b: seen.append(b - a) or plain(self, a, b)
    )
    assert np.array_equal(engine.read(("s",), "x", (slice(100, 110), 7)), rows[100:110, 7])
    assert 0 < sum(seen) < rows.nbytes / 1.5
    seen.clear()
    assert engine.stat(("s",)).arrays["x"].shape == rows.shape
    assert not seen
    assert np.array_equal(engine.read(("s",), "x", (slice(None, None, -999),)), rows[::-999])


def test_a_changed_file_is_taken_as_it_is_only_when_that_is_asked_for(tmp_path):
    engine, appender = store(tmp_path / "run.parquet", {"x": np.arange(100.0)})
    appender.close({})
    engine.close()
    path = tmp_path / "run.s.parquet"
    kept = pq.read_metadata(path).metadata
    pq.write_table(
        pq.read_table(path).replace_schema_metadata(kept), path
    )  # another program, knowing no sums
    with pytest.raises(Corrupt, match="not as it was written"):
        ParquetFileEngine(path, "r")
    engine = ParquetFileEngine(tmp_path / "run.parquet")
    assert not any(done.mended for done in engine.repair())
    assert all(done.mended for done in engine.repair(accept=True))
    assert engine.read(("s",), "x").tolist() == list(range(100))
    assert engine.stat(("s",)).meta == {}
    assert list(engine.verify()) == []
    engine.close()


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_files_of_other_programs_are_read(tmp_path, compression):
    columns = {
        "n": pa.array([1, 2, 3], pa.int16()),
        "f": pa.array([1.5, None, 3.5]),
        "when": pa.array([1, None, 3], pa.timestamp("ms", "Europe/Berlin")),
        "day": pa.array([1, 2, 3], pa.date32()),
        "text": pa.array(["a", "b", ""]),
        "pair": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
        "list": pa.array([[1], [], None], pa.list_(pa.int8())),
        "struct": pa.array([{"a": 1, "b": 2}] * 3),
        "money": pa.array([1, 2, 3], pa.decimal128(5, 2)),
        "hole": pa.array([1, None, 3]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "a.b": pa.array([7, 8, 9]),
        "a": pa.array([True, False, True]),
    }
    pq.write_table(pa.table(columns), tmp_path / "other.parquet", compression=compression)
    with open_store(tmp_path / "other.parquet", "r") as opened:
        read = lambda name: opened.engine.read((), name)
        assert list(opened) == [()]
        assert opened.stat().kind == "arrays"
        assert opened.stat().meta["lab_refused"] == ["list", "struct", "money"]
        assert read("n").tolist() == [1, 2, 3]
        assert np.array_equal(read("f"), [1.5, np.nan, 3.5], equal_nan=True)
        assert np.isnat(read("when")).tolist() == [False, True, False]
        assert read("day").astype("i8").tolist() == [1, 2, 3]
        assert read("text").tolist() == ["a", "b", ""]
        assert read("pair").tolist() == [[1, 2], [3, 4], [5, 6]]
        assert read("kind").tolist() == ["x", "y", "x"]
        assert read("a.b").tolist() == [7, 8, 9]
        assert read("a").tolist() == [True, False, True]
        with pytest.raises(Foreign, match="missing values"):
            read("hole")
        with pytest.raises(Foreign, match="list"):
            read("list")
        with pytest.raises(NotFound, match="only"):
            read("zzz")


def test_a_frame_of_pandas(tmp_path):
    index = pd.date_range("2026-01-01", periods=5, tz="UTC", name="t")
    frame = pd.DataFrame({"x": np.arange(5.0), "c": pd.Categorical(list("abcab"))}, index)
    frame.to_parquet(tmp_path / "frame.parquet")
    with open_store(tmp_path / "frame.parquet", "r") as opened:
        arrays = opened.record(()).arrays
        assert arrays["x"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["c"].tolist() == list("abcab")
        assert arrays["t"].astype("M8[D]").astype(str).tolist() == [f"2026-01-0{day}" for day in range(1, 6)]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"x" * 1000, b"PAR1" * 50])
def test_what_is_no_parquet_file_is_said_to_be_none(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises((Foreign, Corrupt), match=r"a\.parquet"):
        ParquetFileEngine(tmp_path / "a.parquet", "r")
    assert (tmp_path / "a.parquet").read_bytes() == content


def test_what_unpacks_into_too_much_is_refused(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.zeros(60_000_000, "u1").view("u1")}), tmp_path / "bomb.parquet")
    pq.write_table(
        pa.table({"x": np.zeros(60_000_000, "f8")}), tmp_path / "big.parquet", row_group_size=1 << 26
    )
    assert ParquetFileEngine(tmp_path / "bomb.parquet", "r").read((), "x", (slice(3),)).tolist() == [0, 0, 0]
    with pytest.raises(EngineError, match="unpacks"):
        ParquetFileEngine(tmp_path / "big.parquet", "r").read((), "x", (slice(3),))


MUTATIONS = """
import sys, pathlib, random
from datastore_lab.engines.parquet_file import ParquetFileEngine
from datastore_lab.errors import LabError
path = pathlib.Path(sys.argv[1]); whole = path.read_bytes(); chance = random.Random(int(sys.argv[2]))
for _ in range(400):
    broken = bytearray(whole)
    for _ in range(chance.choice([1, 1, 4, 30])):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    path.write_bytes(broken[: chance.choice([len(broken), len(broken), chance.randrange(len(broken))])])
    try:
        engine = ParquetFileEngine(path, "r")
        for key in engine.keys():
            for name in engine.stat(key).arrays:
                engine.read(key, name)
        list(engine.verify())
    except LabError:
        pass
print("alive")
"""


@pytest.mark.parametrize("ours", [True, False])
def test_no_mutated_file_ends_the_process(tmp_path, ours):
    path = tmp_path / "run.s.parquet"
    if ours:
        engine, appender = store(tmp_path / "run.parquet", {"x": random.random((40, 3)), "n": np.arange(40)})
        appender.close({"a": 1})
        engine.close()
    else:
        pq.write_table(pa.table({"x": random.random(40), "t": ["text"] * 40, "l": [[1, 2]] * 40}), path)
    command = [sys.executable, "-c", MUTATIONS, str(path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "alive" in done.stdout


@pytest.mark.parametrize("call", ["lstat", "isfile", "open"])
def test_a_reader_finds_a_stream_that_is_sealed_while_it_looks(tmp_path, monkeypatch, call):
    """Between any two looks at the file system the spool may become a Parquet file."""
    engine = ParquetFileEngine(tmp_path / "run.parquet")
    info = ArrayInfo("<i8", (0,), ("t",), 0, None)
    appender = engine.append(("s",), Stat("stream", {"x": info}, {}))
    appender.extend({"x": np.arange(5)})
    appender.flush()
    reader = ParquetFileEngine(tmp_path / "run.parquet", "r")
    if call == "open":  # it has looked before
        assert reader.read(("s",), "x").tolist() == list(range(5))
    place = os.path if call == "isfile" else os
    plain, left = getattr(place, call), [1]

    def late(path, *args, **options):
        ours = str(path).startswith(str(tmp_path / "run.s.parquet"))
        try:
            if call == "open" and ours and left:
                left.clear()
                appender.close({})
            return plain(path, *args, **options)
        finally:
            if ours and left:
                left.clear()
                appender.close({})

    monkeypatch.setattr(place, call, late)
    assert reader.read(("s",), "x").tolist() == list(range(5))
    assert not left
    monkeypatch.undo()
    engine.close()
