"""Streams of a store: what becomes of rows that wait, of what was replaced, and of what fails."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from datastore_lab import open_store
from datastore_lab.errors import (
    EngineError,
    LabError,
)
from datastore_lab.records import ArrayInfo, Stat

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
