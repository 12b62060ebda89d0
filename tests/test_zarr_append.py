"""Streams in Zarr: shards that zarr and xarray read, and that hold at every flush what they should."""

import json
import tracemalloc

import numpy as np
import pytest
import xarray
import zarr

from datastore_lab import dtypes
from datastore_lab.engines.zarr import ZarrEngine, append, shards
from datastore_lab.errors import Corrupt, EngineError, NotStorable
from datastore_lab.records import ArrayInfo, Packing, Stat

EVERY = ("none", "gzip", "zstd", "blosc")
CUTS = (1, 2, 0, 700, 5, 300, 1000, 3, 989)
ROWS = sum(CUTS)
STRUCTURE = np.dtype([("a", "i1"), ("b", "f8")])


def spec(packing, **arrays):
    infos = {
        name: ArrayInfo(dtypes.name(rows.dtype), (0, *rows.shape[1:]), _dims(name, rows), 0, None, packing)
        for name, rows in arrays.items()
    }
    return Stat("stream", infos, {"rate": None})


def _dims(name, rows):
    return ("time", *(f"{name}_{axis}" for axis in range(1, rows.ndim)))


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
        "both": structure,
        "none": np.zeros((ROWS, 0)),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.zarr"


@pytest.mark.filterwarnings("ignore")  # (of zarr's, on types that are not in the specification)
@pytest.mark.parametrize("sizes", [(4096, 12288), (None, None)], ids=["small", "usual"])
@pytest.mark.parametrize("name", EVERY)
def test_rows_of_every_kind_are_read_by_us_and_by_zarr(path, name, sizes):
    rows = rows_of_every_kind()
    engine = ZarrEngine(path)
    stream = engine.append(("run", "s"), spec(Packing(name, None, None, *sizes), **rows))
    at = 0
    for count in CUTS:
        stream.extend({name: array[at : at + count] for name, array in rows.items()})
        at += count
        stream.flush()
        for array, expected in rows.items():
            assert engine.read(("run", "s"), array).tobytes() == expected[:at].tobytes(), (array, at)
    assert np.array_equal(
        engine.read(("run", "s"), "frame", (slice(90, 2000, 7), 2)), rows["frame"][90:2000:7, 2]
    )
    stream.close({})
    assert list(engine.verify()) == []
    engine.close()
    group = zarr.open_group(path, mode="r")["run/s"]
    for array in ("frame", "volts", "big", "time", "wave", "flag"):
        assert np.array_equal(group[array][:], rows[array]), array
    assert group["frame"].shards == group["frame"].metadata.chunk_grid.chunk_shape
    with xarray.open_zarr(path, group="run/s", consolidated=False, decode_cf=False) as dataset:
        assert np.array_equal(dataset["volts"][5:3000:11], rows["volts"][5:3000:11])


