"""Every flipped bit of an HDF5 store is found, and hides nothing but the item that it is in."""

from __future__ import annotations

import random
import struct

import h5py
import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing.crash import digest

MB = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.h5"


def text(*items):
    return np.array(items, np.dtypes.StringDType())


def fill(path):
    """Write something of every form in which data lies in a file."""
    draw = np.random.default_rng(3)
    engine = HDF5Engine(path)
    engine.write(("small",), Record("array", {"data": draw.random(20)}, {"unit": "V", "n": 3}, {}))
    engine.write(("wide", "a"), Record("table", {f"c{n}": draw.random(30) for n in range(12)}, {}, {}))
    big = {"x": draw.random((3000, 50)), "time": np.arange(3000)}
    engine.write(("big",), Record("xarray", big, {"note": "µ" * 30}, {"x": ("time", "c"), "time": ("time",)}))
    engine.write(("text",), Record("array", {"t": text(*(str(n) * 9 for n in range(40)))}, {"l": [1, 2]}, {}))
    spec = Stat(
        "stream",
        {
            "v": ArrayInfo("<f8", (0, 2), ("time", "c"), 0, None),
            "s": ArrayInfo("T", (0,), ("time",), 0, None),
        },
        {"rate": 10.0},
    )
    stream = engine.append(("run",), spec)
    for _ in range(3):
        stream.extend({"v": draw.random((5000, 2)), "s": text(*["event"] * 5000)})
        stream.flush()
    stream.close({"done": True})
    engine.update((), {"title": "bench"})
    whole = {key: content(engine, key) for key in engine.keys()}  # noqa: SIM118 (an engine is no mapping)
    engine.close()
    return whole


def content(engine, key):
    stat = engine.stat(key)
    arrays = {name: engine.read(key, name).tolist() for name in stat.arrays}
    return repr(
        (stat.kind, stat.meta, {name: (i.dtype, i.shape, i.dims) for name, i in stat.arrays.items()}, arrays)
    )


def outcome(path, whole):
    """Say whether a flip was noticed; fails if anything is silently wrong."""
    try:
        engine = HDF5Engine(path, "r")
    except LabError:
        return True
    try:
        return _look_around(engine, whole)
    finally:
        engine.close()


def _look_around(engine, whole):
    noticed = False
    try:
        assert set(engine.keys()) >= whole.keys()
        assert engine.stat(()).meta == {"title": "bench"}
    except Corrupt:
        noticed = True
    for key, expected in whole.items():
        try:
            assert content(engine, key) == expected, f"{key} is silently wrong"
        except Corrupt:
            noticed = True
    try:
        found = bool(list(engine.verify()))
    except Corrupt:
        found = True
    assert found or not noticed, "verify overlooked what reading met"
    return noticed


def flips(path, count, seed):
    raw, draw = path.read_bytes(), random.Random(seed)
    for _ in range(count):
        at = draw.randrange(len(raw))
        damaged = bytearray(raw)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        yield at
    path.write_bytes(raw)


def test_no_flipped_bit_is_silently_wrong(path):
    whole = fill(path)
    assert sum(outcome(path, whole) for _ in flips(path, 60, 1)) > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_none_of_many_flipped_bits_is_silently_wrong(path, faults):
    whole = fill(path)
    times = faults.times(4000)
    assert sum(outcome(path, whole) for _ in flips(path, times, 2)) > times / 4
    faults.tried("HDF5", "single flipped bits, in payload and structure", times)


def test_a_flipped_bit_in_the_description_hides_that_item_only(path):
    whole = fill(path)
    raw = bytearray(path.read_bytes())
    raw[raw.index("µ".encode() * 30) + 1] ^= 1
    path.write_bytes(raw)
    engine = HDF5Engine(path, "r")
    with pytest.raises(Corrupt, match="big"):
        engine.stat(("big",))
    with pytest.raises(Corrupt, match="big"):
        engine.read(("big",), "time")
    assert {key for key in engine.keys() if key != ("big",)} == whole.keys() - {("big",)}  # noqa: SIM118
    assert content(engine, ("run",)) == whole["run",]
    assert {(problem.key, problem.name) for problem in engine.verify()} == {(("big",), None)}
    engine.close()


def big_array(path):
    data = np.random.default_rng(0).integers(0, 255, (40, MB), np.uint8)
    engine = HDF5Engine(path)
    engine.write(("k",), Record("array", {"data": data, "other": data[:2, :10]}, {}, {}))
    engine.close()
    return data


