"""Experiments as folders: trials that are there completely or not at all, and folders of earlier programs."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from datastore_lab import open_store
from datastore_lab.engines.trials import TrialsEngine
from datastore_lab.engines.trials import npy as npy_module
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    Corrupt,
    EngineError,
    Foreign,
    LabError,
    Locked,
    NotFound,
    NotStorable,
)
from datastore_lab.streams import disk

KEY = ("p1", "reach")


@pytest.fixture
def engine(tmp_path):
    made = TrialsEngine(tmp_path / "data", durability="process")
    yield made
    made.close()


def test_trials_with_attributes_and_arrays(engine, tmp_path):
    task = engine.task(KEY)
    emg = [np.arange(6.0 + n).reshape(-1, 1) for n in range(3)]
    for number in range(3):
        row = {"block": number // 2, "target": f"00{number}", "late": number == 1, "angle": number / 3}
        assert task.write(row, {"emg": emg[number]}) == number
    task.close({"note": "done"})
    assert list(engine.keys()) == [KEY, *((*KEY, "emg", str(number)) for number in range(3))]
    assert list(engine.children(())) == ["p1"]
    assert list(engine.children(KEY)) == ["emg"]
    assert list(engine.children((*KEY, "emg"))) == ["0", "1", "2"]
    assert engine.stat((*KEY, "emg")).kind == "group"
    assert engine.read(KEY, "target").tolist() == ["000", "001", "002"]
    assert engine.read(KEY, "block").tolist() == [0, 0, 1]
    assert engine.read(KEY, "late").tolist() == [False, True, False]
    for number in range(3):
        assert np.array_equal(engine.read((*KEY, "emg", str(number)), "data"), emg[number])
        assert engine.read((*KEY, "emg", str(number)), "data", (slice(4, 1, -2), 0)).tolist() == [4, 2]
    assert engine.stat(KEY).meta == {"note": "done"}
    assert list(engine.verify()) == []
    plain = tmp_path / "data" / "p1" / "reach"
    table = pd.read_csv(plain / "trials.csv", dtype={"target": str})
    assert table["target"].tolist() == ["000", "001", "002"]
    assert np.array_equal(np.load(plain / "emg" / "2.npy"), emg[2])
    with open_store(engine.url, "r") as store:
        assert store.record((*KEY, "emg", "1")).arrays["data"].shape == (7, 1)
        assert store.lazy(KEY)["angle"].values.tolist() == [0, 1 / 3, 2 / 3]


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_a_task_is_gone_on_with(tmp_path, form):
    for session in range(3):
        engine = TrialsEngine(tmp_path / "data", durability="process")
        task = engine.task(KEY, arrays=form)
        assert len(task) == 2 * session
        for number in range(2):
            task.write({"session": session}, {"x": np.full(4, 2 * session + number)})
        engine.close()
    engine = TrialsEngine(tmp_path / "data", "r")
    assert engine.read(KEY, "session").tolist() == [0, 0, 1, 1, 2, 2]
    assert [engine.read((*KEY, "x", str(number)), "data")[0] for number in range(6)] == list(range(6))
    assert list(engine.verify()) == []


def test_attributes_that_come_later_and_change_their_type(engine):
    task = engine.task(KEY)
    task.write({"n": 1, "on": True, "f": 0.5, "t": np.datetime64("2026-01-01", "ns")})
    task.write({"n": 2, "name": "007", "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)})
    task.write({"n": "many", "f": 3, "late": 7})
    task.close({})
    read = lambda name: engine.read(KEY, name)
    assert read("n").tolist() == ["1", "2", "many"]
    assert read("on").tolist() == ["true", "", ""]
    assert np.array_equal(read("f"), [0.5, np.nan, 3.0], equal_nan=True)
    assert np.isnat(read("t")).tolist() == [False, True, True]
    assert read("name").tolist() == ["", "007", ""]
    assert np.isnat(read("when")).tolist() == [True, False, True]
    assert np.array_equal(read("late"), [np.nan, np.nan, 7], equal_nan=True)
    assert list(engine.verify()) == []


def test_whole_numbers_are_never_rounded(engine):
    task = engine.task(KEY)
    task.write({"id": 2**60 + 1})
    task.write({})
    assert engine.read(KEY, "id").tolist() == [str(2**60 + 1), ""]


@pytest.mark.parametrize(
    ("attributes", "arrays", "error"),
    [
        ({"a": [1]}, {}, NotStorable),
        ({"a": 1 << 70}, {}, NotStorable),
        ({"": 1}, {}, BadKey),
        ({"lab_x": 1}, {}, BadKey),
        ({"a": 1}, {"a": np.zeros(2)}, AlreadyExists),
        ({"a": 1}, {"o": np.array([{}])}, NotStorable),
        ({"a": 1}, {"long" * 100: np.zeros(2)}, BadKey),
    ],
)
def test_what_is_refused_leaves_no_trace(engine, tmp_path, attributes, arrays, error):
    task = engine.task(KEY)
    task.write({"n": 0}, {"x": np.zeros(2)})
    before = sorted(tmp_path.rglob("*")), (tmp_path / "data/p1/reach/trials.csv").read_bytes()
    with pytest.raises(error):
        task.write(attributes, arrays)
    assert before == (sorted(tmp_path.rglob("*")), (tmp_path / "data/p1/reach/trials.csv").read_bytes())
    assert task.write({"n": 1}) == 1
    assert engine.read(KEY, "n").tolist() == [0, 1]


def test_no_name_leads_out_of_the_folder(engine, tmp_path):
    outside = {path for path in tmp_path.iterdir() if path.name != "data"}
    for key in [("..", "t"), ("a/../../b", "t"), ("p", "/etc"), ("p", "con"), (".", "..")]:
        engine.task(key).write({"n": 1}, {"../../x": np.arange(2)})
        assert engine.read((*key, "../../x", "0"), "data").tolist() == [0, 1]
    assert {path for path in tmp_path.iterdir() if path.name != "data"} == outside
    assert list(engine.verify()) == []


def test_links_are_not_followed(engine, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    np.save(secret / "0.npy", np.arange(3))
    task = engine.task(KEY)
    task.write({"n": 1}, {"x": np.arange(2)})
    folder = tmp_path / "data" / "p1" / "reach"
    shutil.rmtree(folder / "x")
    (folder / "x").symlink_to(secret)
    with pytest.raises(Corrupt, match="missing"):
        engine.read((*KEY, "x", "0"), "data")
    with pytest.raises(EngineError, match="link"):
        task.write({"n": 2}, {"x": np.arange(2)})
    assert list(secret.iterdir()) == [secret / "0.npy"]
    assert len(task) == 1
    (tmp_path / "data" / "p2").symlink_to(secret)
    assert all(key[0] == "p1" for key in list(engine.keys()))
    with pytest.raises(EngineError, match="folder of this experiment"):
        engine.task(("p2", "t"))


def test_a_trial_that_fails_is_not_there(engine, tmp_path, monkeypatch):
    task = engine.task(KEY)
    task.write({"n": 0}, {"x": np.zeros(2), "y": np.zeros(3)})
    plain = npy_module.save

    def fails(path, array, *, durable):
        if "/y/" in path:
            raise OSError(28, "No space left on device")
        return plain(path, array, durable=durable)

    monkeypatch.setattr(npy_module, "save", fails)
    with pytest.raises(EngineError, match="No space"):
        task.write({"n": 1}, {"x": np.ones(2), "y": np.ones(3)})
    monkeypatch.undo()
    assert len(task) == 1
    assert not (tmp_path / "data/p1/reach/x/1.npy").exists()
    assert task.write({"n": 2}, {"x": np.full(2, 2.0), "y": np.ones(3)}) == 1
    assert engine.read(KEY, "n").tolist() == [0, 2]
    assert list(engine.verify()) == []


def test_each_state_that_a_killed_writer_can_leave(tmp_path):
    states = []
    place = tmp_path / "live" / "data"
    place.parent.mkdir()
    engine = TrialsEngine(place, durability="process")
    task = engine.task(KEY)

    def copy(event, arguments):
        if event in {"open", "os.rename", "os.remove", "os.mkdir"} and str(arguments[0]).startswith(
            str(place)
        ):
            watched.append(True)

    watched: list[bool] = []
    del copy
    for number in range(6):
        task.write({"n": number, f"new{number % 3}": "x"}, {"e": np.full(3, number)})
        state = tmp_path / f"state {number}"
        shutil.copytree(place, state)
        states.append((state, number + 1))
    engine.close()
    for state, count in states:
        reader = TrialsEngine(state, "r")
        assert reader.read(KEY, "n").tolist() == list(range(count))
        assert list(reader.verify()) == []
        again = TrialsEngine(state, "a")
        assert again.task(KEY).write({"n": 99}) == count
        assert list(again.verify()) == []
        again.close()


def test_a_crash_between_the_two_renames(tmp_path, monkeypatch):
    engine = TrialsEngine(tmp_path / "data", durability="process")
    task = engine.task(KEY)
    task.write({"n": 0})
    plain, count = os.replace, []

    def replace(source, target):
        if str(source).endswith("-mend.json"):
            count.append(source)
            raise OSError(5, "killed here")
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="killed"):
        task.write({"n": 1, "new": "a"})
    monkeypatch.undo()
    assert count
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    reader = TrialsEngine(tmp_path / "copy", "r")
    assert reader.read(KEY, "n").tolist() == [0]
    assert reader.read(KEY, "new").tolist() == [""]
    assert list(reader.verify()) == []
    again = TrialsEngine(tmp_path / "copy", "a")
    again.task(KEY).write({"n": 2, "new": "b"})
    assert again.read(KEY, "new").tolist() == ["", "b"]
    again.close()


def test_two_writers_of_a_task(engine, tmp_path):
    task = engine.task(KEY)
    task.write({"n": 0})
    other = TrialsEngine(tmp_path / "data")
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        other.task(KEY)
    other.task(("p2", "reach")).write({"n": 0})
    task.close({})
    assert other.task(KEY).write({"n": 1}) == 1
    other.close()


def test_a_flipped_bit_of_an_array_is_found(engine, tmp_path):
    engine.task(KEY).write({"n": 0}, {"x": np.arange(1000.0)})
    file = tmp_path / "data/p1/reach/x/0.npy"
    whole = file.read_bytes()
    for at in [0, 8, 40, 100, 200, len(whole) - 1]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(LabError):
            engine.read((*KEY, "x", "0"), "data")
        assert [problem.key for problem in engine.verify()] == [(*KEY, "x", "0")]
        assert engine.read(KEY, "n").tolist() == [0]
    file.write_bytes(whole)
    assert list(engine.verify()) == []


@pytest.fixture
def old(tmp_path):
    """A folder as earlier programs of this kind leave it."""
    folder = tmp_path / "experiment01_data" / "p0" / "cursor"
    folder.mkdir(parents=True)
    (folder / "trials.csv").write_text("block,trial,subject,score\n0,0,007,1.5\n0,1,007,\n1,0,007,2\n")
    with h5py.File(folder / "emg.hdf5", "w") as file:
        for number in range(12):
            file[str(number)] = np.full((2, 3), float(number))
    return tmp_path / "experiment01_data"


def test_folders_of_earlier_programs_are_read(old):
    engine = TrialsEngine(old, "r")
    key = ("p0", "cursor")
    assert engine.read(key, "subject").tolist() == ["007"] * 3
    assert np.array_equal(engine.read(key, "score"), [1.5, np.nan, 2], equal_nan=True)
    assert engine.read(key, "block").tolist() == [0, 0, 1]
    assert list(engine.children((*key, "emg"))) == [str(number) for number in range(12)]
    assert engine.read((*key, "emg", "10"), "data", (0,)).tolist() == [10.0] * 3
    assert list(engine.verify()) == []
    with pytest.raises(NotFound):
        engine.stat((*key, "emg", "12"))
    with pytest.raises(Foreign, match="only read"):
        TrialsEngine(old).task(key)


@pytest.mark.parametrize("chunks", [None, (2, 5, 2)])
@pytest.mark.parametrize(
    "selection",
    [
        (),
        (3,),
        (-1, slice(None, None, -2)),
        (slice(8, 1, -3), ..., 1),
        (slice(2, 2),),
        (slice(None), 4, -1),
        (..., slice(2, None, -1)),
    ],
)
def test_any_part_of_an_old_array_is_what_numpy_would_give(old, chunks, selection):
    array = np.arange(10 * 6 * 3, dtype=">i4").reshape(10, 6, 3)
    with h5py.File(old / "p0" / "cursor" / "emg.hdf5", "a") as file:
        file.create_dataset("99", data=array, chunks=chunks)
        file["100"] = np.float64(2.5)
    engine = TrialsEngine(old, "r")
    if Ellipsis in selection:
        gap = selection.index(Ellipsis)
        fill = [slice(None)] * (3 - len(selection) + 1)
        selection = (*selection[:gap], *fill, *selection[gap + 1 :])
    got = engine.read(("p0", "cursor", "emg", "99"), "data", selection)
    assert np.array_equal(got, array[selection])
    assert (got.dtype, got.shape) == (array.dtype, array[selection].shape)
    assert engine.read(("p0", "cursor", "emg", "100"), "data").tolist() == 2.5


def test_a_part_of_an_old_array_reads_no_more_than_that(old):
    """Of chunks only those that hold it, of which others are damaged; of the rest only the rows."""
    path, key = old / "p0" / "cursor" / "emg.hdf5", ("p0", "cursor", "emg")
    with h5py.File(path, "a") as file:
        chunked = file.create_dataset("50", data=np.ones((100, 1000)), chunks=(10, 1000), fletcher32=True)
        damaged = chunked.id.get_chunk_info_by_coord((50, 0)).byte_offset
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((1 << 16, 1 << 10))
        h5py.h5d.create(file.id, b"51", h5py.h5t.NATIVE_DOUBLE, space, early)  # (half a GB of nothing)
    with path.open("r+b") as file:
        file.seek(damaged + 8)
        file.write(b"damaged!")
    engine = TrialsEngine(old, "r")
    assert engine.read((*key, "50"), "data", (slice(0, 40),)).sum() == 40_000
    with pytest.raises(Corrupt):
        engine.read((*key, "50"), "data")
    tracemalloc.start()
    assert engine.read((*key, "51"), "data", (slice(7, 9), 3)).tolist() == [0, 0]
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_an_old_file_that_is_being_written_is_left_alone(old):
    hold = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    path = old / "p0" / "cursor" / "emg.hdf5"
    command = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        engine = TrialsEngine(old, "r")
        with pytest.raises(Locked, match="open for writing"):
            engine.read(("p0", "cursor", "emg", "10"), "data")
        writer.stdin.close()
        writer.wait(30)
    assert engine.read(("p0", "cursor", "emg", "10"), "data").shape == (2, 3)


def test_what_an_old_folder_must_not_do(old, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["0"] = np.arange(3)
    folder = old / "p0" / "cursor"
    with h5py.File(folder / "bad.hdf5", "w") as file:
        file["external"] = h5py.ExternalLink(str(secret), "/0")
        file["soft"] = h5py.SoftLink("/huge")
        file.create_dataset("huge", (1 << 40,), "f8", chunks=(1 << 16,), compression="gzip")
        file["objects"] = np.array(["a", "b"], h5py.string_dtype())
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource(str(secret), "0", (3,))
        file.create_virtual_dataset("virtual", layout)
    engine = TrialsEngine(old, "r")
    key = ("p0", "cursor", "bad")
    assert set(engine.children(key)) == {"huge", "objects", "virtual"}
    for name in ("external", "soft", "huge", "objects", "virtual"):
        with pytest.raises(LabError):
            engine.read((*key, name), "data")


def test_npy_files_are_read_within_limits(tmp_path):
    path = tmp_path / "0.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(Foreign, match="objects"):
        npy_module.NpyFile(str(path), KEY, None)
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(Corrupt, match="says"):
        npy_module.NpyFile(str(path), KEY, None)
    for content in (
        b"",
        b"\x93NUMPY",
        b"x" * 300,
        b"\x93NUMPY\x01\x00\x40\x00__import__('os').abort()" + b" " * 64,
    ):
        path.write_bytes(content)
        with pytest.raises(LabError):
            npy_module.NpyFile(str(path), KEY, None)
    turned = np.asfortranarray(np.arange(12).reshape(3, 4))
    np.save(path, turned)
    assert np.array_equal(
        npy_module.NpyFile(str(path), KEY, None).read("data", (slice(None), 1)), turned[:, 1]
    )


def test_modes(tmp_path):
    for mode in ("r", "r+"):
        with pytest.raises(NotFound):
            TrialsEngine(tmp_path / "none", mode)
    (tmp_path / "file").write_text("x")
    with pytest.raises(Foreign, match="folder"):
        TrialsEngine(tmp_path / "file")
    engine = TrialsEngine(tmp_path / "data")
    engine.task(KEY).write({"n": 1}, {"x": np.zeros(2)})
    engine.close()
    (tmp_path / "data" / "notes.txt").write_text("by hand")
    with pytest.raises(AlreadyExists):
        TrialsEngine(tmp_path / "data", "x")
    TrialsEngine(tmp_path / "data", "w").close()
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["notes.txt"]


def test_appending_a_trial_takes_the_same_time_however_many_there_are(engine):
    """Counted in bytes written, which no other load on the machine changes."""
    task = engine.task(KEY)
    sizes = []
    for number in range(300):
        before = written()
        task.write({"n": number, "name": "a"}, {"x": np.zeros(16)})
        sizes.append(written() - before)
    assert np.median(sizes[-50:]) <= 1.2 * np.median(sizes[20:70])


def written():
    if not sys.platform.startswith("linux"):
        pytest.skip("counts the bytes in /proc")
    with Path("/proc/self/io").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def test_a_task_that_was_hardly_begun_is_begun_anew(tmp_path, monkeypatch):
    def stopped(*_arguments):
        shutil.copytree(tmp_path / "data", tmp_path / "left")
        raise KeyboardInterrupt

    engine = TrialsEngine(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "create", stopped)
        with pytest.raises(KeyboardInterrupt):
            engine.task(("p", "t"))
    assert list((tmp_path / "data" / "p" / "t").iterdir()) == []
    assert (tmp_path / "left" / "p" / "t" / "trials.csv.json").exists()
    again = TrialsEngine(tmp_path / "left")
    assert list(again.keys()) == []
    assert again.task(("p", "t")).write({"a": 1}, {"emg": np.arange(3)}) == 0
    assert list(again.keys()) == [("p", "t"), ("p", "t", "emg", "0")]
    again.close()


@pytest.mark.parametrize("form", ["npy", "hdf5"])
@pytest.mark.parametrize("at", ["replace", "fsync"])
def test_a_refused_trial_leaves_no_trace_and_the_next_one_follows(tmp_path, monkeypatch, at, form):
    """Each call of a kind is refused once, from the first to the last that a trial makes."""
    engine, number, refused = TrialsEngine(tmp_path / "data"), 0, 1
    task, real = engine.task(("p", "t"), arrays=form), getattr(os, at)
    task.write({"a": 0}, {"emg": np.arange(3)})
    while True:
        calls = itertools.count()

        def once(*arguments, calls=calls, stop=refused - 1, **options):
            if next(calls) == stop:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, at, once)
            try:
                number = task.write({f"n{refused}": refused}, {"emg": np.arange(3)})
            except EngineError:
                assert len(task) == len(engine.read(("p", "t"), "a")) == refused
                number = task.write({f"n{refused}": refused}, {"emg": np.arange(3)})
                refused += 1
            else:
                break
        assert number == refused - 1
        assert list(engine.verify()) == []
        assert list(engine.children(("p", "t", "emg"))) == [str(one) for one in range(refused)]
    assert refused > 3
    engine.close()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=">i2").reshape(7, 1),
        np.array(2.5, ">f8"),
        np.array(["a", "b\u00e9", ""]),
        np.array([b"x", b"yz"]),
        np.array([True, False]),
        np.array([1 + 2j, np.nan], "c8"),
        np.array(["2026-01-01", "NaT"], "M8[us]"),
        np.zeros((0, 4)),
        np.zeros((3, 0, 2), "f4"),
        np.arange(600_000.0).reshape(3, 2, 100_000),
        np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
        np.array([1.5], np.longdouble),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
@pytest.mark.parametrize("live", [True, False], ids=["while it is written", "afterwards"])
def test_datasets_of_trials_keep_every_type(tmp_path, array, live):
    engine = TrialsEngine(tmp_path / "data", durability="process")
    task = engine.task(KEY, arrays="hdf5")
    task.write({"n": 0}, {"x": array})
    if not live:
        task.close({})
    key = (*KEY, "x", "0")
    found = engine.read(key, "data")
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes() if array.dtype != np.longdouble else found == array
    assert engine.stat(key).arrays["data"].shape == array.shape
    if array.ndim and len(array):
        assert np.array_equal(
            engine.read(key, "data", (slice(None, None, -2),)).tolist(),
            array[::-2].tolist(),
            equal_nan=array.dtype.kind in "fc",
        )
    assert list(engine.verify()) == []
    engine.close()
    assert sorted(path.name for path in (tmp_path / "data/p1/reach").iterdir()) == [
        "trials.csv",
        "trials.csv.json",
        "x.hdf5",
    ]


def test_a_flipped_bit_of_a_dataset_is_found(tmp_path):
    engine = TrialsEngine(tmp_path / "data", durability="process")
    engine.task(KEY, arrays="hdf5").write({"n": 0}, {"x": np.arange(5000.0)})
    engine.close()
    file = tmp_path / "data/p1/reach/x.hdf5"
    with h5py.File(file) as plain:
        assert np.array_equal(plain["0"], np.arange(5000.0))
        at = plain["0"].id.get_offset() + 8000
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1
    file.write_bytes(raw)
    reader = TrialsEngine(tmp_path / "data", "r")
    with pytest.raises(Corrupt, match="restore it"):
        reader.read((*KEY, "x", "0"), "data", (slice(999, 1002),))
    assert [problem.key for problem in reader.verify()] == [(*KEY, "x", "0")]
    reader.close()


def test_arrays_whose_table_is_gone_are_not_added_to(tmp_path):
    engine = TrialsEngine(tmp_path / "data", durability="process")
    engine.task(KEY, arrays="hdf5").write({"n": 0}, {"x": np.arange(3)})
    engine.close()
    folder = tmp_path / "data/p1/reach"
    for name in ("trials.csv", "trials.csv.json"):
        (folder / name).unlink()
    engine = TrialsEngine(tmp_path / "data")
    with pytest.raises(AlreadyExists, match="put it back"):
        engine.task(KEY, arrays="hdf5")
    engine.close()
    with h5py.File(folder / "x.hdf5") as plain:
        assert plain["0"][...].tolist() == [0, 1, 2]


def test_beginning_anew_leaves_no_dataset(tmp_path):
    engine = TrialsEngine(tmp_path / "data", durability="process")
    engine.task(KEY, arrays="hdf5").write({"n": 0}, {"x": np.arange(3)})
    engine.close()
    engine = TrialsEngine(tmp_path / "data", "w", durability="process")
    assert engine.task(KEY, arrays="hdf5").write({"n": 1}, {"x": np.arange(4)}) == 0
    assert engine.read((*KEY, "x", "0"), "data").tolist() == [0, 1, 2, 3]
    engine.close()
