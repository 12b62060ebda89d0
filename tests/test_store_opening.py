"""Opening a store, and what becomes of one that is closed, copied, removed or shared."""

import gc
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from engines import WHOLE
from snapshots import snapshot

from datastore_lab import open_store
from datastore_lab.errors import (
    AlreadyExists,
    EngineError,
    Foreign,
    LabError,
    NotFound,
    ReadOnly,
)
from datastore_lab.store import Store, sharing


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_modes_are_those_of_h5py(tmp_path, name):
    path = tmp_path / name
    for mode in ("r", "r+"):
        with pytest.raises(NotFound, match=name):
            open_store(path, mode)
    assert list(tmp_path.iterdir()) == []
    with open_store(path, "x") as store:
        store["a"] = 1
    with pytest.raises(AlreadyExists, match=name):
        open_store(path, "x")
    with open_store(path, "r") as store:
        assert not store.writable
        assert store["a"] == 1
        for change in (
            lambda: store.put("b", 1),
            lambda: store.delete("a"),
            lambda: store.update("a", {}),
            lambda: store.move("a", "b"),
            store.clear,
            store.compact,
        ):
            with pytest.raises(ReadOnly, match="mode 'a'"):
                change()
    with open_store(path, "r+") as store:
        store["b"] = 2
    with open_store(path, "w") as store:
        assert list(store) == []
    with pytest.raises(ValueError, match="mode 'rw'"):
        open_store(path, "rw")


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_opening_again_in_one_process_shares_the_engine(tmp_path, name):
    first = open_store(tmp_path / name)
    first["a"] = 1
    second = open_store(tmp_path / name)
    reader = open_store(tmp_path / name, "r")
    second["b"] = 2
    assert dict(first) == dict(reader) == {"a": 1, "b": 2}
    with pytest.raises(ReadOnly):
        reader["c"] = 3
    first.close()
    first.close()
    assert second["b"] == 2
    del second
    assert reader["a"] == 1
    reader.close()
    with open_store(tmp_path / name, "w") as again:
        assert len(again) == 0


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_file_url_and_a_pickled_store_open_the_same_place(tmp_path, name):
    with open_store(f"file://{tmp_path}/{name}") as store:
        store["a/b"] = 5
        again = pickle.loads(pickle.dumps(store.group("a")))
        assert again["b"] == 5
        again.close()
    with pytest.raises(TypeError, match="memory"):
        pickle.dumps(open_store("memory://"))


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("gopher://x/y", EngineError, "'gopher' is unknown"),
        ("folder.h5", EngineError, "is a folder"),
        ("notes.txt", EngineError, "suffix"),
        ("text.h5", Foreign, "text.h5"),
        ("missing/lab.h5", LabError, "missing"),
        ("missing/lab.zarr", LabError, "missing"),
        ("file://elsewhere/lab.h5", EngineError, "another computer"),
        ("full.zarr", Foreign, "full.zarr"),
        ("file.zarr", LabError, "file.zarr"),
    ],
)
@pytest.mark.parametrize("mode", ["a", "r", "w"])
def test_a_place_that_cannot_be_opened_is_named_and_left_as_it_is(tmp_path, path, error, words, mode):
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "text.h5").write_text("this is no HDF5 file at all")
    (tmp_path / "full.zarr").mkdir()
    (tmp_path / "full.zarr" / "thesis.tex").write_text("years of work")
    (tmp_path / "file.zarr").write_text("a file")
    before = snapshot(tmp_path)
    with pytest.raises(error, match=words):
        open_store(path if "://" in path else tmp_path / path, mode)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_store_copied_with_its_journal_missing_or_a_truncated_one_is_reported(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store["a"] = np.arange(100_000)
    target = tmp_path / name
    if target.is_dir():
        target = target / "a" / "zarr.json"  # (a damaged root hides nothing)
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    before = snapshot(tmp_path)
    for mode in ("r", "a"):
        with pytest.raises(LabError, match=name), open_store(tmp_path / name, mode) as store:
            store["a"]
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no write permission there")
@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_read_only_place(tmp_path, name, monkeypatch):
    folder = tmp_path / "place"
    folder.mkdir()
    with open_store(folder / name) as store:
        store["a"] = 1
    for path in [*folder.rglob("*"), folder]:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with open_store(folder / name, "r") as store:
            assert store["a"] == 1
        if not _root():
            with pytest.raises(ReadOnly, match=name):
                open_store(folder / name, "a")
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(stat.S_IRWXU)


def _root() -> bool:
    return os.geteuid() == 0


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_store_stays_open_for_as_long_as_something_of_it_is_used(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store["a"] = 1
    assert list(open_store(tmp_path / name).children()) == ["a"]
    with open_store(tmp_path / name).transaction():
        pass


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_nothing_is_written_to_a_store_that_was_removed(tmp_path, name):
    store = open_store(tmp_path / name)
    store["a"] = 1
    _remove(tmp_path / name)
    with pytest.raises(EngineError, match=r"removed .*under the open store"):
        store["b"] = 2
    with pytest.raises(EngineError, match=r"removed .*under the open store"), store.transaction():
        pass
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["a", "w", "x"])
@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_removed_store_is_made_anew_though_it_is_open(tmp_path, name, mode):
    old = open_store(tmp_path / name)
    old["a"] = 1
    _remove(tmp_path / name)
    with open_store(tmp_path / name, mode) as new:
        new["b"] = 2
        with pytest.raises(EngineError, match="closed"):
            old["a"] = 2
        old.close()
        assert dict(new) == {"b": 2}
    with open_store(tmp_path / name, "r") as again:
        assert dict(again) == {"b": 2}


def test_a_compacted_file_is_still_the_one_that_is_open(tmp_path):
    with open_store(tmp_path / "lab.h5") as store:
        store["big"] = np.random.default_rng(0).random(100_000)
        store["small"] = 1
        del store["big"]
        assert store.compact() > 0
        with open_store(tmp_path / "lab.h5") as again:
            assert again.engine is store.engine
            again["more"] = 2
        assert dict(store) == {"small": 1, "more": 2}


def change_and_close(store):
    with store.transaction():
        store["b"] = 2
        store.close()


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_closing_inside_a_transaction_undoes_it_and_says_so(tmp_path, name):
    store = open_store(tmp_path / name)
    store["a"] = 1
    with pytest.raises(EngineError, match="closed inside a transaction"):
        change_and_close(store)
    with open_store(tmp_path / name, "r") as again:
        assert dict(again) == {"a": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_a_forked_child_writes_nothing_and_reads_through_a_store_of_its_own(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store["a"] = 1
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(store, tmp_path / name))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store["b"] = 2
    with open_store(tmp_path / name, "r") as again:
        assert dict(again) == {"a": 1, "b": 2}


def _in_the_child(store: Store, path: Path) -> int:
    try:
        with pytest.raises(EngineError, match="parent of this process"):
            store["child"] = 1
        with open_store(path, "r") as own:
            assert dict(own) == {"a": 1}
        store.close()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@pytest.mark.parametrize("stem", ["a b", "ü #x", "100%", "q?x", "%2F"])
def test_the_url_of_a_file_names_it_whatever_is_in_its_name(tmp_path, stem):
    path = tmp_path / f"{stem}.h5"
    with open_store(path.as_uri()) as store:
        store["a"] = 1
    assert path.is_file()


@pytest.mark.parametrize("name", ["lab.h5", "lab.sqlite"])
def test_a_file_that_is_opened_by_two_hard_links_shares_its_engine(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store["a"] = 1
    os.link(tmp_path / name, tmp_path / f"hard-{name}")
    with open_store(tmp_path / name) as one, open_store(tmp_path / f"hard-{name}") as other:
        one["b"], other["c"] = 2, 3
        assert sorted(one) == sorted(other) == ["a", "b", "c"]
    with open_store(tmp_path / name, "r") as store:
        assert sorted(store) == ["a", "b", "c"]


def test_a_chain_of_urls_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="chain of URLs") as refused:
        open_store("simplecache::s3://me:secret@bucket/lab.zarr")
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a\0b.h5", "x" * 300 + ".h5", "x" * 300 + ".zarr", "loop/lab.h5"])
def test_what_is_no_path_is_refused_by_name(tmp_path, path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(EngineError, match=r"lab|xxx|a.*b"):
        open_store(f"{tmp_path}/{path}")


def test_a_store_that_is_collected_while_it_is_opened_again(tmp_path, monkeypatch):
    path, place = tmp_path / "lab.h5", sharing._place
    store = open_store(path)
    store["a"] = 1
    ring: list[object] = [store]
    ring.append(ring)
    del store, ring
    monkeypatch.setattr(sharing, "_place", lambda path: (gc.collect(), place(path))[1])
    with open_store(path) as again:
        time.sleep(0.05)  # for the thread that closes what was collected
        again["b"] = 2
        assert dict(again) == {"a": 1, "b": 2}


def test_opening_in_a_transaction_does_not_wait_for_who_waits_for_it(tmp_path):
    store, opened = open_store(tmp_path / "a.h5"), threading.Event()
    store["x"] = 1

    def empty() -> None:
        open_store(tmp_path / "a.h5", "w").close()  # waits for the transaction
        opened.set()

    with store.transaction():
        thread = threading.Thread(target=empty, daemon=True)
        thread.start()
        time.sleep(0.1)
        open_store(tmp_path / "b.h5").close()
    assert opened.wait(30)
    assert list(store) == []


@pytest.mark.parametrize("name", ["lab.h5", "lab.zarr"])
def test_opening_an_open_store_anew_leaves_no_attributes_behind(tmp_path, name):
    with open_store(tmp_path / name) as store:
        store.update((), {"title": "old"})
        store["a"] = 1
        with open_store(tmp_path / name, "w") as again:
            assert (again.attrs(), list(again)) == ({}, [])


LEFT_OPEN = """
import sys
import numpy as np
from datastore_lab import open_store
from datastore_lab.records import ArrayInfo, Stat
store = open_store(sys.argv[1])
appender = store.append("run", Stat("stream", {"x": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {}))
appender.extend({"x": np.arange(5.0)})
store["whole"] = np.zeros(3_000_000)
"""


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_process_that_ends_with_an_open_store_loses_nothing_and_says_nothing(case, tmp_path):
    path = tmp_path / case.name
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    with open_store(path, "r") as store:
        assert store.record("run").arrays["x"].tolist() == [0, 1, 2, 3, 4]
        assert store.verify() == []
    assert [file.name for file in tmp_path.iterdir()] == [case.name]
