"""Streams in Arrow files: every type, any part of them, torn tails, and files of other programs."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab import dtypes, open_store
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    NotFound,
    NotStorable,
    ReadOnly,
)
from datastore_lab.records import ARRAY_ATTRIBUTES, ArrayInfo, Engine, Record, Stat
from datastore_lab.streams import disk
from datastore_lab.streams.ipc.write import IpcAppender
from datastore_lab.streams.rows import StreamAppender
from datastore_lab.testing import power, syscalls

random = np.random.default_rng(0)


def spec_of(arrays, meta=None) -> Stat:
    infos = {}
    for name, array in arrays.items():
        dims = ("time", *(f"{name}_{axis}" for axis in range(1, array.ndim)))
        infos[name] = ArrayInfo(dtypes.name(array.dtype), (0, *array.shape[1:]), dims, 0, None)
    return Stat("stream", infos, meta or {})


def store(path, arrays, meta=None, steps=3):
    """Append in several flushed parts; leaves the engine open."""
    engine = ArrowEngine(path)
    appender = engine.append(("s",), spec_of(arrays, meta))
    length = len(next(iter(arrays.values())))
    edges = [round(length * step / steps) for step in range(steps + 1)]
    for begin, end in itertools.pairwise(edges):
        appender.extend({name: array[begin:end] for name, array in arrays.items()})
        appender.flush()
    return engine, appender


N = 11


SCALARS = {
    "bool": random.random(N) > 0.5,
    "i1": np.arange(N, dtype="i1"),
    "u8": np.full(N, 2**64 - 1, "u8"),
    "big-endian": np.arange(N, dtype=">i4"),
    "half": random.random(N).astype("f2"),
    "f8": np.array([np.nan, np.inf, -0.0, 5e-324, *range(N - 4)]),
    "longdouble": np.linspace(0, 1, N, dtype="g"),
    "complex": random.random(N) + 1j * random.random(N),
    "c8 big": (random.random(N) + 1j).astype(">c8"),
    "clongdouble": np.linspace(0, 1j, N, dtype="G"),
    "ns": np.array(["2026-01-01", "NaT", *["1969-12-31T23:59:59.999999999"] * (N - 2)], "M8[ns]"),
    "days": np.arange(N).astype("M8[D]"),
    "25s": np.arange(N).astype("M8[25s]"),
    "big ns": np.arange(N).astype(">M8[ns]"),
    "us": np.arange(N).astype("m8[us]"),
    "weeks": np.arange(N).astype("m8[W]"),
    "generic": np.arange(N).astype("m8"),
    "S": np.array([b"a\0b", b"", b"abc"] * 4)[:N],
    "U": np.array(["ä€😀", "", "x"] * 4)[:N],
    "U big": np.array(["ä€😀", "", "x"] * 4, ">U3")[:N],
    "T": np.array(["ä€😀", "", "long " * 50] * 4, np.dtypes.StringDType())[:N],
    "V": np.arange(N * 3, dtype="u1").view("V3"),
    "struct": np.array([(n, n / 3) for n in range(N)], [("a", "<i2"), ("b", ">f8")]),
}


ALL = SCALARS | {
    f"{name} rows": np.broadcast_to(array[:, None, None], (N, 2, 3)).copy()
    for name, array in SCALARS.items()
    if array.dtype.kind not in "TU"
}


def same(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.kind == "T":
        assert a.tolist() == b.tolist()
    elif (a.dtype.kind in "fc" and a.dtype.itemsize > 16) or a.dtype.char == "g":  # these have padding
        assert np.array_equal(a, b)
    else:
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("closed", [True, False])
def test_every_type_comes_back_bit_for_bit(tmp_path, name, closed):
    array = ALL[name]
    engine, appender = store(tmp_path / "run.arrow", {"x": array})
    if closed:
        appender.close({})
    same(engine.read(("s",), "x"), array)
    same(engine.read(("s",), "x", (slice(8, 1, -3),)), array[8:1:-3])
    same(engine.read(("s",), "x", (5,)), array[5:6].reshape(array.shape[1:]))
    info = engine.stat(("s",)).arrays["x"]
    assert (info.dtype, info.shape) == (dtypes.name(array.dtype), array.shape)
    assert list(engine.verify()) == []
    engine.close()
    if closed:
        same(ArrowEngine(tmp_path / "run.arrow", "r").read(("s",), "x"), array)


indices = st.one_of(
    st.integers(-37, 36),
    st.builds(
        slice,
        st.one_of(st.none(), st.integers(-45, 45)),
        st.one_of(st.none(), st.integers(-45, 45)),
        st.one_of(st.none(), st.sampled_from([1, 2, 5, 40, -1, -3, -40])),
    ),
)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    frames = random.integers(0, 255, (37, 4, 5)).astype("u1")
    engine, appender = store(tmp_path_factory.mktemp("arrow") / "run.arrow", {"x": frames}, steps=9)
    appender.close({})
    yield engine, frames
    engine.close()


@settings(max_examples=300, deadline=None)
@given(row=indices, inner=st.lists(st.sampled_from([slice(None), 1, -1, slice(3, None, -2)]), max_size=2))
def test_any_part_is_what_numpy_would_give(batches, row, inner):
    engine, frames = batches
    part = engine.read(("s",), "x", (row, *inner))
    same(part, np.asarray(frames[(row, *inner)]))
    part[...] = 0  # a copy of one's own
    same(engine.read(("s",), "x"), frames)


def test_a_part_touches_only_the_batches_that_hold_it(batches, monkeypatch):
    engine, _frames = batches
    touched = []
    kind = type(engine._file(("s",)))
    plain = kind.column
    monkeypatch.setattr(kind, "column", lambda self, *at: touched.append(at[1]) or plain(self, *at))
    engine.read(("s",), "x", (slice(10, 14),))
    assert len(touched) <= 2
    touched.clear()
    engine.read(("s",), "x", (20,))
    assert len(touched) == 1
    touched.clear()
    engine.stat(("s",))
    assert not touched
    with pytest.raises(IndexError):
        engine.read(("s",), "x", (37,))


META = {
    "rate": 30.0, "nan": float("inf"), "run": {"who": "me", "n": [1, None]},
    ARRAY_ATTRIBUTES: {"frame": {"units": "counts", "gain": 2.5}},
}  # fmt: skip


def test_other_programs_open_a_closed_file(tmp_path):
    frames = random.integers(0, 255, (N, 4, 5)).astype("u1")
    arrays = {"time": SCALARS["ns"], "frame": frames, "text": SCALARS["T"], "on": SCALARS["bool"]}
    engine, appender = store(tmp_path / "run.arrow", arrays, META)
    appender.close({"lost": 3, "rate": 29.9})
    path = tmp_path / "run.s.arrow"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    table = pa.ipc.open_file(path).read_all()
    table.validate(full=True)
    assert table.schema.field("time").type == pa.timestamp("ns", "UTC")
    assert isinstance(table.schema.field("frame").type, pa.FixedShapeTensorType)
    assert table.schema.field("frame").metadata[b"units"] == b"counts"
    assert np.array_equal(table["frame"].combine_chunks().to_numpy_ndarray(), frames)
    assert table["text"].to_pylist() == arrays["text"].tolist()
    assert table["on"].to_pylist() == arrays["on"].tolist()
    assert json.loads(table.schema.metadata[b"lab_meta"])["run"] == {"who": "me", "n": [1, None]}
    assert pyarrow.feather.read_table(path).num_rows == N
    with path.open("rb") as file:  # the stream format begins at byte 8
        file.seek(8)
        assert pa.ipc.open_stream(file).read_all().num_rows == N
    assert engine.stat(("s",)).meta == {**META, "lost": 3, "rate": 29.9}
    engine.close()


def test_a_store_shows_all_streams_and_each_file_alone(tmp_path):
    path = tmp_path / "run.arrow"
    with open_store(path) as opened:
        for key in [("camera",), ("daq",), ("run-0002", "a.b/c")]:
            appender = opened.append(key, spec_of({"x": np.arange(3)}))
            appender.extend({"x": np.arange(3) + len(key)})
            appender.close({})
    assert len(list(tmp_path.iterdir())) == 3
    with open_store(path, "r") as opened:
        assert list(opened) == ["camera", "daq", ("run-0002", "a.b/c")]
        assert list(opened.children()) == ["camera", "daq", "run-0002"]
        assert opened.stat("run-0002").kind == "group"
        assert opened.lazy("daq")["x"].values.tolist() == [1, 2, 3]
    with open_store(tmp_path / "run.daq.arrow", "r") as opened:
        assert list(opened) == ["daq"]
        assert opened.record("daq").arrays["x"].tolist() == [1, 2, 3]
    (tmp_path / "running.x.arrow").write_bytes((tmp_path / "run.daq.arrow").read_bytes())
    (tmp_path / "run.other.arrow").write_bytes((tmp_path / "run.daq.arrow").read_bytes())
    with open_store(path, "r") as opened:
        assert len(opened) == 3


def test_a_reader_follows_a_growing_file(tmp_path):
    engine, appender = store(tmp_path / "run.arrow", {"x": np.arange(3)})
    reader = ArrowEngine(tmp_path / "run.arrow", "r")
    before = reader.revision()
    for end in range(4, 60):
        appender.extend({"x": np.array([end - 1])})
        assert reader.read(("s",), "x").tolist() == list(range(end - 1))
        appender.flush()
        assert reader.read(("s",), "x").tolist() == list(range(end))
    assert reader.revision() > before
    appender.close({"done": True})
    assert reader.stat(("s",)).meta["done"] is True
    assert list(reader.verify()) == []
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.read(("s",), "x")


MARK = 16  # bytes behind each flush that say that it was durable


def test_every_torn_tail_is_ignored(tmp_path):
    """Cut at each byte: what is there is always a whole number of flushed parts, never an error."""
    frames = random.integers(0, 255, (6, 3, 4)).astype("u1")
    arrays = {"x": frames, "t": np.array(["a", "bb", "", "c", "d", "e"], np.dtypes.StringDType())}
    path = tmp_path / "run.arrow"
    engine = ArrowEngine(path)
    appender = engine.append(("s",), spec_of(arrays, META))
    file = tmp_path / "run.s.arrow"
    sizes = [file.stat().st_size]
    for row in range(6):
        appender.extend({name: array[row : row + 1] for name, array in arrays.items()})
        appender.flush()
        sizes.append(file.stat().st_size)
    appender.close({"whole": 1})
    engine.close()
    whole = file.read_bytes()
    file.unlink()
    torn = tmp_path / "torn.s.arrow"
    for cut in range(sizes[0], len(whole)):
        torn.write_bytes(whole[:cut])
        reader = ArrowEngine(tmp_path / "torn.arrow", "r")
        rows = sum(size - MARK <= cut for size in sizes) - 1
        got = reader.read(("s",), "x")
        assert len(got) == rows
        same(got, frames[:rows])
        found = list(reader.verify())
        if cut in {*sizes, *(size - MARK for size in sizes), len(whole)}:
            assert found == []
        assert all(
            "cut" in problem.what for problem in found
        )  # (as no writer leaves it: it was copied in part)
        assert found or cut >= sizes[-1] or any(size - MARK <= cut <= size for size in sizes)
    for cut in range(sizes[0] - MARK):
        torn.write_bytes(whole[:cut])
        with contextlib.suppress(Corrupt):  # unless the schema was whole already
            assert ArrowEngine(torn, "r").read(("s",), "x").shape == (0, 3, 4)
        assert list(ArrowEngine(tmp_path / "torn.arrow").keys()) in ([], [("s",)])


def test_a_damaged_file_hides_none_of_the_others(tmp_path):
    engine = ArrowEngine(tmp_path / "run.arrow")
    for name in ("good", "bad", "odd one"):
        appender = engine.append((name,), spec_of({"x": np.arange(50)}))
        appender.extend({"x": np.arange(50)})
        appender.close({})
    engine.close()
    bad = tmp_path / "run.bad.arrow"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100] + bytes(50) + whole[150:])
    (tmp_path / "run.notes.arrow").write_text("no Arrow file")
    (tmp_path / "run.empty.arrow").write_bytes(b"")
    engine = ArrowEngine(tmp_path / "run.arrow")
    assert list(engine.keys()) == [("bad",), ("good",), ("odd one",)]
    assert engine.read(("good",), "x").tolist() == list(range(50))
    with pytest.raises(Corrupt, match="bad"):
        engine.stat(("bad",))
    [problem] = engine.verify()
    assert problem[:2] == (("bad",), None)
    for taken in ("bad", "empty", "notes"):
        with pytest.raises(AlreadyExists):
            engine.append((taken,), spec_of({"x": np.arange(5)}))
    with pytest.raises(Corrupt):
        ArrowEngine(bad)


FLIPS = """
import sys, pathlib, random
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.errors import LabError
path = pathlib.Path(sys.argv[1]); whole = (path / "run.s.arrow").read_bytes()
chance = random.Random(1); outcomes = set()
for _ in range(600):
    at = chance.randrange(len(whole))
    broken = bytearray(whole); broken[at] ^= 1 << chance.randrange(8)
    (path / "run.s.arrow").write_bytes(broken)
    try:
        engine = ArrowEngine(path / "run.arrow", "r")
        for key in engine.keys():
            for name in engine.stat(key).arrays:
                engine.read(key, name)
        outcomes.add(bool(list(engine.verify())))
    except LabError:
        outcomes.add("error")
