"""The mapping: what a store holds, how it changes, and how stores are merged."""

import threading
from contextlib import contextmanager, suppress

import h5py
import numpy as np
import pytest
from snapshots import snapshot

from datastore_lab import open_store
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    EngineError,
    NotFound,
    NotStorable,
    Untrusted,
)
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.store import Store

PLACES = ["memory://", "lab.h5", "lab.zarr"]


@pytest.fixture(params=PLACES)
def place(request, tmp_path) -> str:
    return request.param if "://" in request.param else str(tmp_path / request.param)


@pytest.fixture
def store(place):
    with open_store(place) as opened:
        yield opened


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
