"""The mapping and the opening of places."""

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
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from engines import WHOLE

from datastore_lab import open_store
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    EngineError,
    Foreign,
    LabError,
    NotFound,
    NotStorable,
    ReadOnly,
    Untrusted,
)
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.store import Store, sharing

PLACES = ["memory://", "lab.h5", "lab.zarr"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> str:
    return request.param if "://" in request.param else str(tmp_path / request.param)


@pytest.fixture
def store(place):
    with open_store(place) as opened:
        yield opened


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_reads_like_a_dictionary(store):
    store["run/gain"] = {"adc": 2.0, "unit": "V"}
    store["run", "frames"] = np.arange(6).reshape(2, 3)
    assert store["run/gain"] == {"adc": 2.0, "unit": "V"}
    assert np.array_equal(store["run/frames"], np.arange(6).reshape(2, 3))
    assert sorted(store) == ["run/frames", "run/gain"]
    assert len(store) == 2
    assert "run" in store
    assert "run/gain" in store
    assert "other" not in store
    assert store.get("other", 7) == 7
    del store["run/gain"]
    assert list(store) == ["run/frames"]


def test_a_node_without_a_record_is_a_store(store):
    store["a/b/c"] = 1
    inner = store["a"]
    assert isinstance(inner, Store)
    assert list(inner) == ["b/c"]
    inner["d"] = 2
    assert store["a/d"] == 2
    inner.close()
    assert store["a/d"] == 2


@pytest.mark.parametrize(
    "parts",
    [("..",), (".",), ("a/b",), ("nul\0byte",), ("x" * 300,), ("ä€😀",), ("con", "a."), ("__x", "zarr.json")],
)
def test_any_text_is_a_key_part(store, parts, tmp_path):
    before = set(tmp_path.parent.iterdir())
    store[parts] = "here"
    assert store[parts] == "here"
    assert list(store.keys_below()) == [parts]
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize(
    "bad", ["", "a//b", "../a", "a/..", "a/./b", (), ("",), ("a", 3), ("\ud800",), 5, None]
)
def test_bad_keys_change_nothing(store, tmp_path, bad):
    store["kept"] = 1
    before = snapshot(tmp_path)
    with pytest.raises(BadKey) as caught:
        store[bad] = 1
    assert repr(bad)[1:-1] in str(caught.value) or bad == ()
    assert snapshot(tmp_path) == before


def test_what_cannot_be_stored_is_named_and_changes_nothing(store, tmp_path):
    store["kept"] = 1
    before = snapshot(tmp_path)
    with pytest.raises(NotStorable, match=r"\['b'\]\[1\]"):
        store["kept"] = {"a": np.arange(3), "b": [1, object()]}
    assert snapshot(tmp_path) == before
    assert store["kept"] == 1


def test_attributes_stay_beside_the_object(store):
    store.put("x", np.arange(3), attrs={"note": "first", "gain": 2.0})
    store.update("x", {"gain": 3, "checked": True})
    assert store.attrs("x") == {"note": "first", "gain": 3, "checked": True}
    assert np.array_equal(store["x"], np.arange(3))
    with pytest.raises(NotStorable, match="lab_kind"):
        store.update("x", {"lab_kind": "other"})


def test_move_and_clear(store):
    store["a/b"] = 1
    store["c"] = 2
    store.move("a", "d/e")
    assert sorted(store) == ["c", "d/e/b"]
    with pytest.raises(AlreadyExists):
        store.move("c", "d")
    store.clear()
    assert list(store) == []


def change_and_fail(store):
    with store.transaction():
        store["a"] = 2
        store["b"] = 3
        raise RuntimeError("stop")


def test_a_transaction_is_all_or_nothing(store):
    store["a"] = 1
    with pytest.raises(RuntimeError, match="stop"):
        change_and_fail(store)
    assert dict(store) == {"a": 1}
    with store.transaction():
        store["a"] = 2
        store["b"] = 3
    assert dict(store) == {"a": 2, "b": 3}


@pytest.mark.parametrize("other", PLACES)
def test_merge_between_engines(store, other, tmp_path):
    with open_store(other if "://" in other else tmp_path / f"other-{other}") as source:
        source["x/y"] = np.arange(5)
        source["kept"] = "theirs"
        spec = Stat("stream", {"v": ArrayInfo("<f8", (0, 2), ("time", "axis"), 0, None)}, {"rate": 10.0})
        appender = source.append("log", spec)
        appender.extend({"v": np.arange(8.0).reshape(4, 2)})
        appender.close({"lost": 0})
        store["kept"] = "ours"
        assert store.merge_from(source) == 2
        assert store["kept"] == "ours"
        assert np.array_equal(store["x/y"], np.arange(5))
        assert np.array_equal(store.record("log").arrays["v"], np.arange(8.0).reshape(4, 2))
        assert store.attrs("log") == {"rate": 10.0, "lost": 0}
        assert store.merge_from(source, overwrite=True) == 3
        assert store["kept"] == "theirs"


def test_a_record_of_an_unknown_kind_is_not_decoded_but_can_be_read(store):
    store.write("x", Record("from.elsewhere.Thing", {"data": np.arange(3)}, {}, {}))
    with pytest.raises(Untrusted, match=r"from\.elsewhere\.Thing"):
        store["x"]
    assert np.array_equal(store.record("x").arrays["data"], np.arange(3))


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


def test_eight_threads_on_one_store(store):
    def work(index: int) -> None:
        for round_ in range(5):
            store[f"t{index}/r{round_}"] = np.full(50, index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 40
    assert all((store[key] == int(str(key)[1])).all() for key in store)


def test_a_record_is_read_as_of_one_commit_beside_a_thread_that_replaces_it(store):
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store["k"] = {"a": np.full(20_000, number), "b": np.full(3, number), "number": number}

    store["k"] = {"a": np.zeros(20_000, int), "b": np.zeros(3, int), "number": 0}
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(100):
            value = store["k"]
            assert {*value["a"].tolist(), *value["b"].tolist()} == {value["number"]}
    finally:
        stop.set()
        writer.join()


def test_a_growing_stream_is_read_with_arrays_of_equal_length(store):
    spec = Stat("stream", {name: ArrayInfo("<f8", (0,), ("time",), 0, None) for name in "ab"}, {})
    appender, stop = store.append("run", spec), threading.Event()

    def grow() -> None:
        while not stop.is_set():
            appender.extend({"a": np.ones(100), "b": np.ones(100)})
            appender.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(100):
            arrays = store.record("run").arrays
            assert len(arrays["a"]) == len(arrays["b"])
    finally:
        stop.set()
        writer.join()


def test_merging_keeps_what_lies_below_a_replaced_stream(store):
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    with open_store("memory://") as source:
        for each in (store, source):
            appender = each.append("run", spec)
            appender.extend({"v": np.full(3, float(each is source))})
            appender.close({})
        store["run/notes"] = "kept"
        assert store.merge_from(source, overwrite=True) == 1
    assert store["run/notes"] == "kept"
    assert store.record("run").arrays["v"].tolist() == [1.0, 1.0, 1.0]


def test_merging_takes_the_record_at_the_node_itself(store):
    with open_store("memory://") as source:
        source["item"] = 1
        source["item/part"] = 2
        assert store.group("copy").merge_from(source.group("item")) == 2
        assert dict(store) == {"copy": 1, "copy/part": 2}


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


@pytest.mark.parametrize("rows", [2, 3])
def test_an_appender_adds_nothing_to_a_record_that_replaced_its_own(store, rows):
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    old = store.append("run", spec)
    old.extend({"v": np.zeros(3)})
    old.flush()
    store.delete("run")
    new = store.append("run", spec)
    new.extend({"v": np.ones(rows)})
    new.flush()
    old.extend({"v": np.zeros(3)})
    with pytest.raises(EngineError, match="is another record now"):
        old.flush()
    new.close({})
    assert store.record("run").arrays["v"].tolist() == [1.0] * rows
    assert store.verify() == []


def test_an_appender_adds_nothing_to_a_record_that_was_moved_to_its_place(store):
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    appender = store.append("run", spec)
    store["other"] = np.arange(3)
    store.move("run", "away")
    store.move("other", "run")
    appender.extend({"v": np.zeros(3)})
    with pytest.raises(EngineError):
        appender.flush()
    assert store["run"].tolist() == [0, 1, 2]
    assert list(store.stat("run").arrays) == ["data"]


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


def test_an_appender_says_that_its_record_was_overwritten(store):
    spec = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
    appender = store.append("run", spec)
    store["run"] = 5
    appender.extend({"v": np.zeros(3)})
    with pytest.raises(EngineError, match="is another record now"):
        appender.flush()
    assert store["run"] == 5


def test_merging_takes_the_attributes_of_groups_along(store):
    with open_store("memory://") as source:
        source["run/a"] = 1
        source.update("run", {"sample": "7b", "note": "theirs"})
        store["run/b"] = 2
        store.update("run", {"note": "ours"})
        store.merge_from(source)
        assert store.attrs("run") == {"sample": "7b", "note": "ours"}
        store.merge_from(source, overwrite=True)
        assert store.attrs("run") == {"sample": "7b", "note": "theirs"}


def test_merging_arrays_of_a_root_puts_them_into_the_group_root(store, tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.arange(3)
    with open_store(tmp_path / "foreign.h5", "r") as source:
        assert store.merge_from(source) == 1
        assert store.group("theirs").merge_from(source) == 1
    for key in ("root", "theirs"):
        assert store.record(key).arrays["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("path", ["a\0b.h5", "x" * 300 + ".h5", "x" * 300 + ".zarr", "loop/lab.h5"])
def test_what_is_no_path_is_refused_by_name(tmp_path, path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(EngineError, match=r"lab|xxx|a.*b"):
        open_store(f"{tmp_path}/{path}")


GROWING = Stat("stream", {"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {})
GROWS = ["lab.h5", "lab.zarr"]


@pytest.mark.parametrize("name", GROWS)
def test_a_stream_keeps_its_store_open(tmp_path, name):
    appender = open_store(tmp_path / name).append("run", GROWING)
    gc.collect()
    appender.extend({"v": np.arange(3.0)})
    appender.flush()
    appender.extend({"v": np.arange(2.0)})
    appender.close({"ended": True})
    with open_store(tmp_path / name, "r") as store:
        assert store.record("run").arrays["v"].tolist() == [0, 1, 2, 0, 1]
        assert store.attrs("run") == {"ended": True}


@pytest.mark.parametrize("way", ["close", "drop", "cycle", "view"])
@pytest.mark.parametrize("name", GROWS)
def test_rows_that_wait_are_written_when_the_store_goes(tmp_path, name, way):
    store = open_store(tmp_path / name)
    appender = (store.group("g") if way == "view" else store).append("run", GROWING)
    appender.extend({"v": np.arange(3.0)})
    if way == "cycle":
        ring = [store, appender]
        ring.append(ring)
        del ring
    if way in {"close", "view"}:
        store.close()
        with pytest.raises(EngineError, match="was closed"):
            appender.extend({"v": np.arange(3.0)})
    del store, appender
    gc.collect()
    with open_store(tmp_path / name, "r+") as again:
        key = "g/run" if way == "view" else "run"
        assert again.record(key).arrays["v"].tolist() == [0, 1, 2]
        assert again.verify() == []


def test_rows_that_can_not_be_written_are_told_of_when_the_store_is_closed(tmp_path):
    store = open_store(tmp_path / "lab.h5")
    appender = store.append("run", GROWING)
    appender.extend({"v": np.arange(3.0)})
    store.delete("run")
    with pytest.raises(LabError, match="run"):
        store.close()
    with open_store(tmp_path / "lab.h5") as again:
        assert list(again) == []


def flush_and_fail(stream):
    stream.extend({"v": np.arange(3.0)})
    stream.flush()
    raise ZeroDivisionError


def begin_and_fail(store):
    with store.transaction():
        stream = store.append("run", GROWING)
        stream.extend({"v": np.arange(3.0)})
        raise ZeroDivisionError


@pytest.mark.parametrize("name", GROWS)
def test_what_fails_first_is_what_is_told(tmp_path, name):
    with pytest.raises(ZeroDivisionError) as told, open_store(tmp_path / name) as store:
        begin_and_fail(store)
    assert any("closing" in note and "undone" in note for note in told.value.__notes__)
    open_store(tmp_path / name, "r+").close()


@pytest.mark.parametrize("name", GROWS)
def test_a_store_whose_rows_were_undone_is_closed_without_a_word_if_none_wait(tmp_path, name):
    with open_store(tmp_path / name) as store:
        stream = store.append("run", GROWING)
        with pytest.raises(ZeroDivisionError), store.transaction():
            flush_and_fail(stream)
        with pytest.raises(EngineError, match="undone"):
            stream.extend({"v": np.arange(3.0)})


def every_call(store, key):
    return [
        lambda: store[key],
        lambda: store.put(key, 2),
        lambda: store.stat(key),
        lambda: store.record(key),
        lambda: store.lazy(key),
        lambda: key in store,
        lambda: list(store),
        lambda: list(store.children()),
        lambda: store.update(key, {"x": 1}),
        lambda: store.move(key, "b"),
        lambda: store.delete(key),
        lambda: store.append("s", GROWING),
        lambda: store.transaction().__enter__(),
        store.clear,
        store.revision,
        store.verify,
        store.repair,
        store.compact,
    ]


@pytest.mark.parametrize("name", ["memory://", "lab.h5", "lab.zarr", "lab.sqlite"])
def test_a_closed_store_does_nothing_though_another_has_the_file_open(tmp_path, name):
    path = name if "://" in name else tmp_path / name
    store = open_store(path)
    store["g/a"] = 1
    view = store.group("g")
    other = None if "://" in name else open_store(path)
    store.close()
    for closed, key in [(store, "g/a"), (view, "a")]:
        for action in every_call(closed, key):
            with pytest.raises(EngineError, match="is closed"):
                action()
    if other is not None:
        assert other["g/a"] == 1
        other.close()


def test_the_end_of_the_process_writes_rows_that_wait(tmp_path):
    script = f"""
import numpy as np
from datastore_lab import open_store
from datastore_lab.records import ArrayInfo, Stat
store = open_store({str(tmp_path / "lab.h5")!r})
appender = store.append("run", Stat("stream", {{"v": ArrayInfo("<f8", (0,), ("time",), 0, None)}}, {{}}))
appender.extend({{"v": np.arange(3.0)}})
ring = [store, appender]
ring.append(ring)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with open_store(tmp_path / "lab.h5", "r") as store:
        assert store.record("run").arrays["v"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", GROWS)
def test_a_collection_in_the_middle_of_a_change_waits_for_no_other_engine(tmp_path, name):
    """One thread is in an engine and collects a store of another engine, which a second thread is in."""
    one = open_store(tmp_path / f"one-{name}")
    other = open_store(tmp_path / f"other-{name}")
    engine, inside, collected = other.engine, threading.Event(), threading.Event()

    def hold() -> None:
        with engine.transaction():
            inside.set()
            collected.wait(30)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    inside.wait(30)
    ring: list[object] = [other]
    ring.append(ring)
    del other, ring

    def collect() -> None:
        with one.transaction():
            gc.collect()
            collected.set()

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    assert collected.wait(20), "the collection waits for the other engine"
    collector.join(30)
    holder.join(30)
    one.close()
    with open_store(tmp_path / f"other-{name}") as again:
        again["a"] = 1


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


def test_clearing_leaves_no_attributes_behind(store):
    store["a/b"] = 1
    store.update((), {"title": "old", "nothing": None})
    store.update("a", {"sample": "7b"})
    store.group("a").clear()
    assert (list(store), store.attrs("a"), store.attrs()) == ([], {}, {"title": "old", "nothing": None})
    store.clear()
    assert store.attrs() == {}
    store.group("absent").clear()
    store.update((), {"title": "new"})
    assert store.attrs() == {"title": "new"}


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


class Meeting(MemoryEngine):
    """An engine whose transactions begin only when others have begun theirs, or have had the time to."""

    def __init__(self, barrier):
        super().__init__()
        self.barrier = barrier

    @contextmanager
    def transaction(self):
        with super().transaction():
            with suppress(threading.BrokenBarrierError):
                self.barrier.wait(1)  # broken where only one is ever in a transaction
            yield


def test_two_threads_merge_to_and_fro():
    barrier = threading.Barrier(2)
    one, two = Store(Meeting(barrier)), Store(Meeting(barrier))
    one["a"], two["b"] = 1, np.arange(3)
    threads = [
        threading.Thread(target=mine.merge_from, args=(theirs,), daemon=True)
        for mine, theirs in [(one, two), (two, one)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert set(one) == set(two) == {"a", "b"}


def test_a_large_store_is_merged_by_way_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("datastore_lab.store.moving.merging._IN_MEMORY", 1000)
    with open_store(tmp_path / "a.h5") as source, open_store(tmp_path / "b.zarr") as target:
        source["large"] = np.arange(1000.0)
        source.put("g/x", {"n": None}, attrs={"unit": "V"})
        source.update("g", {"title": "group"})
        source.update((), {"title": "root"})
        target["g/x"] = "stays"
        assert target.merge_from(source) == 1
        assert target["large"].tolist() == list(range(1000))
        assert target["g/x"] == "stays"
        assert [target.attrs("g"), target.attrs()] == [{"title": "group"}, {"title": "root"}]
        assert target.merge_from(source, overwrite=True) == 2
        assert target["g/x"] == {"n": None}
        assert target.attrs("g/x") == {"unit": "V"}
        assert target.verify() == []


@pytest.mark.parametrize("name", ["memory://", "lab.h5", "lab.zarr", "lab.parquets", "lab.sqlite"])
def test_a_missing_key_names_the_store_and_what_is_like_it(tmp_path, name):
    with open_store(name if "://" in name else tmp_path / name) as store:
        store["run/gain"] = store["run/Offset"] = 1
        group = store.group("run")
        for action, words in [
            (lambda: store["run/gian"], "did you mean 'run/gain'"),
            (lambda: store["rum/gain"], "did you mean 'run/gain'"),
            (lambda: store.delete("runn"), "did you mean 'run'"),
            (lambda: store.move("runn", "x"), "did you mean 'run'"),
            (lambda: store.update("runn", {"x": 1}), "did you mean 'run'"),
            (lambda: store.lazy("run/gian"), "did you mean 'run/gain'"),
            (lambda: group["offset"], "did you mean 'Offset'"),
            (lambda: store["nothing/like/it"], r"store\.children\(\)"),
        ]:
            with pytest.raises(NotFound, match=words) as error:
                action()
            assert store.url in str(error.value)
        assert store.get("run/gian") is None


def test_what_is_like_a_missing_key_is_not_looked_for_in_all_of_a_large_store():
    class Counting(MemoryEngine):
        listed = 0

        def children(self, prefix=()):
            for name in super().children(prefix):
                Counting.listed += 1
                yield name

    store = Store(Counting())
    with store.transaction():
        for number in range(2000):
            store[f"k{number}"] = None
    with pytest.raises(NotFound, match="did you mean"):
        store["k_1"]
    assert Counting.listed == 300