print(sorted(map(str, outcomes)))
"""


def test_bit_rot_never_ends_in_anything_but_a_typed_error_or_a_finding(tmp_path):
    arrays = {"x": random.random((40, 3)), "t": np.array(["text"] * 40, np.dtypes.StringDType())}
    engine, appender = store(tmp_path / "run.arrow", arrays)
    appender.close({"a": 1})
    engine.close()
    command = [sys.executable, "-c", FLIPS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'True'" in done.stdout
    assert "'error'" in done.stdout


def test_a_flipped_value_is_found_by_its_checksum(tmp_path):
    engine, appender = store(tmp_path / "run.arrow", {"x": np.full(1000, 0x5A5A5A5A5A5A5A5A)})
    appender.close({})
    engine.close()
    file = tmp_path / "run.s.arrow"
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"\x5a" * 64) + 8] ^= 1
    file.write_bytes(whole)
    [problem] = ArrowEngine(tmp_path / "run.arrow", "r").verify()
    assert problem[:2] == (("s",), "x")
    assert "checksum" in problem.what


def test_modes(tmp_path):
    path = tmp_path / "run.arrow"
    for mode in ("r", "r+"):
        with pytest.raises(NotFound, match="nor any 'run"):
            ArrowEngine(path, mode)
    with pytest.raises(NotFound, match="no folder"):
        ArrowEngine(tmp_path / "missing" / "run.arrow")
    (tmp_path / "folder.arrow").mkdir()
    with pytest.raises(EngineError, match="folder"):
        ArrowEngine(tmp_path / "folder.arrow")
    engine, appender = store(path, {"x": np.arange(3)})
    with pytest.raises(AlreadyExists, match="already"):
        engine.append(("s",), spec_of({"x": np.arange(3)}))
    with pytest.raises(AlreadyExists, match="named 'x'"):
        engine.append(("s", "x"), spec_of({"x": np.arange(3)}))
    appender.close({})
    appender.close({})
    with pytest.raises(EngineError, match="closed"):
        appender.extend({"x": np.arange(3)})
    engine.close()
    engine.close()
    with pytest.raises(AlreadyExists):
        ArrowEngine(path, "x")
    reader = ArrowEngine(path, "r")
    assert not reader.writable
    with pytest.raises(ReadOnly):
        reader.append(("t",), spec_of({"x": np.arange(3)}))
    ArrowEngine(path, "w").close()
    assert list(tmp_path.glob("*.s.arrow")) == []


def test_nothing_is_ever_changed(tmp_path):
    engine, appender = store(tmp_path / "run.arrow", {"x": np.arange(3)})
    assert isinstance(engine, Engine)
    for change in [
        lambda: engine.write(("a",), Record("array", {"x": np.arange(2)}, {}, {})),
        lambda: engine.update(("s",), {"a": 1}),
        lambda: engine.move(("s",), ("t",)),
        lambda: engine.delete(("s",)),
    ]:
        with pytest.raises(ReadOnly, match="merge_from"):
            change()
    for key in [("t",), ("s", "t")]:
        with pytest.raises(NotFound):
            engine.stat(key)
        with pytest.raises(NotFound):
            engine.read(key, "x")
        with pytest.raises(NotFound):
            list(engine.children(key))
    with pytest.raises(BadKey):
        engine.append((), spec_of({"x": np.arange(3)}))
    with pytest.raises(NotStorable, match="column"):
        engine.append(("t",), Stat("stream", {}, {}))
    for bad in (np.zeros((2, 0)), np.array([["a"]]), np.zeros(3, "V0")):
        with pytest.raises(NotStorable):
            engine.append(("t",), spec_of({"x": bad}))
    with pytest.raises(NotStorable):
        appender.extend({"x": np.zeros((2, 2), "i8")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.s.arrow", "run.s.arrow-lock"]
    engine.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run.s.arrow"]
    with open_store(tmp_path / "run.arrow", "r") as opened, open_store("memory://") as other:
        assert other.merge_from(opened) == 1
        assert other.record("s").arrays["x"].tolist() == [0, 1, 2]


def test_small_rows_share_a_batch_and_large_ones_do_not_wait(tmp_path):
    engine = ArrowEngine(tmp_path / "run.arrow")
    appender = engine.append(("s",), spec_of({"x": np.zeros((1, 1000))}))
    for _ in range(1300):
        appender.extend({"x": np.ones((1, 1000))})
    appender.close({})
    with pa.memory_map(str(tmp_path / "run.s.arrow")) as source:
        reader = pa.ipc.open_file(source)
        counts = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    assert sum(counts) == 1300
    assert max(counts) * 8000 == StreamAppender.piece_bytes
    engine.close()


@pytest.mark.parametrize("room", [False, True])
def test_a_full_disk_keeps_all_that_was_flushed_and_takes_the_rest_when_there_is_room(tmp_path, room):
    program = """
