"""Arrow files of other programs, read as far as they hold arrays."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pytest

from datastore_lab import open_store
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.errors import (
    Corrupt,
    Foreign,
    LabError,
    NotFound,
)
from datastore_lab.streams import disk

random = np.random.default_rng(0)


def foreign(path, columns, **options):
    table = pa.table(columns)
    pyarrow.feather.write_feather(table, path, **options)
    return table


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_files_of_other_programs_are_read(tmp_path, compression):
    columns = {
        "n": pa.array([1, 2, 3], pa.int16()),
        "f": pa.array([1.5, None, 3.5]),
        "when": pa.array([1, None, 3], pa.timestamp("ms", "Europe/Berlin")),
        "day": pa.array([1, 2, 3], pa.date32()),
        "text": pa.array(["a", "b", ""], pa.large_string()),
        "pair": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float32(), 2)),
        "list": pa.array([[1], [], None], pa.list_(pa.int8())),
        "hole": pa.array([1, None, 3]),
        "flag": pa.array([True, False, True]),
    }
    foreign(tmp_path / "other.feather", columns, compression=compression)
    with open_store(tmp_path / "other.feather", "r") as opened:
        assert list(opened) == [()]
        stat = opened.stat()
        assert stat.kind == "arrays"
        assert stat.meta["lab_refused"] == ["list"]
        read = lambda name: opened.engine.read((), name)
        assert read("n").tolist() == [1, 2, 3]
        assert np.array_equal(read("f"), [1.5, np.nan, 3.5], equal_nan=True)
        assert np.isnat(read("when")).tolist() == [False, True, False]
        assert read("when").dtype == np.dtype("M8[ms]")
        assert read("day").astype("i8").tolist() == [1, 2, 3]
        assert read("text").tolist() == ["a", "b", ""]
        assert read("pair").tolist() == [[1, 2], [3, 4], [5, 6]]
        assert read("flag").tolist() == [True, False, True]
        with pytest.raises(Foreign, match="missing values"):
            read("hole")
        with pytest.raises(Foreign, match="list"):
            read("list")
        with pytest.raises(NotFound, match="only"):
            read("zzz")


def write_file(path, table, rows):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_stream(path, table, rows):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_feather(path, table, rows):
    pyarrow.feather.write_feather(table, path, compression="lz4", chunksize=rows)


@pytest.mark.parametrize("write", [write_file, write_stream, write_feather])
def test_a_part_of_another_programs_file_reads_only_the_batches_that_hold_it(tmp_path, monkeypatch, write):
    """Bytes are counted: heads of batches at the opening, then the rows, or the batches, of a selection."""
    count, each = 64_000, 4_000
    frames = random.integers(0, 255, (count, 8)).astype("u1")
    kind = pa.fixed_shape_tensor(pa.uint8(), (8,))
    columns = {
        "other": pa.array(random.random(count)),
        "cat": pa.array(["a", "b"] * (count // 2)).dictionary_encode(),
        "lists": pa.array([[1, 2]] * count),
        "gap": pa.array([None, *range(1, count)], pa.float64()),
        "n": pa.array(np.arange(count)),
        "on": pa.array(np.arange(count) % 3 == 0),
        "text": pa.array([f"row {row}" for row in range(count)]),
        "image": pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(frames.ravel(), 8)),
    }
    path = tmp_path / "other.arrow"
    write(path, pa.table(columns), each)
    size, batches = path.stat().st_size, count // each
    read: list[int] = []
    plain = disk.read
    monkeypatch.setattr(disk, "read", lambda *at: read.append(len(got := plain(*at))) or got)
    engine = ArrowEngine(path, "r")
    assert engine.stat(()).arrays["n"].shape == (count,)
    assert sum(read) < size / 10
    for name, expected in {
        "n": np.arange(count), "on": np.arange(count) % 3 == 0, "image": frames,
        "text": np.array([f"row {row}" for row in range(count)]),
    }.items():  # fmt: skip
        for begin, end in [(20_001, 20_011), (23_995, 24_005), (0, 3), (count - 1, count)]:
            read.clear()
            assert engine.read((), name, (slice(begin, end),)).tolist() == expected[begin:end].tolist()
            most = 1 + (begin // each != (end - 1) // each)
            assert sum(read) <= most * (size / batches) * 1.2
            if begin >= each and write is not write_feather:  # (in the first batch something is missing)
                assert sum(read) < 500
        assert engine.read((), name, (slice(None, None, 777),)).tolist() == expected[::777].tolist()
        assert engine.read((), name, (30_000,)).tolist() == expected[30_000].tolist()
    assert np.isnan(engine.read((), "gap", (slice(0, 2),))).tolist() == [True, False]
    assert sorted(engine.stat(()).meta["lab_refused"]) == ["cat", "lists"]
    assert list(engine.verify()) == []
    engine.close()


@pytest.mark.parametrize("write", [write_file, write_stream, write_feather])
def test_damage_in_another_programs_file_is_a_typed_error_where_it_lies(tmp_path, write):
    path = tmp_path / "other.arrow"
    write(path, pa.table({"t": ["abc"] * 3000, "n": list(range(3000))}), 1000)
    whole = path.read_bytes()
    outcomes = set()
    chance = np.random.default_rng(2)
    for cut in [*chance.integers(1, len(whole), 60), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        outcomes.add(outcome(path))
    for at in chance.integers(0, len(whole), 300):
        broken = bytearray(whole)
        broken[at] ^= 1 << int(chance.integers(8))
        path.write_bytes(broken)
        outcomes.add(outcome(path))
    assert outcomes == {"named", "read"}


def outcome(path):
    try:
        with contextlib.closing(ArrowEngine(path, "r")) as engine:
            for name in engine.stat(()).arrays:
                engine.read((), name)
            return "read"
    except LabError as error:
        return "named" if path.name in str(error) else str(error)


def test_a_permuted_tensor_of_another_program_is_turned_right(tmp_path):
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3), permutation=[1, 0])
    storage = pa.array([list(range(6)), list(range(6, 12))], pa.list_(pa.int32(), 6))
    tensors = pa.ExtensionArray.from_storage(kind, storage)
    foreign(tmp_path / "t.arrow", {"x": tensors}, compression="uncompressed")
    got = ArrowEngine(tmp_path / "t.arrow", "r").read((), "x")
    assert np.array_equal(got, tensors.to_numpy_ndarray())


@pytest.mark.parametrize(
    "content",
    [b"", b"ARROW1\0\0", b"FEA1" + bytes(50), b"\x89HDF\r\n\x1a\n", b"x" * 1000, b"ARROW1\0\0" * 40],
)
def test_what_is_no_arrow_file_is_said_to_be_none(tmp_path, content):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises((Foreign, Corrupt), match=r"a\.arrow"):
        ArrowEngine(tmp_path / "a.arrow", "r")
    assert (tmp_path / "a.arrow").read_bytes() == content
