"""What keeps a Zarr store fast, and durable all the same: counted, as times depend on the machine."""

import contextlib
import errno
import itertools
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from datastore_lab.engines.zarr import ZarrEngine, crc
from datastore_lab.engines.zarr.chunks import choose_chunks
from datastore_lab.errors import Corrupt, EngineError, Locked, NotFound
from datastore_lab.folders import files
from datastore_lab.folders.side_by_side import side_by_side
from datastore_lab.records import ArrayInfo, Record, Stat


def item(values, **meta):
    return Record("array", {"data": np.asarray(values)}, meta, {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.zarr"


@pytest.fixture
def opened(monkeypatch):
    """The paths of all files that are opened for reading."""
    seen, plain = [], files.open_inside
    monkeypatch.setattr(files, "open_inside", lambda path, root: seen.append(path) or plain(path, root))
    return seen


@pytest.fixture
def syncs(monkeypatch):
    """The calls that wait for the disk."""
    seen, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(handle) or fsync(handle))
    if files._syncfs is not None:
        whole = files._syncfs
        monkeypatch.setattr(files, "_syncfs", lambda handle: seen.append("all") or whole(handle))
    return seen


def fill(path, count):
    engine = ZarrEngine(path, "w", durability="process")
    with engine.transaction():
        for number in range(count):
            engine.write((f"k{number:05}",), item(number))
    engine.close()


def test_a_look_at_a_large_store_reads_what_it_shows_and_no_more(path, opened):
    fill(path, 1200)
    opened.clear()
    engine = ZarrEngine(path, "r")
    assert len(opened) <= 2
    assert engine.stat(()).kind == "group"
    assert len(opened) <= 4
    assert len(list(itertools.islice(engine.children(), 200))) == 200
    assert len(opened) <= 4 + 202
    engine.close()


def test_opening_and_closing_do_not_walk_a_large_store(path, opened):
    fill(path, 1200)
    opened.clear()
    engine = ZarrEngine(path, "a")
    engine.write(("new",), item(1))
    engine.close()
    assert len(opened) < 20


def test_a_commit_of_many_files_waits_for_the_disk_a_few_times(path, syncs):
    engine = ZarrEngine(path, "w")
    syncs.clear()
    with engine.transaction():
        for number in range(100):
            engine.write((f"k{number:05}",), item(number))
    if files._syncfs is not None:
        assert "all" in syncs
        assert len(syncs) < 8
    else:
        assert len(syncs) > 500
    engine.close()


def test_where_the_system_can_t_sync_all_at_once_each_file_is_synced(path, syncs, monkeypatch):
    monkeypatch.setattr(files, "_syncfs", None)
    engine = ZarrEngine(path, "w")
    syncs.clear()
    with engine.transaction():
        for number in range(20):
            engine.write((f"k{number:05}",), item(number))
    assert len(syncs) >= 5 * 20
    engine.close()


@pytest.mark.skipif(files._syncfs is None, reason="this system can't sync all at once")
def test_an_error_of_the_disk_while_all_is_synced_undoes_the_commit(path, monkeypatch):
    engine = ZarrEngine(path, "w")
    engine.write(("old",), item(1))

    def fail(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_sync_file_system", fail)
    monkeypatch.setattr(files, "_MANY", 1)
    with pytest.raises(EngineError, match="Input/output"):
        engine.write(("new",), item(np.arange(10)))
    monkeypatch.undo()
    assert list(engine.keys()) == [("old",)]
    engine.write(("new",), item(2))
    engine.close()


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_an_error_of_the_disk_with_a_large_file_undoes_the_commit(path, monkeypatch, size):
    engine = ZarrEngine(path, "w")

    def fail(handle):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(EngineError, match="Input/output"):
            engine.write(("new",), item(np.random.default_rng(0).random(size)))
    assert list(engine.keys()) == []
    engine.write(("new",), item(np.arange(3)))
    assert engine.read(("new",), "data").tolist() == [0, 1, 2]
    engine.close()


def test_commits_that_only_have_to_survive_the_process_never_wait_for_the_disk(path, syncs):
    engine = ZarrEngine(path, "w", durability="process")
    engine.write(("a",), item(np.random.default_rng(0).random(300_000)))
    with engine.transaction():
        for number in range(30):
            engine.write((f"k{number}",), item(number))
        engine.move(("a",), ("b",))
    stream = engine.append(("s",), Stat("stream", {"x": ArrayInfo("<f8", (0,), ("t",), 0, (4,))}, {}))
    stream.extend({"x": np.arange(10.0)})
    stream.flush()
    stream.close({"end": True})
    engine.update(("b",), {"x": 1})
    engine.delete(("k1",))
    assert not list(engine.verify())
    engine.compact()
    engine.close()
    assert syncs == []
    engine = ZarrEngine(path, "r")
    assert len(list(engine.keys())) == 31
    engine.close()


def test_a_writer_waits_for_another_as_long_as_it_was_told(path):
    engine = ZarrEngine(path, "w")
    start = time.monotonic()
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        ZarrEngine(path, "a", timeout=0.6)
    assert time.monotonic() - start >= 0.6
    timer = threading.Timer(0.5, engine.close)
    timer.start()
    second = ZarrEngine(path, "a", timeout=30)
    second.write(("a",), item(1))
    second.close()
    timer.join()


@pytest.mark.parametrize("refused", [0, 1, 3])
def test_a_chunk_that_the_disk_refuses_while_the_next_is_made_fails_the_write(path, refused):
    """Chunks are written by a thread of their own: its errors must reach the caller, and nothing else."""
    engine = ZarrEngine(path, "w")
    engine.write(("a",), item([1, 2]))
    large = itertools.count()

    def refuse(operation, name, detail):
        if operation == "write" and len(detail) > 1 << 20 and next(large) == refused:
            raise OSError(errno.ENOSPC, "no space left", name)

    values = np.random.default_rng(0).standard_normal(3_000_000)
    with files.observe(refuse), pytest.raises(EngineError, match="no space left"):
        engine.write(("a",), item(np.tile(values, 2)))
    assert engine.read(("a",), "data").tolist() == [1, 2]
    assert not any(thread.name.startswith("write") for thread in threading.enumerate())
    engine.write(("a",), item(values))
    assert np.array_equal(engine.read(("a",), "data"), values)
    engine.close()
    assert not os.path.lexists(f"{path}-journal")


@pytest.mark.parametrize(("rows", "chunk"), [(12_500_000, 781_250), (12_500_001, 1_041_667)])
def test_large_arrays_are_cut_without_an_edge_to_fill_up_if_that_can_be(rows, chunk):
    assert choose_chunks((rows,), 8) == (chunk,)


def test_an_item_that_was_described_is_read_without_looking_again(path, opened):
    with contextlib.closing(ZarrEngine(path, "w")) as engine:
        engine.write(("a",), item([1, 2]))
    reader = ZarrEngine(path, "r")
    reader.stat(("a",))
    opened.clear()
    assert reader.read(("a",), "data").tolist() == [1, 2]
    assert [Path(name).name for name in opened] == ["c.0"]


@pytest.mark.parametrize("change", ["replace", "delete", "move", "flip"])
def test_what_was_described_is_looked_at_again_once_it_changed(path, change):
    writer, reader = ZarrEngine(path, "w"), ZarrEngine(path, "r")
    writer.write(("a",), item([1, 2]))
    writer.write(("b",), item([5, 6]))
    reader.stat(("a",))
    if change == "replace":
        writer.write(("a",), item([3, 4]))
    elif change == "flip":
        raw = (path / "a" / "zarr.json").read_bytes()
        (path / "a" / "zarr.json").write_bytes(raw.replace(b'"array"', b'"arraz"'))
    else:
        writer.delete(("a",))
        if change == "move":
            writer.move(("b",), ("a",))
    if change in {"replace", "move"}:
        assert reader.read(("a",), "data").tolist() == {"replace": [3, 4], "move": [5, 6]}[change]
    else:
        with pytest.raises(Corrupt if change == "flip" else NotFound):
            reader.read(("a",), "data")
    writer.close()


@pytest.mark.parametrize("c_function", [True, False])
@pytest.mark.parametrize("packing", ["crc32c", "zstd"])
def test_chunks_that_are_written_side_by_side_are_those_that_were_given(
    path, monkeypatch, c_function, packing
):
    """More of them than may be open at a time, each with its sum, found in either way."""
    monkeypatch.setattr(files, "_HANDLES", 2)
    if not c_function:
        monkeypatch.setattr(crc, "_library", lambda: None)
    values = np.random.default_rng(0).standard_normal((75, 1000, 100))
    values = values if packing == "crc32c" else np.round(values)
    with contextlib.closing(ZarrEngine(path, "w")) as engine:
        engine.write(("a",), item(values))
        assert not list(engine.verify())
    described = json.loads((path / "a" / "data" / "zarr.json").read_text())
    assert packing in [codec["name"] for codec in described["codecs"]]
    assert len(list((path / "a" / "data").glob("c.*"))) > 4
    assert np.array_equal(zarr.open_group(path, mode="r")["a/data"][...], values)


def test_what_fails_side_by_side_stops_the_rest():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise OSError(errno.EIO, "refused")
        return -number

    with pytest.raises(OSError, match="refused"):
        list(side_by_side(work, range(1000)))
    assert len(begun) < 100
    assert list(side_by_side(abs, range(-50, 0))) == list(range(50, 0, -1))
