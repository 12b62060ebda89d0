"""What is particular to the Zarr engine; what all engines share is in the conformance suite."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.errors import AlreadyExists, Corrupt, EngineError, Foreign, Locked, NotFound, ReadOnly
from datastore_lab.records import Appends, ArrayInfo, Engine, Record, Stat
from datastore_lab.testing.crash_tree import crash_states, record
from datastore_lab.testing.workload import snapshot

RNG = np.random.default_rng(0)


def item(values, **meta):
    return Record("array", {"data": np.asarray(values)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.zarr"


@pytest.fixture
def engine(path):
    engine = ZarrEngine(path, "w")
    yield engine
    engine.close()


def names_in(folder):
    return sorted(place.name for place in Path(folder).iterdir())


def stream_spec(**dtypes):
    return Stat("stream", {n: ArrayInfo(d, (0,), ("time",), 0, (4,)) for n, d in dtypes.items()}, {})


def reopen(engine, path, mode="r"):
    engine.close()
    return ZarrEngine(path, mode)


def test_it_is_an_engine_that_appends(engine, path):
    assert isinstance(engine, Engine)
    assert isinstance(engine, Appends)
    assert engine.url == str(path)


def test_zarr_and_xarray_read_it_without_a_warning(engine, path):
    values = np.array([[0.0, -0.0, np.nan], [1, 2, 3]])
    dims = {"data": ("row", "col"), "time": ("row",)}
    when = np.array(["2026-01-01", "NaT"], "M8[ns]")
    texts = np.array(["é", ""])
    arrays = {"data": values, "time": when, "text": texts}
    engine.write(("run", "a"), Record("array", arrays, {"unit": "V"}, dims))
    engine.close()
    assert "error" in {action for action, *_ in warnings.filters}
    group = zarr.open_group(path, mode="r")
    assert (
        group["run/a/data"][...].tobytes() == values.tobytes()
    )  # -0.0 too, in a chunk equal to the fill value
    assert group["run/a/text"][...].tolist() == ["é", ""]
    assert group["run/a"].attrs["unit"] == "V"
    with xr.open_datatree(path, engine="zarr") as tree:
        assert tree["run/a"]["data"].dims == ("row", "col")
        assert tree["run/a"]["time"].values.tobytes() == when.tobytes()
    with xr.open_zarr(path, group="run/a") as dataset:
        assert np.array_equal(dataset["data"].values, values, equal_nan=True)


def test_no_file_lies_in_the_hierarchy_that_is_not_zarrs(engine, path):
    engine.write(("a",), item(RNG.standard_normal(10)))
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert names == ["a/data/c.0", "a/data/zarr.json", "a/zarr.json", "zarr.json"]
    assert names_in(f"{path}-journal") == ["hold", "lock", "stage"]
    engine.close()
    assert names_in(path.parent) == ["s.zarr"]


def test_chunks_equal_to_the_fill_value_are_written(engine, path):
    engine.write(("a",), item(np.full(4, -0.0)))
    assert (path / "a" / "data" / "c.0").exists()
    assert np.signbit(engine.read(("a",), "data")).all()


@pytest.mark.parametrize("shape", [(5_000_000,), (3, 1_500_000), (40, 500, 200)])
def test_large_arrays_are_cut_and_any_part_of_them_is_read(engine, path, shape):
    values = RNG.integers(-9, 9, shape, "i2").astype("f8")
    engine.write(("a",), item(values))
    chunks = engine.stat(("a",)).arrays["data"].chunks
    assert 4 << 20 < 8 * np.prod(chunks) <= 8 << 20
    assert len(names_in(path / "a" / "data")) > 2
    for _ in range(40):
        cut = []
        for length in shape:
            start, stop = (int(n) for n in RNG.integers(-length, length, 2))
            cut.append(
                start if RNG.random() < 0.2 else slice(start, stop, int(RNG.choice([1, 1, 2, 7, -1, -3])))
            )
        cut = tuple(cut[: RNG.integers(1, len(shape) + 1)])
        assert np.array_equal(engine.read(("a",), "data", cut), values[cut])
    assert np.array_equal(zarr.open_array(path / "a" / "data", mode="r")[...], values)


def test_a_part_is_read_from_its_chunks_alone(engine, path):
    engine.write(("a",), item(RNG.standard_normal(5_000_000)))
    (path / "a" / "data" / "c.0").unlink()
    assert engine.read(("a",), "data", (slice(-5, None),)).shape == (5,)
    with pytest.raises(Corrupt, match="chunk"):
        engine.read(("a",), "data", (slice(5),))
    assert [(problem.key, problem.name) for problem in engine.verify()] == [(("a",), "data")]


@pytest.mark.parametrize("values", [np.arange(50.0), np.zeros(500, "i2"), RNG.standard_normal(100)])
def test_every_flipped_byte_is_noticed(engine, path, values):
    engine.write(("a",), item(values))
    chunk = path / "a" / "data" / "c.0"
    raw = chunk.read_bytes()
    for at in range(len(raw)):
        chunk.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        noticed = len(list(engine.verify())) == 1
        assert noticed or engine.read(("a",), "data").tobytes() == values.tobytes(), (
            at
        )  # a bit that means nothing
    for cut in (0, 3, len(raw) // 2, len(raw) - 1):
        chunk.write_bytes(raw[:cut])
        with pytest.raises(Corrupt, match="damaged"):
            engine.read(("a",), "data")


def test_damaged_metadata_names_its_item_and_leaves_the_others_readable(engine, path):
    for name in "abc":
        engine.write((name,), item([1, 2]))
    (path / "b" / "zarr.json").write_text("{")
    assert list(engine.keys()) == [("a",), ("b",), ("c",)]
    assert list(engine.children()) == ["a", "b", "c"]
    with pytest.raises(Corrupt, match=r"b/zarr\.json"):
        engine.stat(("b",))
    assert engine.read(("c",), "data").tolist() == [1, 2]
    assert [problem.key for problem in engine.verify()] == [("b",)]
    text = (path / "c" / "data" / "zarr.json").read_text()
    for change in ({"shape": ["x"]}, {"data_type": "nonsense"}, {"shape": [-1]}, {"chunk_grid": 5}):
        (path / "c" / "data" / "zarr.json").write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises((Corrupt, EngineError), match="c/data"):
            engine.stat(("c",))


def test_links_that_leave_the_store_are_refused(engine, path, tmp_path):
    outside = tmp_path / "outside"
    ZarrEngine(outside, "w").close()
    other = ZarrEngine(outside, "a")
    other.write(("secret",), item([42]))
    other.close()
    for name in "abc":
        engine.write((name,), item([1, 2]))
    (path / "link").symlink_to(outside / "secret")
    with pytest.raises(EngineError, match="leads out"):
        engine.stat(("link",))
    assert [(p.key, "leads out" in p.what) for p in engine.verify()] == [(("link",), True)]
    chunk = path / "a" / "data" / "c.0"
    chunk.unlink()
    chunk.symlink_to(outside / "secret" / "data" / "c.0")
    with pytest.raises(EngineError, match="leads out"):
        engine.read(("a",), "data")
    (path / "b" / "zarr.json").unlink()
    (path / "b" / "zarr.json").symlink_to(outside / "secret" / "zarr.json")
    with pytest.raises(EngineError, match="leads out"):
        engine.stat(("b",))
    (path / "inside").symlink_to(path / "c")
    assert engine.read(("inside",), "data").tolist() == [1, 2]


def test_stores_of_other_programs_are_read(path):
    values = RNG.standard_normal((20, 30))
    root = zarr.create_group(path, zarr_format=3)
    kinds = {
        "blosc": {"compressors": zarr.codecs.BloscCodec()},
        "gzip": {"compressors": zarr.codecs.GzipCodec()},
        "plain": {"compressors": None},
        "sharded": {"shards": (10, 30)},
        "turned": {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    }
    for name, options in kinds.items():
        array = root.create_array(name, shape=(20, 30), chunks=(5, 15), dtype="f8", fill_value=7.0, **options)
        if name == "turned":
            array.set_basic_selection(Ellipsis, values)
        else:
            array[...] = values
    holes = root.create_array("holes", shape=(10,), chunks=(2,), dtype="i4", fill_value=7)
    holes[4:6] = 1
    child = root.create_group("sub/a%41__.x")
    child.attrs["note"] = {"deep": [1, None]}
    root.create_group("__x")
    engine = ZarrEngine(path, "r")
    assert engine.stat(()).kind == "arrays"
    assert list(engine.keys()) == [()]
    assert list(engine.children()) == ["__x", "sub"]
    assert engine.stat(("__x",)).kind == "group"
    assert list(engine.children(("sub",))) == ["a%41__.x"]
    assert engine.stat(("sub", "a%41__.x")).meta == {"note": {"deep": [1, None]}}
    for name in kinds:
        assert np.array_equal(engine.read((), name), values), name
        assert np.array_equal(engine.read((), name, (3, slice(None, None, -2))), values[3, ::-2]), name
    assert engine.read((), "holes").tolist() == [7, 7, 7, 7, 1, 1, 7, 7, 7, 7]
    assert not list(engine.verify())


def test_an_unknown_codec_is_a_typed_error(path):
    root = zarr.create_group(path, zarr_format=3)
    root.create_array("x", shape=(3,), dtype="f8")[...] = 1
    where = path / "x" / "zarr.json"
    doc = json.loads(where.read_text())
    where.write_text(json.dumps({**doc, "codecs": [{"name": "my_module.evil", "configuration": {}}]}))
    with pytest.raises(EngineError, match=r"my_module\.evil"):
        ZarrEngine(path, "r").read((), "x")


def test_a_copy_of_all_metadata_is_dropped_before_it_is_out_of_date(engine, path):
    engine.write(("a",), item([1]))
    engine = reopen(engine, path, "a")
    assert "consolidated_metadata" in json.loads((path / "zarr.json").read_text())
    engine.write(("b",), item([2]))
    assert "consolidated_metadata" not in json.loads((path / "zarr.json").read_text())
    assert sorted(zarr.open_group(path, mode="r").keys()) == ["a", "b"]
    engine.close()
    assert sorted(zarr.open_consolidated(path).keys()) == ["a", "b"]


def test_places_that_are_no_store_are_refused_and_left_alone(tmp_path):
    folder, file, single, old = (tmp_path / name for name in ("folder", "file", "single", "old"))
    folder.mkdir()
    (folder / "thesis.txt").write_text("all")
    file.write_text("x")
    zarr.create_array(single, shape=(3,), dtype="f8", zarr_format=3)
    zarr.create_group(old, zarr_format=2)
    before = sorted(str(place) for place in tmp_path.rglob("*"))
    for place, word in (
        (folder, "no Zarr store"),
        (file, "is a file"),
        (single, "array"),
        (old, "version 2"),
    ):
        for mode in ("a", "r", "r+", "w"):
            with pytest.raises(Foreign, match=word):
                ZarrEngine(place, mode)
        with pytest.raises(AlreadyExists):
            ZarrEngine(place, "x")
    with pytest.raises(NotFound):
        ZarrEngine(tmp_path / "absent", "r")
    with pytest.raises(NotFound):
        ZarrEngine(tmp_path / "absent" / "deeper", "a")
    assert sorted(str(place) for place in tmp_path.rglob("*")) == before


def test_a_second_writer_is_told_who_writes_and_readers_are_let_in(engine, path):
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        ZarrEngine(path, "a")
    reader = ZarrEngine(path, "r")
    engine.write(("a",), item([1]))
    before = reader.revision()
    assert reader.read(("a",), "data").tolist() == [1]
    engine.update(("a",), {"x": 1})
    assert reader.revision() > before
    assert reader.stat(("a",)).meta == {"x": 1}
    engine.close()
    ZarrEngine(path, "a").close()


UNPRIVILEGED = """
import os, sys
from datastore_lab.engines.zarr import ZarrEngine
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    engine = ZarrEngine(sys.argv[1], sys.argv[2])
    print(list(engine.keys()))