def flip_at(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def test_only_parts_that_touch_a_damaged_block_are_refused(path):
    data = big_array(path)
    with h5py.File(path) as file:
        flip_at(path, file["k/data"].id.get_offset() + 7 * MB + 5)
    engine = HDF5Engine(path, "r")
    for good in [(slice(0, 7),), (slice(8, None),), (3, slice(5, 9)), (slice(None, None, 2), 5)]:
        assert np.array_equal(engine.read(("k",), "data", good), data[good])
    for bad in [(), (7,), (slice(None), 5), (7, 700_000), (slice(None, None, -1), 3)]:
        with pytest.raises(Corrupt, match=r"'data' of 'k'"):
            engine.read(("k",), "data", bad)
    assert engine.read(("k",), "other").shape == (2, 10)
    assert [(problem.key, problem.name) for problem in engine.verify()] == [(("k",), "data")]
    engine.close()


SELECTIONS = [
    (),
    (slice(3, 4),),
    (slice(None, None, 7), slice(10, 5000, 999)),
    (slice(None), 77),
    (-1, slice(None, None, -3)),
    (slice(30, 2, -9), slice(0, 0)),
    (slice(5, 6), slice(100, 101)),
]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_parts_of_an_array_of_many_blocks(path, selection):
    data = big_array(path)
    engine = HDF5Engine(path, "r")
    found = engine.read(("k",), "data", selection)
    assert np.array_equal(found, data[selection])
    assert found.flags.writeable
    engine.close()


def test_a_chunk_that_is_missing_is_damage(path):
    engine = HDF5Engine(path)
    spec = Stat("stream", {"v": ArrayInfo("<i4", (0,), ("time",), 0, None)}, {"rate": 1.0})
    stream = engine.append(("run",), spec)
    stream.extend({"v": np.arange(1_000_000)})
    stream.close({})
    engine.close()
    with h5py.File(path, "r+") as file:
        file["run/v"].resize(300_000, 0)
        file["run/v"].resize(1_000_000, 0)
    engine = HDF5Engine(path, "r")
    assert engine.read(("run",), "v", (slice(10, 13),)).tolist() == [10, 11, 12]
    with pytest.raises(Corrupt, match="run"):
        engine.read(("run",), "v", (900_000,))
    assert {problem.name for problem in engine.verify()} == {"v"}
    engine.close()


def test_a_record_without_its_seal_is_corrupt(path):
    fill(path)
    with h5py.File(path, "r+") as file:
        del file["small"].attrs["lab_seal"]
    engine = HDF5Engine(path, "r")
    with pytest.raises(Corrupt, match="small"):
        engine.stat(("small",))
    engine.close()


def test_what_another_program_changed_on_purpose_is_accepted_when_asked(path):
    whole = fill(path)
    with h5py.File(path, "r+") as file:
        file["small"].attrs["unit"] = "mV"
        file["small/data"][:] = 1.0
        file["run/v"][4000] = 5.0
        file["big/x"][0] = 2.0
    engine = HDF5Engine(path)
    for name in ("small", "run", "big"):
        with pytest.raises(Corrupt, match=name):
            content(engine, (name,))
    before = path.read_bytes()
    steps = list(engine.repair())
    assert not any(step.mended for step in steps)
    assert path.read_bytes() == before
    steps = list(engine.repair(accept=True))
    assert {(step.key, step.name) for step in steps if step.mended} == {
        (("small",), None),
        (("small",), "data"),
        (("run",), "v"),
        (("big",), "x"),
    }
    assert list(engine.verify()) == []
    assert engine.stat(("small",)).meta["unit"] == "mV"
    assert engine.read(("small",), "data").tolist() == [1.0] * 20
    assert engine.read(("run",), "v", (4000,)).tolist() == [5.0, 5.0]
    assert content(engine, ("text",)) == whole["text",]
    engine.close()


def test_damage_is_not_accepted_by_going_on(path):
    """Neither an update nor more rows give a new seal to what is not as it was written."""
    engine = HDF5Engine(path)
    engine.write(("a",), Record("array", {"data": np.arange(3)}, {"note": "n" * 50}, {}))
    engine.close()
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"n" * 50, b"m" + b"n" * 49))
    engine = HDF5Engine(path)
    with pytest.raises(Corrupt):
        engine.update(("a",), {"more": 1})
    engine.write(("a",), Record("array", {"data": np.arange(4)}, {}, {}))
    assert list(engine.verify()) == []
    engine.close()


def test_repair_sets_the_length_of_a_dimension_right(path):
    fill(path)
    with h5py.File(path, "r+") as file:
        file["run/time"].resize(7, 0)
    engine = HDF5Engine(path)
    assert [(step.key, step.name, step.mended) for step in engine.repair()] == [(("run",), "time", True)]
    assert list(engine.verify()) == []
    engine.close()
    with h5py.File(path) as file:
        assert file["run/time"].shape == file["run/s"].shape


def test_a_store_of_a_later_layout_is_refused(path):
    HDF5Engine(path).close()
    with h5py.File(path, "r+") as file:
        assert file.attrs["lab_layout"] == 1
        file.attrs["lab_layout"] = 2
    for mode in ("r", "a"):
        with pytest.raises(Foreign, match="newer version"):
            HDF5Engine(path, mode)


