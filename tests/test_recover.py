"""Files whose writers were stopped: what is whole of them comes back, and the rest is named."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from datastore_lab import open_store, recover
from datastore_lab.cli import main
from datastore_lab.engines.hdf5 import marks
from datastore_lab.engines.hdf5.disk import Disk
from datastore_lab.errors import Corrupt, EngineError, Locked
from datastore_lab.store import recovering

BEGIN = """
import os, sys, h5py
file = h5py.File(sys.argv[1], "w", libver=("v110", "v110"))
data = file.create_dataset("x", (0, 8), maxshape=(None, 8), chunks=(64, 8), dtype="f8")
def grow(number):
    data.resize((10 * number + 10, 8))
    data[10 * number:] = number
"""
ALONE = """
for number in range({count}):
    grow(number); file.flush()
"""
SWMR = """
file.swmr_mode = True
for number in range({count}):
    grow(number); data.flush()
"""


def stopped(path, script, **given):
    """Let another program write a file until it is killed."""
    code = textwrap.dedent(script).format(**given) + "\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL


def names(folder):
    return [found.name for found in folder.iterdir()]


def rows(count):
    return np.repeat(np.arange(count), 10)[:, None] * np.ones(8)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(recovering, "_QUIET", 0.05)


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("way", [ALONE, SWMR], ids=["alone", "swmr"])
def test_an_hdf5_file_of_a_killed_program_is_whole_again(tmp_path, way, count):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + way, count=count)
    before = path.read_bytes()
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path)
    found = recover(path)
    assert "no longer marked" in found.done[0]
    assert (found.lost, found.path) == ((), str(path))
    with h5py.File(path, "r+") as file:
        assert np.array_equal(file["x"][()], rows(count))
    assert Path(found.kept).read_bytes() == before


@pytest.mark.parametrize("way", [ALONE, SWMR], ids=["alone", "swmr"])
def test_until_then_it_can_be_read_and_not_written(tmp_path, way):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + way, count=30)
    before = path.read_bytes()
    with open_store(path, "r") as store:
        assert np.array_equal(store.record(()).arrays["x"], rows(30))
        assert not store.verify()
    for mode in ("r+", "a"):
        with pytest.raises(Locked, match="recover"):
            open_store(path, mode)
    assert path.read_bytes() == before


def test_a_new_store_takes_the_place_of_a_marked_file(tmp_path):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + SWMR, count=3)
    with open_store(path, "w") as store:
        store["a"] = 1
    assert recover(path)[1:] == ((), (), None)


@pytest.mark.parametrize("way", [ALONE, SWMR], ids=["alone", "swmr"])
def test_a_file_is_left_to_the_program_that_writes_it(tmp_path, way):
    path = tmp_path / "a.h5"
    code = (BEGIN + way).format(count=30) + "\nprint('ready', flush=True); sys.stdin.read()"
    alive = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert alive.stdout.readline() == b"ready\n"
        before = path.read_bytes()
        with pytest.raises(Locked, match="alive"):
            recover(path)
        assert path.read_bytes() == before
        assert names(tmp_path) == ["a.h5"]
    finally:
        alive.kill()
        alive.communicate()


def test_a_file_that_changes_while_it_is_watched_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + SWMR, count=3)
    monkeypatch.setattr(recovering, "_is_open_for_writing", lambda place: False)
    monkeypatch.setattr(recovering.time, "sleep", lambda seconds: os.utime(path))
    with pytest.raises(Locked, match="alive"):
        recover(path)
    assert names(tmp_path) == ["a.h5"]


def test_a_mark_with_a_false_checksum_is_none(tmp_path):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + SWMR, count=3)
    raw = bytearray(path.read_bytes())
    raw[45] ^= 1
    path.write_bytes(raw)
    with path.open("rb") as file:
        assert marks.find(Disk(), file.fileno()) is None
    with pytest.raises((Corrupt, EngineError)):
        open_store(path, "r")


def test_a_superblock_behind_a_user_block_is_found(tmp_path):
    path = tmp_path / "a.h5"
    begin = BEGIN.replace('"v110"))', '"v110"), userblock_size=1024)')
    stopped(path, begin + ALONE, count=5)
    assert recover(path).done
    with h5py.File(path) as file:
        assert file["x"].shape == (50, 8)


# -- Arrow ---------------------------------------------------------------------------------------------


def arrow_file(path, *, count=5, compression=None, text=False):
    """Write a file, and give where each of its batches ends."""
    names = pa.array(["a", "b"] * 500).dictionary_encode() if text else pa.array([0.5] * 1000)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    ends = []
    with pa.OSFile(str(path), "wb") as sink:
        batch = pa.record_batch({"x": np.arange(1000), "y": names}).replace_schema_metadata({"by": "me"})
        with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
            for _ in range(count):
                writer.write_batch(batch)
                ends.append(sink.tell())
    return ends


@pytest.mark.parametrize("form", [{}, {"compression": "zstd"}, {"text": True}], ids=str)
def test_an_arrow_file_keeps_every_batch_that_is_whole(tmp_path, form):
    path, whole = tmp_path / "run.arrow", tmp_path / "whole.arrow"
    ends = arrow_file(whole, **form)
    for size in [ends[0], ends[2] - 1, ends[2], ends[3] + 7, ends[4], whole.stat().st_size - 3]:
        path.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(Corrupt, match="recover"):
            open_store(path, "r")
        found = recover(path)
        batches = sum(end <= size for end in ends)
        with pa.ipc.open_file(str(path)) as reader:
            assert reader.num_record_batches == batches
            table = reader.read_all()
        with pa.ipc.open_file(str(whole)) as reader:
            assert table.equals(reader.read_all()[: 1000 * batches], check_metadata=True)
        lost = size - ends[batches - 1]
        if size <= ends[-1]:  # (what follows is the torn index)
            assert (f"the last {lost:,} bytes" in found.done[0]) == (lost > 0)
        path.unlink()
        Path(found.kept).unlink()


def test_a_batch_that_is_damaged_ends_what_is_brought_back(tmp_path):
    path = tmp_path / "run.arrow"
    ends = arrow_file(path, text=True)
    raw = bytearray(path.read_bytes()[: ends[-1]])
    raw[ends[2] : ends[2] + 8] = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
    path.write_bytes(raw)
    assert "3 whole batches of 3,000 rows" in recover(path).done[0]


# -- what this package leaves --------------------------------------------------------------------------

OURS = """
import os, sys
import numpy as np
from datastore_lab import open_store
from datastore_lab.records import ArrayInfo, Stat
store = open_store(sys.argv[1], "a")
spec = Stat("stream", {{"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}}, {{}})
stream = store.append("daq", spec)
stream.extend({{"x": np.arange(1000.0)}})
stream.flush()
stream.extend({{"x": np.arange(1000.0)}})
"""


@pytest.mark.parametrize("name", ["a.h5", "a.zarr", "a.parquet", "a.arrow", "a.csv", "a.sqlite"])
def test_what_was_flushed_before_a_kill_is_there_afterwards(tmp_path, name):
    path = tmp_path / name
    stopped(path, OURS)
    found = recover(path)
    assert (found.lost, found.kept) == ((), None)
    with open_store(path, "r") as store:
        assert store.stat("daq").arrays["x"].shape == (1000,)
        assert not store.verify()
    assert recover(path) == (str(path), (), (), None)


def test_neighbours_with_a_longer_name_are_none_of_its_files(tmp_path):
    path = tmp_path / "a.h5"
    for name in ("a.h5-journal", "a.camera.h5", "ab.h5", "a2.h5", "a.h5-shm"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.h5-empty").touch()
    assert recovering._beside(path) == {"a.h5-journal", "a.camera.h5"}


def test_the_spool_of_a_parquet_file_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    stopped(path, OURS)
    assert any("a.daq.parquet" in line for line in recover(path).done)


def test_damage_is_named_as_lost(tmp_path):
    path = tmp_path / "a.h5"
    with open_store(path) as store:
        store["a"] = np.arange(100_000.0)
        store["b"] = 1
    raw = bytearray(path.read_bytes())
    at = raw.index(np.arange(50_000.0, 50_010.0).tobytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    found = recover(path)
    assert (found.done, len(found.lost)) == ((), 1)
    assert found.lost[0].startswith("a, array 'data'")


def test_nothing_is_done_to_a_whole_file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = [1, 2]
    before = path.read_bytes()
    assert recover(path) == (str(path), (), (), None)
    assert path.read_bytes() == before


def test_a_copy_that_has_no_room_is_refused_before_it_is_made(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + SWMR, count=3)
    monkeypatch.setattr(recovering.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(EngineError, match="make room"):
        recover(path)
    assert names(tmp_path) == ["a.h5"]


def test_names_of_what_was_found_do_not_repeat(tmp_path):
    path = tmp_path / "a.h5"
    kept = []
    for _ in range(3):
        stopped(path, BEGIN + SWMR, count=3)
        kept.append(Path(recover(path).kept).name)
    assert kept == ["a.h5.before", "a.h5.before-2", "a.h5.before-3"]


def test_the_command_says_what_was_done(tmp_path, capsys):
    path = tmp_path / "a.h5"
    stopped(path, BEGIN + SWMR, count=3)
    assert main(["recover", str(path)]) == 0
    said = capsys.readouterr().out
    assert "no longer marked" in said
    assert "a.h5.before" in said
    assert main(["recover", str(path)]) == 0
    assert "nothing had to be done" in capsys.readouterr().out