except Exception as error:
    print(type(error).__name__, error)
"""


def as_somebody(path, mode):
    run = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(path), mode], capture_output=True, text=True, check=True
    )
    return run.stdout


@pytest.fixture
def frozen():
    """A folder that everybody may enter, outside pytest's own folders, which only their owner may."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for place in (folder, *folder.rglob("*")):
            if place.is_dir():
                place.chmod(0o755)


def freeze(folder):
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)


def test_a_place_that_cant_be_written(frozen):
    engine = ZarrEngine(frozen / "s.zarr", "w")
    engine.write(("a",), item([1]))
    engine.close()
    freeze(frozen)
    assert as_somebody(frozen / "s.zarr", "r") == "[('a',)]\n"
    assert "ReadOnly " in as_somebody(frozen / "s.zarr", "a")
    assert "ReadOnly " in as_somebody(frozen / "new.zarr", "a")


def interrupted(tmp_path):
    """Give folders as they are when a writer dies right after the commit point of a move."""
    live = tmp_path / "live"
    live.mkdir()
    engine = ZarrEngine(live / "s.zarr", "w")
    engine.close()
    with record(live) as trace:
        engine = ZarrEngine(live / "s.zarr", "w")
        engine.write(("old",), item([1]))
        engine.move(("old",), ("new",))
    engine.close()
    for state in crash_states(trace, tmp_path):
        logs = [state.folder / "s.zarr-journal" / name for name in ("log", "log.puts")]
        if (
            any(log.exists() for log in logs)
            and state.number > len(trace.changes) - 12
            and state.variant == "cut"
        ):
            yield state.folder