def test_zarr_reads_parts_while_rows_are_added(path):
    rows = np.random.default_rng(1).integers(0, 255, (500, 30, 40)).astype("u1")
    engine = ZarrEngine(path)
    stream = engine.append(("s",), spec(Packing("zstd", chunk=1 << 14, shard=1 << 16), v=rows))
    for at in range(0, 500, 45):
        stream.extend({"v": rows[at : at + 45]})
        stream.flush()
        found = zarr.open_array(path / "s" / "v", mode="r")
        assert found.shape[0] == min(at + 45, 500)
        assert np.array_equal(found[at // 2 : at + 20], rows[at // 2 : min(at + 20, 500)])
    stream.close({})
    engine.close()
    assert len(list((path / "s" / "v").glob("c.*"))) == -(-500 // 52)


def test_what_zarr_can_not_do_is_refused_before_anything_is_written(path):
    engine = ZarrEngine(path)
    before = engine.revision()
    refused = {
        "Zarr has no compression 'lz4'; it has none, gzip, zstd, blosc": Packing("lz4"),
        "Zarr shuffles bytes with blosc only": Packing("zstd", shuffle="byte"),
        "its levels are -7 to 22": Packing("zstd", 40),
        "a shard of 7 bytes": Packing("zstd", shard=7),
    }
    for message, packing in refused.items():
        with pytest.raises(NotStorable, match=message):
            engine.append(("s",), spec(packing, v=np.zeros(0)))
    with pytest.raises(NotStorable, match="'t' is text of variable length"):
        engine.append(("s",), spec(Packing("gzip"), t=np.zeros(0, "T")))
    assert (list(engine.keys()), engine.revision()) == ([], before)
    engine.close()


@pytest.mark.parametrize("step", ["write", "commit"])
@pytest.mark.parametrize("name", EVERY)
def test_a_flush_that_failed_is_tried_again(path, name, step, monkeypatch):
    rows = np.random.default_rng(4).integers(0, 99, (30_000,))
    engine = ZarrEngine(path)
    packing = Packing(name, chunk=1 << 13, shard=1 << 15)
    stream = engine.append(("s",), spec(packing, u=rows, v=rows, w=rows))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    for at in range(0, len(rows), 3000):
        stream.extend(dict.fromkeys("uvw", rows[at : at + 2000]))
        with monkeypatch.context() as patch:
            patch.setattr(engine._session.log, step, refuse)
            for _ in range(2):
                with pytest.raises(EngineError, match="No space"):
                    stream.flush()
        assert engine.read(("s",), "v").tolist() == rows[:at].tolist()
        stream.extend(dict.fromkeys("uvw", rows[at + 2000 : at + 3000]))
        stream.flush()
        for array in "uvw":
            assert engine.read(("s",), array).tolist() == rows[: at + 3000].tolist()
    stream.close({})
    assert list(engine.verify()) == []
    engine.close()


def test_rows_are_written_without_being_asked(path, monkeypatch):
    monkeypatch.setattr(append, "_WAITING", 100_000)
    frames = np.random.default_rng(3).integers(0, 255, (100, 64, 64)).astype("u1")
    engine = ZarrEngine(path)
    packing = Packing("zstd", chunk=20_000, shard=64_000)
    stream = engine.append(("s",), spec(packing, v=frames, n=np.arange(100)))
    stream.extend({"v": frames[:33], "n": np.arange(33)})
    assert engine.stat(("s",)).arrays["v"].shape[0] == 24  # whole shards of 12 frames
    stream.extend({"v": frames[33:], "n": np.arange(33, 100)})
    stream.close({})
    assert np.array_equal(engine.read(("s",), "v"), frames)
    assert list(engine.verify()) == []
    engine.close()


def begun(path, name, rows):
    engine = ZarrEngine(path)
    stream = engine.append(("s",), spec(Packing(name, chunk=1 << 12, shard=1 << 14), v=rows))
    stream.extend({"v": rows})
    stream.close({})
    engine.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_shard_that_is_not_what_it_was_is_damage(path, name):
    rows = np.random.default_rng(7).integers(0, 50, (9000,)).astype("i4")
    begun(path, name, rows)
    file = path / "s" / "v" / "c.1"
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:100], b"", _flipped(whole, 50), _flipped(whole, len(whole) - 30)):
        file.write_bytes(broken)
        engine = ZarrEngine(path, "r")
        with pytest.raises(Corrupt, match=r"c\.1"):
            engine.read(("s",), "v")
        assert np.array_equal(engine.read(("s",), "v", (slice(8192, None),)), rows[8192:])
        assert [problem.name for problem in engine.verify()] == ["v"]
        engine.close()


def _flipped(raw, at):
    broken = bytearray(raw)
    broken[at] ^= 16
    return bytes(broken)


@pytest.mark.parametrize("name", EVERY)
def test_an_index_that_leads_elsewhere_and_chunks_that_hold_more_are_refused(name):
    """What the sum of the file would tell at once is told without it, too."""
    shard = shards.Shard(64, shards.check(Packing(name)))
    rows = np.arange(256, dtype="i4")
    good = [shards.pack(rows[at : at + 64], shard.packing) for at in range(0, 256, 64)]
    out = np.empty_like(rows)
    shards.decode(b"".join(shards.joined(good, 4)), shard, out)
    assert np.array_equal(out, rows)
    shards.decode(b"".join(shards.joined(good[:2], 4)), shard, out)
    assert out.tolist() == [*range(128), *([0] * 128)]
    bomb = shards.pack(np.zeros(1 << 22, "i4"), shard.packing)
    with pytest.raises(ValueError, match="bytes"):
        shards.decode(b"".join(shards.joined([bomb], 4)), shard, out)
    with pytest.raises(ValueError, match="checksum"):
        shards.decode(b"".join(shards.joined([_flipped(good[0], 3)], 4)), shard, out)
    far = shards.joined(good, 4)
    index = np.frombuffer(far[-2], "<u8").copy()
    index[2] = 1 << 40
    far[-2:] = [index.tobytes(), shards.crc32c(index.tobytes())]
    with pytest.raises(ValueError, match="leads out"):
        shards.decode(b"".join(far), shard, out)


def test_shards_of_another_program_are_read(path):
    rows = np.arange(10_000.0).reshape(1000, 10)
    group = zarr.open_group(path, mode="w")
    group.create_array("v", data=rows, chunks=(10, 5), shards=(100, 10))
    engine = ZarrEngine(path, "r")
    assert np.array_equal(engine.read((), "v", (slice(95, 205),)), rows[95:205])
    engine.close()


def test_what_repair_accepts_stays_a_shard(path):
    rows = np.arange(9000, dtype="i4")
    begun(path, "zstd", rows)
    file = path / "s" / "v" / "c.0"
    shard = shards.Shard(1024, shards.check(Packing("zstd")))
    chunks = [shards.pack(rows[at : at + 1024] + 1, shard.packing) for at in range(0, 4096, 1024)]
    file.write_bytes(b"".join(shards.joined(chunks, 4)))
    before = json.loads((path / "s" / "v" / "zarr.json").read_text())["codecs"]
    engine = ZarrEngine(path)
    assert all(step.mended for step in engine.repair(accept=True))
    assert list(engine.verify()) == []
    assert np.array_equal(engine.read(("s",), "v")[:4096], rows[:4096] + 1)
    engine.close()
    assert json.loads((path / "s" / "v" / "zarr.json").read_text())["codecs"] == before


@pytest.mark.parametrize("name", EVERY)
def test_memory_that_a_writer_takes(path, name):
    """What the table of formats allows a writer of one channel, whatever the chunks come to."""
    frames = np.random.default_rng(9).integers(0, 16, (16, 480, 640)).astype("u1")
    engine = ZarrEngine(path, durability="process")
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
    assert peak < 17 << 20