import resource, sys, numpy as np
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.errors import EngineError
from datastore_lab.records import ArrayInfo, Stat
whole = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, whole[1]))
engine = ArrowEngine(sys.argv[1])
appender = engine.append(("s",), Stat("stream", {"x": ArrayInfo("<i8", (0,), ("time",), 0, None)}, {}))
done = 0
try:
    while True:
        appender.extend({"x": np.arange(done, done + 10_000)})
        appender.flush()
        done += 10_000
except EngineError as error:
    assert "stays readable" in str(error), error
assert engine.read(("s",), "x").shape == (done,) and list(engine.verify()) == []
if sys.argv[2] == "True":
    resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    appender.flush(); done += 10_000
    assert engine.read(("s",), "x").shape == (done,)
    engine.close()
else:
    try:
        engine.close()
    except EngineError:
        pass
    else:
        raise SystemExit("it was closed")
print(done)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "run.arrow"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    flushed = int(done.stdout)
    assert flushed >= 300_000
    got = ArrowEngine(tmp_path / "run.arrow", "r").read(("s",), "x")
    assert np.array_equal(got, np.arange(flushed))


def test_pandas_is_not_dragged_in(tmp_path):
    program = f"""
import sys, numpy as np
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.records import ArrayInfo, Stat
engine = ArrowEngine({str(tmp_path / "run.arrow")!r})
arrays = {{"x": ArrayInfo("|u1", (0, 4, 5), ("time", "y", "x"), 0, None),
          "t": ArrayInfo("<M8[ns]", (0,), ("time",), 0, None), "s": ArrayInfo("T", (0,), ("time",), 0, None)}}
appender = engine.append(("s",), Stat("stream", arrays, {{}}))
rows = {{"x": np.zeros((3, 4, 5), "u1"), "t": np.zeros(3, "M8[ns]")}}
appender.extend({{**rows, "s": np.array(["a", "b", "c"], np.dtypes.StringDType())}})
appender.close({{}})
print([engine.read(("s",), name).shape for name in arrays])
assert not {{"pandas", "h5py", "zarr"}} & sys.modules.keys(), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def append_and_flush(mark, path):
    """Append rows in three flushes, the second of two batches, and close; note each step."""
    engine = ArrowEngine(path)
    appender = engine.append(("s",), spec_of({"x": np.arange(3)}))
    mark()
    for count in (3, 4, 2):
        for _ in range(2 if count == 4 else 1):
            appender.extend({"x": np.arange(count)})
            appender._put_waiting()
        appender.flush()
        mark()
    appender.close({})
    mark()


ROWS = [*range(3), *range(4), *range(4), *range(2)]


def see_rows(path):
    """Give what is to be seen of the rows; None if that there is something wrong is what one sees."""
    try:
        return ArrowEngine(path, "r").read(("s",), "x").tolist()
    except Corrupt:
        return None


def test_one_flipped_bit_hides_no_flushed_rows_after_a_crash(tmp_path):
    """Wherever a crash falls, rot in what was acknowledged is not taken for an end that was not finished."""
    live, notes = tmp_path / "live", tmp_path / "notes"
    live.mkdir()
    notes.mkdir()
    changes = syscalls.record(append_and_flush, (live / "run.arrow",), live, notes)
    path, flips = tmp_path / "run.s.arrow", 0
    for number, state in enumerate(power.states(changes)):
        held = state.files.get("run.s.arrow")
        if state.marks < 2 or held is None:
            continue
        acknowledged = (3, 11, 13, 13)[state.marks - 2]
        for at in range(number % 61, len(held), 61):
            flipped = bytearray(held)
            flipped[at] ^= 1 << (at + number) % 8
            path.write_bytes(flipped)
            seen = see_rows(tmp_path / "run.arrow")
            assert seen is None or (seen == ROWS[: len(seen)] and len(seen) >= acknowledged), (state[:2], at)
            flips += 1
    assert flips > 500


@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_appended_later_never_changes_rows_that_wait(tmp_path, monkeypatch, ahead):
    """Memory is used again only when its rows are on the disk: with all edges of waiting and committing."""
    if not ahead:  # as on a disk that takes nothing before the flush
        monkeypatch.setattr(IpcAppender, "_write_ahead", lambda self: None)
    monkeypatch.setattr(StreamAppender, "piece_bytes", 1_000_000)
    monkeypatch.setattr(StreamAppender, "commit_bytes", 2_500_000)
    spec = spec_of({"x": np.zeros((1, 100)), "n": np.zeros(1, "i8")})
    engine = ArrowEngine(tmp_path / "run.arrow")
    appender, done = engine.append(("s",), spec), 0
    for length in [700, 700, 700, 1500, 1500, 1500, 700, 1500, 700, 700, 1500, 3000, 700, 3000, 1500] * 2:
        numbers = np.arange(done, done + length)
        block = {"x": np.repeat(numbers[:, None], 100, axis=1).astype("f8"), "n": numbers}
        appender.extend(block)
        block["x"][...] = block["n"][...] = -1
        done += length
        if length == 3000:
            appender.flush()
    appender.close({})
    assert np.array_equal(engine.read(("s",), "n"), np.arange(done))
    assert np.array_equal(engine.read(("s",), "x")[:, 7], np.arange(done))
    engine.close()


@pytest.mark.parametrize("ends", ["closed", "abandoned", "killed"])
def test_room_that_was_asked_for_ahead_goes_back(tmp_path, ends):
    program = f"""