def test_a_reader_completes_what_a_dead_writer_committed(tmp_path):
    seen = 0
    for folder in interrupted(tmp_path):
        engine = ZarrEngine(folder / "s.zarr", "r")
        assert list(snapshot(engine)) == [("new",)]
        assert names_in(folder) == ["s.zarr"]
        seen += 1
    assert seen > 3


def test_a_reader_that_cant_complete_a_commit_says_so(frozen):
    for folder in interrupted(frozen):
        freeze(folder)
        assert "open it once for writing" in as_somebody(folder / "s.zarr", "r")
        folder.chmod(0o755)


def test_a_damaged_log_is_refused_and_nothing_is_touched(tmp_path):
    for folder in interrupted(tmp_path):
        log = next(folder.glob("s.zarr-journal/log*"))
        before = {str(place) for place in folder.rglob("*")}
        log.write_text(log.read_text().replace("t/", "t/../"))
        for mode in ("r", "a"):
            with pytest.raises(Corrupt, match="commit log"):
                ZarrEngine(folder / "s.zarr", mode)
        assert {str(place) for place in folder.rglob("*") if place.name != "lock"} == before


def test_readers_see_whole_commits_while_a_writer_is_at_work(engine, path):
    stream = engine.append(("s",), stream_spec(x="<f8", n="<i4"))
    engine.write(("pair",), Record("array", {"a": np.zeros(9), "b": np.zeros(9)}, {}, {}))
    stop, failures = threading.Event(), []

    def work():
        number = 0
        while not stop.is_set():
            number += 1
            stream.extend({"x": np.full(3, float(number)), "n": np.full(3, number, "i4")})
            stream.flush()
            engine.write(("pair",), Record("array", {"a": np.full(number % 7, number)}, {"n": number}, {}))

    def look():
        reader = ZarrEngine(path, "r")
        try:
            for _ in range(30):
                arrays = reader.stat(("s",)).arrays
                assert arrays["x"].shape == arrays["n"].shape
                assert reader.stat(("pair",)).kind == "array"
                x = reader.read(("s",), "x")
                assert np.array_equal(x, np.repeat(np.arange(1, len(x) // 3 + 1), 3))
                a = reader.read(("pair",), "a")
                assert (a == a[:1]).all()
        except BaseException as error:
            failures.append(error)
            raise

    writer, reader = threading.Thread(target=work), threading.Thread(target=look)
    writer.start()
    reader.start()
    reader.join()
    stop.set()
    writer.join()
    assert not failures


def test_a_flush_writes_new_chunks_and_the_last_partial_one_only(engine, path):
    stream = engine.append(("s",), stream_spec(x="<f8"))
    stream.extend({"x": np.arange(10.0)})
    assert engine.read(("s",), "x").shape == (0,)
    stream.flush()
    numbers = {file.name: file.stat().st_ino for file in (path / "s" / "x").glob("c.*")}
    stream.extend({"x": np.arange(10.0, 13.0)})
    stream.flush()
    after = {file.name: file.stat().st_ino for file in (path / "s" / "x").glob("c.*")}
    assert {name for name in after if after[name] != numbers.get(name)} == {"c.2", "c.3"}
    assert zarr.open_array(path / "s" / "x", mode="r")[...].tolist() == list(range(13))
    stream.close({"done": True})
    assert engine.stat(("s",)).meta == {"done": True}
    assert not list(engine.verify())


def test_a_stream_whose_record_was_replaced_says_so(engine):
    stream = engine.append(("s",), stream_spec(x="<f8"))
    engine.write(("s",), Record("array", {"x": np.zeros(0)}, {}, {}))
    stream.extend({"x": np.ones(2)})
    with pytest.raises(EngineError, match="replaced"):
        stream.flush()


def test_moves_in_a_ring_within_one_commit(engine, path):
    for name in "abc":
        engine.write((name,), item([ord(name)]))
        engine.write((name, "child"), item([1]))
    with engine.transaction():
        engine.move(("a",), ("x",))
        engine.move(("b",), ("a",))
        engine.move(("c",), ("b",))
        engine.move(("x",), ("c",))
        engine.delete(("c", "child"))
        engine.write(("b", "child"), item([2]))
        assert engine.read(("a",), "data").tolist() == [98]
    engine = reopen(engine, path)
    assert [engine.read((name,), "data").item() for name in "abc"] == [98, 99, 97]
    assert list(engine.keys()) == [("a",), ("a", "child"), ("b",), ("b", "child"), ("c",)]
    assert engine.read(("b", "child"), "data").tolist() == [2]


def test_a_change_that_fails_inside_a_transaction_leaves_no_half(engine):
    engine.write(("a",), item([1]))
    with engine.transaction():
        engine.write(("b",), item([2]))
        with pytest.raises(AlreadyExists):
            engine.move(("a",), ("b",))
    assert snapshot(engine).keys() == {("a",), ("b",)}


def test_attributes_of_arrays_are_zarrs_own(engine, path):
    engine.write(("a",), item([1.0], lab_attrs={"data": {"units": "V", "limit": float("inf")}}))
    attributes = zarr.open_array(path / "a" / "data", mode="r").attrs.asdict()
    assert attributes["units"] == "V"
    assert attributes["limit"] == {"$float": "inf"}
    assert engine.stat(("a",)).meta == {"lab_attrs": {"data": {"units": "V", "limit": float("inf")}}}
    engine.update(("a",), {"lab_attrs": {"data": {"units": "mV"}}})
    assert engine.stat(("a",)).meta == {"lab_attrs": {"data": {"units": "mV"}}}
    assert not list(engine.verify())


def test_compact_gives_back_what_a_crash_left(engine, path):
    Path(f"{path}-journal", "hold", "left").write_bytes(b"x" * 1000)
    assert engine.compact() == 1000
    assert engine.compact() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no other user to become")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_of_another_user_is_read_only_from_the_start():
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is closed to others
        path = Path(folder) / "s.zarr"
        ZarrEngine(path, "w").close()
        path.parent.chmod(0o777)
        path.chmod(0o555)
        child = os.fork()
        if child == 0:
            os._exit(_refused_as_somebody_else(path))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert names_in(folder) == ["s.zarr"]
        path.chmod(0o755)


def _refused_as_somebody_else(path):
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        ZarrEngine(path, "a")
    except ReadOnly:
        return 0
    except BaseException:
        traceback.print_exc()
    return 1
