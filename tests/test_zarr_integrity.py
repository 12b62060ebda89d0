"""Damage to a Zarr store: noticed wherever it is, confined to its item, and mended where that is no guess."""

import json
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.engines.zarr.meta import METADATA
from datastore_lab.engines.zarr.seals import digest, pack_sums, sealed
from datastore_lab.errors import Corrupt, EngineError, Foreign, LabError, NotFound
from datastore_lab.integrity import block_sum
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing.workload import snapshot

LONG = "n" * 300


def item(values, **meta):
    return Record("array", {"data": np.asarray(values)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.zarr"


@pytest.fixture
def scratch(tmp_path):
    """A folder in memory where there is one: thousands of small stores are copied and changed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def make(path):
    """Make a store with something of everything; give what it holds."""
    engine = ZarrEngine(path, "w")
    engine.update((), {"title": "bench", "small": 1e-05})
    texts = np.array(["é", "", "abc"] * 5, np.dtypes.StringDType())
    engine.write(("a",), Record("xarray", {"x": np.arange(6.0), "t": texts}, {"u": [1, None]}, {"x": ("i",)}))
    engine.write(("a", "child"), item(np.zeros(300, "i4"), lab_attrs={"data": {"units": "V"}}))
    engine.write((LONG,), item(b"raw", n=1))
    engine.write(("group", "of"), item(np.arange(3, dtype=">c16")))
    engine.update(("group",), {"note": "x"})
    stream = engine.append(("s",), Stat("stream", {"v": ArrayInfo("<i2", (0,), ("t",), 0, (4,))}, {}))
    stream.extend({"v": np.arange(11)})
    stream.close({"end": True})
    found = {**snapshot(engine), (): engine.stat(()).meta, ("group",): engine.stat(("group",)).meta}
    engine.close()
    return found


def look(engine):
    """Give what a store holds, and the keys at which something is damaged."""
    found, damaged = {}, set()
    for key in [*engine.keys(), (), ("group",)]:
        try:
            stat = engine.stat(key)
            arrays = {name: engine.read(key, name) for name in stat.arrays}
        except Corrupt:
            damaged.add(key)
            continue
        content = {name: (str(a.dtype), a.shape, a.tolist()) for name, a in arrays.items()}
        record = (stat.kind, content, repr(sorted(stat.meta.items())))
        found[key] = stat.meta if stat.kind == "group" else record
    return found, damaged


def flips(path, share, seed=3):
    """Yield every bit of every file of a store, or a share of them: the file, the byte, the bit."""
    draw = random.Random(seed)
    for file in sorted(place for place in path.rglob("*") if place.is_file()):
        for at in range(file.stat().st_size):
            for bit in range(8):
                if draw.random() < share:
                    yield file, at, bit


def judge_flip(path, file, at, bit, expected):
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1 << bit
    file.write_bytes(raw)
    where = f"{file.relative_to(path)}, byte {at}, bit {bit}"
    engine = ZarrEngine(path, "r")
    assert list(engine.verify()), f"nobody noticed {where}"
    found, damaged = look(engine)
    engine.close()
    assert len(damaged) <= 1, where
    listed = {(LONG,) if key and key[0].startswith("nnn") else key for key in {*found, *damaged}}
    assert listed == set(expected), where
    assert all(found[key] == expected[key] for key in found), where


def mend_flip(path, expected):
    engine = ZarrEngine(path, "a")
    done = list(engine.repair())
    assert done
    assert all(step.mended for step in done)
    assert not list(engine.verify())
    assert look(engine) == (expected, set())
    engine.close()


def flip_all(folder, share, seed=3):
    path, spare = folder / "s.zarr", folder / "spare.zarr"
    expected, count = make(path), 0
    shutil.copytree(path, spare)
    for file, at, bit in flips(path, share, seed):
        before = file.read_bytes()
        judge_flip(path, file, at, bit, expected)
        if count % 20 == 0:
            mend_flip(path, expected)
            shutil.rmtree(path)
            shutil.copytree(spare, path)
        file.write_bytes(before)
        count += 1
    return count


def test_a_sample_of_flipped_bits_is_noticed_and_mended(scratch):
    assert flip_all(scratch, 0.008) > 300


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_flipped_bit_is_noticed_and_mended(scratch, faults):
    count = flip_all(scratch, faults.share)
    faults.tried("Zarr", "flipped bits of a small store", count)


def write_json(file, **changes):
    doc = json.loads(file.read_text())
    file.write_text(json.dumps({**doc, **changes}))


def test_chunks_and_arrays_that_change_places_are_noticed(path):
    engine = ZarrEngine(path, "w")
    stream = engine.append(("s",), Stat("stream", {"v": ArrayInfo("<i2", (0,), ("t",), 0, (4,))}, {}))
    stream.extend({"v": np.arange(12)})
    stream.close({})
    engine.write(("a",), Record("array", {"x": np.arange(4), "y": np.arange(4)[::-1]}, {}, {}))
    engine.write(("b",), Record("array", {"x": np.ones(4, int)}, {}, {}))
    one, two = path / "s" / "v" / "c.0", path / "s" / "v" / "c.1"
    raw = one.read_bytes(), two.read_bytes()
    one.write_bytes(raw[1])
    two.write_bytes(raw[0])
    for part in [(1,), (slice(4, 6),), ()]:
        with pytest.raises(Corrupt, match=r"c\.[01]"):
            engine.read(("s",), "v", part)
    assert engine.read(("s",), "v", (slice(8, None),)).tolist() == [8, 9, 10, 11]
    two.write_bytes(raw[1])
    with pytest.raises(Corrupt):  # the second chunk stands twice
        engine.read(("s",), "v", (0,))
    for name in ("x", "y"):
        (path / "a" / name).rename(path / name)
    (path / "x").rename(path / "a" / "y")
    (path / "y").rename(path / "a" / "x")
    with pytest.raises(Corrupt):
        engine.read(("a",), "x")
    shutil.rmtree(path / "b" / "x")
    shutil.copytree(path / "a" / "y", path / "b" / "x")
    with pytest.raises(Corrupt):
        engine.stat(("b",))
    engine.close()


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3]}}},
        {"shape": [5]},
        {"shape": [7]},
        {"data_type": "int64"},
        {"fill_value": 1.0},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}},
        {"dimension_names": ["other"]},
        {"storage_transformers": [{"name": "x"}]},
        {"attributes": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_geometry_that_is_not_as_it_was_is_noticed(path, change):
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item(np.arange(6.0)))
    engine.write(("b",), item([1]))
    write_json(path / "a" / "data" / METADATA, **change)
    for action in (lambda: engine.stat(("a",)), lambda: engine.read(("a",), "data", (0,))):
        with pytest.raises(Corrupt):
            action()
    assert [problem.key for problem in engine.verify()] == [("a",)]
    assert engine.read(("b",), "data").tolist() == [1]
    engine.write(("a",), item([2]))  # what is damaged can be written anew
    assert engine.read(("a",), "data").tolist() == [2]
    assert not list(engine.verify())
    engine.close()


def test_a_chunk_that_is_gone_is_no_fill_value(path):
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item(np.zeros(4)))
    (path / "a" / "data" / "c.0").unlink()
    with pytest.raises(Corrupt, match="missing"):
        engine.read(("a",), "data")
    assert [step.mended for step in engine.repair()] == [False]
    engine.delete(("a",))
    assert not list(engine.verify())
    engine.close()


def test_a_damaged_item_can_be_deleted_or_written_anew(path):
    engine = ZarrEngine(path, "w")
    for name in "abc":
        engine.write((name,), item([1, 2]))
        engine.write((name, "child"), item([3]))
        (path / name / METADATA).write_text("{")
    assert sorted(engine.keys()) == sorted((name, *more) for name in "abc" for more in ((), ("child",)))
    with pytest.raises(Corrupt):
        engine.update(("a",), {"x": 1})
    engine.delete(("a",))
    engine.write(("b",), item([5]))
    assert engine.read(("b",), "data").tolist() == [5]
    assert engine.read(("b", "child"), "data").tolist() == [3]
    assert engine.read(("c", "child"), "data").tolist() == [3]
    assert [problem.key for problem in engine.verify()] == [("c",)]
    engine.close()


def test_a_damaged_root_hides_nothing(path):
    expected = make(path)
    (path / METADATA).write_text("{}")
    for mode in ("r", "a"):
        engine = ZarrEngine(path, mode)
        found, damaged = look(engine)
        assert damaged == {()}
        assert found == {key: value for key, value in expected.items() if key}
        engine.close()
    with pytest.raises(Corrupt):
        ZarrEngine(path, "w")


def test_changes_of_another_program_are_taken_when_accepted(path):
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item(np.arange(4.0), unit="V"))
    engine.write(("b",), item(np.arange(4.0)))
    engine.close()
    zarr.open_group(path / "a", mode="a").attrs["unit"] = "mV"
    zarr.open_array(path / "a" / "data", mode="a").attrs["note"] = "calibrated"
    zarr.open_array(path / "b" / "data", mode="a")[1] = 7.0
    engine = ZarrEngine(path, "a")
    for key in "ab":
        with pytest.raises(Corrupt):
            engine.read((key,), "data")
    assert [step for step in engine.repair() if step.mended and step.key] == []
    for _ in range(2):  # the group first, then the array, which its seal had hidden
        assert all(step.mended for step in engine.repair(accept=True))
    assert not list(engine.verify())
    assert engine.stat(("a",)).meta == {"unit": "mV", "lab_attrs": {"data": {"note": "calibrated"}}}
    assert engine.read(("b",), "data").tolist() == [0, 7, 2, 3]
    engine.close()


def test_leftovers_are_removed_and_strange_files_are_named(path):
    make(path)
    left = [path / "a" / "x" / "c.7", path / "a" / ".zarr.json-0123.tmp"]
    strange = path / "group" / "notes.txt"
    for file in (*left, strange):
        file.write_text("x")
    (path / "lost").mkdir()
    engine = ZarrEngine(path, "a")
    assert len(list(engine.verify())) == 4
    done = {step.what.partition("'")[2].partition("'")[0]: step.mended for step in engine.repair()}
    assert done == {**{str(file): True for file in left}, str(strange): False, str(path / "lost"): False}
    assert not any(file.exists() for file in left)
    assert strange.exists()
    assert len(list(engine.verify())) == 2
    engine.close()


def test_a_later_layout_is_refused(path):
    ZarrEngine(path, "w").close()
    doc = json.loads((path / METADATA).read_text())
    attributes = sealed({**doc["attributes"], "lab_layout": 2})
    write_json(path / METADATA, attributes=attributes)
    with pytest.raises(Foreign, match="layout 2"):
        ZarrEngine(path, "r")


def forge(path, key, name, **changes):
    """Change an array's metadata as somebody would who can make seals."""
    array = path / key / name / METADATA
    write_json(array, **changes)
    group = json.loads((path / key / METADATA).read_text())
    group["attributes"]["lab_arrays"][name] = digest(json.loads(array.read_text()))
    write_json(path / key / METADATA, attributes=sealed(group["attributes"]))


@pytest.mark.parametrize("chunk", [2, 10**12])
def test_a_tiny_store_that_claims_terabytes_is_refused_before_memory_is_taken(path, chunk):
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item([1.0, 2.0]))
    grid = {"name": "regular", "configuration": {"chunk_shape": [chunk]}}
    forge(path, "a", "data", shape=[10**12], chunk_grid=grid)
    assert engine.stat(("a",)).arrays["data"].nbytes == 8 * 10**12
    for part in [(), (slice(5),)]:
        with pytest.raises((Corrupt, EngineError), match=r"claims|chunks"):
            engine.read(("a",), "data", part)
    engine.close()


def test_an_array_of_another_program_that_claims_much_and_stores_nothing(path):
    root = zarr.create_group(path, zarr_format=3)
    root.create_array("x", shape=(10**9,), chunks=(1000,), dtype="f8")
    engine = ZarrEngine(path, "r")
    with pytest.raises(EngineError, match="claims"):
        engine.read((), "x")
    assert engine.read((), "x", (slice(5),)).tolist() == [0] * 5
    engine.close()


def test_frames_that_unpack_to_more_than_they_should_are_refused(path):
    from numcodecs.zstd import Zstd

    engine = ZarrEngine(path, "w")
    engine.write(("a",), item(np.array(["abc"] * 100, np.dtypes.StringDType())))
    engine.write(("b",), item(np.zeros(1000)))
    bomb = Zstd(level=1, checksum=True).encode(bytes(100 << 20))
    for key, words in (("a", "claims to unpack|number of texts"), ("b", "holds")):
        (path / key / "data" / "c.0").write_bytes(bomb)
        attributes = json.loads((path / key / "data" / METADATA).read_text())["attributes"]
        forge(path, key, "data", attributes={**attributes, "lab_sums": pack_sums([block_sum(bomb)])})
        with pytest.raises(Corrupt, match=words):
            engine.read((key,), "data")
    engine.close()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5_000, '{"attributes":' + "[" * 900 + "]" * 900])