def test_sums_of_a_long_stream_lie_in_pages(path):
    engine = HDF5Engine(path)
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0, 64), ("time", "c"), 0, None)}, {"rate": 1.0})
    stream = engine.append(("run",), spec)
    rows = np.arange(128 * 64, dtype=float).reshape(128, 64)
    with engine.transaction():
        for _ in range(520):
            stream.extend({"v": rows})
            stream.flush()
    stream.close({})
    assert list(engine.verify()) == []
    engine.close()
    with h5py.File(path) as file:
        assert {"lab_sums.0", "lab_sums.1"} <= set(file["run/v"].attrs)
    engine = HDF5Engine(path, "r")
    assert engine.read(("run",), "v", (66_000, 3)) == rows[66_000 % 128, 3]
    engine.close()


def flush_and_fail(engine, stream):
    with engine.transaction():
        stream.extend({"v": np.arange(5.0)})
        stream.flush()
        raise ZeroDivisionError


def test_a_flush_that_was_undone_leaves_no_trace_in_the_sums(path):
    engine = HDF5Engine(path)
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 1.0})
    stream = engine.append(("run",), spec)
    stream.extend({"v": np.arange(10.0)})
    stream.flush()
    with pytest.raises(ZeroDivisionError):
        flush_and_fail(engine, stream)
    with pytest.raises(EngineError, match="undone"):
        stream.extend({"v": np.arange(7.0)})
    assert engine.read(("run",), "v").tolist() == [*range(10)]
    assert list(engine.verify()) == []
    engine.close()


def test_all_metadata_is_of_the_checksummed_format(path):
    fill(path)
    raw = path.read_bytes()
    assert raw[8] == 2  # superblock
    assert raw.count(b"OHDR") >= 20
    assert b"SNOD" not in raw  # symbol tables of the old format
    with h5py.File(path) as file, pytest.raises(KeyError):
        file["nothing"]


def test_items_beside_a_damaged_one_can_be_changed(path):
    whole = fill(path)
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["small"].id).addr
    flip_at(path, address + 1)
    engine = HDF5Engine(path)
    assert set(engine.children()) == {"small", "wide", "big", "text", "run"}
    assert ("small",) in list(engine.keys())
    with pytest.raises(Corrupt, match="small"):
        engine.stat(("small",))
    with pytest.raises(NotFound):
        engine.stat(("nothing",))
    assert {problem.key for problem in engine.verify()} == {("small",)}
    engine.write(("new",), Record("array", {"data": np.arange(3)}, {}, {}))
    engine.delete(("text",))
    assert content(engine, ("run",)) == whole["run",]
    engine.close()


def test_what_lies_below_a_damaged_group_is_not_left_out_silently(path):
    engine = HDF5Engine(path)
    with engine.transaction():
        for name in ["a", *map(str, range(20))]:
            engine.write(("group", name), Record("array", {"data": np.arange(3)}, {}, {}))
        engine.write(("other",), Record("array", {"data": np.arange(3)}, {}, {}))
    engine.close()
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["group"].id).addr
    flip_at(path, address + 20)
    engine = HDF5Engine(path, "r")
    listed = []
    with pytest.raises(Corrupt, match="what is below 'group'"):
        listed.extend(engine.keys())
    with pytest.raises(Corrupt, match="group"):
        list(engine.children(("group",)))
    found = engine.keys()
    assert {next(found), next(found)} == {("group",), ("other",)}
    assert {problem.key for problem in engine.verify()} == {("group",)}
    engine.close()


def test_a_store_is_the_same_after_compacting(path):
    fill(path)
    engine = HDF5Engine(path)
    engine.delete(("big",))
    before = digest(engine)
    assert engine.compact() > 1_000_000
    assert digest(engine) == before
    assert list(engine.verify()) == []
    engine.close()


@pytest.mark.parametrize("size", [0, 8, (1 << 64) - 16, (1 << 64) - 8])
@pytest.mark.timeout(60)
def test_a_heap_that_never_ends_is_refused(tmp_path, size):
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file.attrs["note"] = "of varying length"
        file["a"] = np.arange(3)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"GCOL") + 16
    number, length = struct.unpack_from("<H6xQ", raw, at)
    assert (number, length) == (1, len("of varying length"))
    at += 16 + (length + 7) // 8 * 8  # the rest of the heap, an object without a number
    assert struct.unpack_from("<H", raw, at) == (0,)
    struct.pack_into("<Q", raw, at + 8, size)
    path.write_bytes(raw)
    engine = HDF5Engine(path, "r")
    assert "unreadable" in str(engine.stat(()).meta["note"])
    assert engine.read((), "a").tolist() == [0, 1, 2]
    engine.close()
