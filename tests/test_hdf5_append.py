"""Streams in HDF5 files: packed chunks that any HDF5 reads, and that hold at every flush what they should."""

import tracemalloc

import h5py
import hdf5plugin  # noqa: F401 (makes the filters known to h5py)
import numpy as np
import pytest

from datastore_lab import dtypes
from datastore_lab.engines.hdf5 import HDF5Engine, append, columns, pages, szip
from datastore_lab.errors import Corrupt, EngineError, NotStorable
from datastore_lab.records import ArrayInfo, Packing, Stat
from datastore_lab.testing import crash

EVERY = ("none", "gzip", "szip", "lz4", "zstd", "blosc")
CUTS = (1, 2, 0, 700, 5, 300, 1000, 3, 989)
ROWS = sum(CUTS)
STRUCTURE = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def spec(packing, **arrays):
    infos = {
        name: ArrayInfo(dtypes.name(rows.dtype), (0, *rows.shape[1:]), _dims(rows), 0, None, packing)
        for name, rows in arrays.items()
    }
    return Stat("stream", infos, {"rate": None})


def _dims(rows):
    return tuple(["time", "y", "x"][: rows.ndim])


def rows_of_every_kind():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 40, (ROWS, 4, 16))
    structure = np.zeros(ROWS, STRUCTURE)
    structure["b"] = np.arange(ROWS) * 0.5
    return {
        "frame": counts.astype("u1"),
        "volts": np.cumsum(counts[:, :, 0], 0) * 0.25,
        "big": counts[:, 0, 0].astype(">i2"),
        "time": np.arange(ROWS).astype("M8[ns]"),
        "wave": counts[:, 0, :3] * (1 + 2j),
        "flag": counts[:, 0, :5] > 20,
        "name": np.array([f"nr {number}" for number in range(ROWS)]),
        "both": structure,
        "none": np.zeros((ROWS, 0)),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


@pytest.mark.parametrize("size", [4096, 1 << 20])
@pytest.mark.parametrize("name", EVERY)
def test_rows_of_every_kind_are_read_by_us_and_by_h5py(path, name, size):
    rows = rows_of_every_kind()
    if name == "szip":
        rows = {array: values for array, values in rows.items() if array not in {"wave", "name", "both"}}
    engine = HDF5Engine(path)
    stream = engine.append(("run", "s"), spec(Packing(name, chunk=size), **rows))
    at = 0
    for count in CUTS:
        stream.extend({name: array[at : at + count] for name, array in rows.items()})
        at += count
        stream.flush()
        for array, expected in rows.items():
            assert engine.read(("run", "s"), array).tobytes() == expected[:at].tobytes(), (array, at)
    stream.close({})
    assert list(engine.verify()) == []
    engine.compact()
    assert list(engine.verify()) == []
    engine.close()
    with h5py.File(path) as file:
        for array, expected in rows.items():
            found = file["run/s"][array]
            if array == "name":
                assert found.asstr()[:].tolist() == expected.tolist()
            else:
                assert found[()].tobytes() == expected.tobytes(), array
        assert file["run/s/frame"].id.get_create_plist().get_nfilters() == (name != "none")
        assert file["run/s/volts"].shuffle == (name in {"gzip", "lz4", "zstd"})


def test_szip_where_its_library_is_not_found(path, monkeypatch):
    """HDF5 does it then, and everything else is the same."""
    monkeypatch.setattr(szip, "library", lambda: None)
    monkeypatch.setattr(columns.Chunked, "add", None)
    test_rows_of_every_kind_are_read_by_us_and_by_h5py(path, "szip", 4096)


def test_szip_packs_as_hdf5_does(path):
    rows = np.random.default_rng(8).integers(90, 120, (64, 4, 16)).astype("u1")
    engine = HDF5Engine(path)
    stream = engine.append(("s",), spec(Packing("szip", chunk=4096), v=rows))
    stream.extend({"v": rows})
    stream.close({})
    engine.close()
    with h5py.File(path, "r+") as file:
        mine = file["s/v"]
        options = {"chunks": mine.chunks, "compression": "szip", "compression_opts": ("nn", szip.PIXELS)}
        other = file.create_dataset("by hand", data=rows, **options)
        assert mine.id.read_direct_chunk((0, 0, 0)) == other.id.read_direct_chunk((0, 0, 0))


def test_gzip_needs_no_plugin(path):
    engine = HDF5Engine(path)
    engine.append(("s",), spec(Packing("gzip", 4), v=np.zeros((0, 5)))).close({})
    engine.close()
    with h5py.File(path) as file:
        assert (file["s/v"].compression, file["s/v"].compression_opts) == ("gzip", 4)


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd", "blosc"])
def test_a_chunk_that_fills_up_little_by_little_leaves_no_room_dead(path, name):
    rows = np.random.default_rng(1).integers(0, 16, (60_000,)).astype("u1")
    engine = HDF5Engine(path, durability="process")
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 14), v=rows))
    for at in range(0, len(rows), 250):
        stream.extend({"v": rows[at : at + 250]})
        stream.flush()
    stream.close({})
    with h5py.File(path) as file:
        packed = file["s/v"].id.get_storage_size()
    assert path.stat().st_size - packed < 40_000
    if name in {"gzip", "zstd"}:
        assert packed < 0.75 * rows.nbytes
    assert engine.read(("s",), "v").tolist() == rows.tolist()
    engine.close()


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_chunk_that_outgrows_its_room_moves_and_is_counted_as_dead(path, name):
    engine = HDF5Engine(path)
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 16), v=np.zeros(0, "u1")))
    parts = [np.zeros(10_000, "u1"), np.random.default_rng(2).integers(0, 255, 90_000).astype("u1")]
    for part in parts:
        stream.extend({"v": part})
        stream.flush()
    stream.close({})
    assert engine.read(("s",), "v").tolist() == np.concatenate(parts).tolist()
    assert list(engine.verify()) == []
    engine.close()
    with h5py.File(path) as file:
        assert file.attrs["lab_dead"] > 0