def test_metadata_that_is_nested_without_end_is_damage(path, text):
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item([1]))
    engine.write(("b",), item([2]))
    (path / "a" / METADATA).write_text(text)
    with pytest.raises(Corrupt):
        engine.stat(("a",))
    assert list(engine.children()) == ["a", "b"]
    assert engine.read(("b",), "data").tolist() == [2]
    engine.close()


def test_deep_keys_and_attributes(path):
    engine = ZarrEngine(path, "w")
    key = tuple(f"level {depth}" for depth in range(60))
    deep = 1
    for _ in range(90):
        deep = [deep]
    engine.write(key, item([1], deep=deep))
    assert list(engine.keys()) == [key]
    assert engine.stat(key).meta == {"deep": deep}
    with pytest.raises(LabError):
        engine.write(("x" * 100,) * 100, item([1]))  # longer than a path may be
    assert list(engine.keys()) == [key]
    engine.close()


def test_names_that_climb_stay_inside(path):
    engine = ZarrEngine(path, "w")
    for key in [("..", "..", "x"), ("/etc",), ("a/../../b",), (".",)]:
        engine.write(key, Record("array", {"..": np.arange(2), "../y": np.arange(2)}, {}, {}))
        assert engine.read(key, "../y").tolist() == [0, 1]
    engine.close()
    assert sorted(place.name for place in path.parent.iterdir()) == ["s.zarr"]


def test_a_stored_name_that_is_long_is_not_found_by_its_folder(path):
    engine = ZarrEngine(path, "w")
    engine.write((LONG,), item([1]))
    folder = next(place.name for place in path.iterdir() if place.is_dir())
    with pytest.raises(NotFound):
        engine.stat((folder,))
    assert list(engine.keys()) == [(LONG,)]
    engine.close()