import os, sys, numpy as np
from datastore_lab.engines.arrow import ArrowEngine
from datastore_lab.records import ArrayInfo, Stat
engine = ArrowEngine(sys.argv[1])
appender = engine.append(("s",), Stat("stream", {{"x": ArrayInfo("<i8", (0,), ("time",), 0, None)}}, {{}}))
appender.extend({{"x": np.arange(2_500_000)}})
appender.flush()
{dict(closed="engine.close()", abandoned="appender.abandon()", killed="os._exit(0)")[ends]}
"""
    run = [sys.executable, "-c", program, str(tmp_path / "run.arrow")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    engine = ArrowEngine(tmp_path / "run.arrow")
    found = (tmp_path / "run.s.arrow").stat()
    assert found.st_size > 20_000_000
    assert found.st_blocks * 512 < found.st_size + 1_000_000
    assert np.array_equal(engine.read(("s",), "x"), np.arange(2_500_000))
    engine.close()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_write_that_fails_anywhere_is_made_good_by_the_next_flush(tmp_path, monkeypatch, durability):
    """Whichever write fails, half done, and whether memory was given back: no row is lost or doubled."""
    monkeypatch.setattr(StreamAppender, "piece_bytes", 400_000)
    monkeypatch.setattr(StreamAppender, "commit_bytes", 1_000_000)
    whole, calls = disk.write_at, itertools.count()

    def write_at(handle, buffer, at):
        if next(calls) == failing:
            whole(handle, memoryview(buffer).cast("B")[: memoryview(buffer).nbytes // 2], at)
            raise OSError(errno.ENOSPC, "no room")
        return whole(handle, buffer, at)

    for failing in range(4, 30):
        path, numbers = tmp_path / f"{failing}.arrow", np.arange(400_000)
        engine = ArrowEngine(path, durability=durability)
        appender = engine.append(("s",), spec_of({"x": np.arange(3)}))
        calls = itertools.count()
        monkeypatch.setattr(disk, "write_at", write_at)
        for start in range(0, len(numbers), 35_000):
            block = numbers[start : start + 35_000].copy()
            steps = [functools.partial(appender.extend, {"x": block}), appender.flush]
            for step in steps[: 1 + (start % 140_000 == 0)]:
                try:
                    step()
                except EngineError:
                    step()
            block[:] = -1
        monkeypatch.setattr(disk, "write_at", whole)
        appender.close({})
        assert np.array_equal(engine.read(("s",), "x"), numbers), failing
        assert list(engine.verify()) == []
        engine.close()