def test_what_hdf5_can_not_do_is_refused_before_anything_is_written(path):
    engine = HDF5Engine(path)
    before = engine.revision()
    refused = {
        "HDF5 has no compression 'lzma'; it has none, gzip": Packing("lzma"),
        "HDF5 has no shards": Packing("gzip", shard=1 << 20),
        "its levels are 1 to 9": Packing("gzip", 40),
    }
    for message, packing in refused.items():
        with pytest.raises(NotStorable, match=message):
            engine.append(("s",), spec(packing, v=np.zeros(0)))
    for dtype in ("c16", "S3", "U2", "f2,i4"):
        with pytest.raises(NotStorable, match=r"'v' is .*; choose gzip"):
            engine.append(("s",), spec(Packing("szip"), v=np.zeros(0, dtype)))
    with pytest.raises(NotStorable, match="'t' is text of variable length"):
        engine.append(("s",), spec(Packing("gzip"), t=np.zeros(0, "T")))
    assert (list(engine.keys()), engine.revision()) == ([], before)
    engine.close()


def test_rows_are_written_without_being_asked(path, monkeypatch):
    monkeypatch.setattr(append, "_WAITING", 100_000)
    frames = np.random.default_rng(3).integers(0, 255, (100, 64, 64)).astype("u1")
    for name, written in {"none": 28, "gzip": 32}.items():  # whole chunks of 4 frames
        engine = HDF5Engine(path, "w")
        stream = engine.append(("s",), spec(Packing(name, chunk=20_000), v=frames, n=np.arange(100)))
        stream.extend({"v": frames[:33], "n": np.arange(33)})
        assert engine.stat(("s",)).arrays["v"].shape[0] == written
        stream.extend({"v": frames[33:], "n": np.arange(33, 100)})
        stream.close({})
        assert np.array_equal(engine.read(("s",), "v"), frames)
        assert list(engine.verify()) == []
        engine.close()


class Full(crash.RecordingDisk):
    """A disk that can be full for a while."""

    full = False

    def write(self, handle, view, at):
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(handle, view, at)


@pytest.mark.parametrize("name", EVERY)
def test_a_flush_that_failed_is_tried_again(path, name):
    rows = np.random.default_rng(4).integers(0, 99, (30_000,))
    disk = Full()
    engine = HDF5Engine(path, disk=disk)
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 14), v=rows))
    for at in range(0, len(rows), 3000):
        stream.extend({"v": rows[at : at + 2000]})
        disk.full = True
        for _ in range(2):
            with pytest.raises(EngineError, match="No space"):
                stream.flush()
        assert engine.read(("s",), "v").tolist() == rows[:at].tolist()
        disk.full = False
        stream.extend({"v": rows[at + 2000 : at + 3000]})
        stream.flush()
        assert engine.read(("s",), "v").tolist() == rows[: at + 3000].tolist()
    stream.close({})
    assert list(engine.verify()) == []
    engine.close()


@pytest.mark.parametrize("name", ["none", "gzip", "zstd"])
def test_every_crash_leaves_what_was_flushed(tmp_path, name, monkeypatch):
    """Partial chunks are written again, or filled in place, while the rows before them count."""
    rows = np.random.default_rng(5).integers(0, 50, (3000, 2))
    disk, folder = crash.RecordingDisk(), tmp_path / "states"
    engine = HDF5Engine(tmp_path / "store.h5", disk=disk)
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 13), v=rows))
    disk.mark("done", 0)
    lengths = [0]
    for count in (1, 10, 400, 90, 1, 700, 300, 2, 1496):
        stream.extend({"v": rows[lengths[-1] : lengths[-1] + count]})
        lengths.append(lengths[-1] + count)
        disk.mark("begun", len(lengths) - 1)
        stream.flush()
        disk.mark("done", len(lengths) - 1)
    engine.close()
    folder.mkdir()
    seen = 0
    for state in crash.states(disk.events, seed=6, share=0.5):
        if "done" not in state.marks:
            continue
        crash.put(state.files, folder)
        allowed = lengths[state.marks["done"] : state.marks.get("begun", 0) + 1]
        again = HDF5Engine(folder / "store.h5", "a")
        found = again.read(("s",), "v")
        assert len(found) in allowed, state.how
        assert np.array_equal(found, rows[: len(found)]), state.how
        assert list(again.verify()) == []
        again.close()
        seen += 1
    assert seen > 50


def test_rows_are_filled_in_without_a_copy_of_what_was_there(path, monkeypatch):
    kept = []
    monkeypatch.setattr(pages.PagedFile, "_keep", _noting(kept, pages.PagedFile._keep))
    engine = HDF5Engine(path, durability="process")
    stream = engine.append(("s",), spec(None, v=np.zeros(0, "u1")))
    stream.extend({"v": np.ones(1000, "u1")})
    stream.flush()
    kept.clear()
    stream.extend({"v": np.ones(900_000, "u1")})
    stream.flush()
    assert 0 < sum(kept) < 20
    engine.close()


def _noting(kept, keep):
    def noted(paged, numbers):
        numbers = list(numbers)
        kept.append(len(numbers))
        keep(paged, numbers)

    return noted


@pytest.mark.parametrize("name", ["gzip", "szip", "lz4", "zstd", "blosc"])
@pytest.mark.parametrize("how", ["bomb", "flipped", "cut"])
def test_a_chunk_that_is_not_what_it_was_is_damage(path, name, how):
    rows = np.random.default_rng(7).integers(0, 50, (5000,)).astype("i4")
    engine = HDF5Engine(path)
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 12), v=rows))
    stream.extend({"v": rows})
    stream.close({})
    engine.close()
    with h5py.File(path, "r+") as file:
        dataset = file["s/v"].id
        mask, raw = dataset.read_direct_chunk((1024,))
        dataset.write_direct_chunk((1024,), _spoiled(raw, name, how), mask)
    engine = HDF5Engine(path, "r")
    with pytest.raises(Corrupt, match="rows 1024 to 2047"):
        engine.read(("s",), "v")
    assert np.array_equal(engine.read(("s",), "v", (slice(2048, None),)), rows[2048:])
    assert [problem.name for problem in engine.verify()] == ["v"]
    engine.close()


def _spoiled(raw, name, how):
    if how == "bomb":
        import zlib

        from datastore_lab import packing

        zeros = np.zeros(1 << 24, "u1")
        if name == "szip":
            return (1 << 30).to_bytes(4, "little") + raw[4:]
        return zlib.compress(zeros) if name == "gzip" else bytes(packing.pack(zeros, Packing(name, 1)))
    if how == "cut":
        return raw[: len(raw) // 2]
    broken = bytearray(raw)
    broken[len(raw) // 2] ^= 16
    return bytes(broken)


@pytest.mark.parametrize("name", EVERY)
def test_memory_that_a_writer_takes(path, name):
    """What the table of formats allows a writer of one channel, whatever the chunks come to."""
    frames = np.random.default_rng(9).integers(0, 16, (16, 480, 640)).astype("u1")
    engine = HDF5Engine(path, durability="process")
    stream = engine.append(("s",), spec(Packing(name), v=frames))
    stream.extend({"v": frames[:1]})
    stream.flush()
    tracemalloc.start()
    try:
        for _ in range(8):
            stream.extend({"v": frames})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    stream.close({})
    engine.close()
    assert peak < 11 << 20
