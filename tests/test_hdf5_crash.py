"""A crash at any moment loses nothing that was acknowledged and leaves nothing else."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from datastore_lab.engines.hdf5 import HDF5Engine, pages, space
from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.errors import LabError
from datastore_lab.records import Record
from datastore_lab.testing import crash

OPERATIONS = 100
QUICK = 0.03


@pytest.fixture(scope="module")
def folder():
    base = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None
    made = Path(tempfile.mkdtemp(dir=base))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def run(folder):
    """The notes of a run of 100 operations, and what the store held after each of them."""
    disk, twin, streams, twins = crash.RecordingDisk(), MemoryEngine(), {}, {}
    engine = HDF5Engine(folder / "store.h5", disk=disk)
    promised = [crash.digest(twin)]
    for number, operation in enumerate(crash.operations(OPERATIONS)):
        disk.mark("begun", number + 1)
        operation(engine, streams)
        disk.mark("done", number + 1)
        operation(twin, twins)
        promised.append(crash.digest(twin))
        assert crash.digest(engine) == promised[-1]
    engine.close()
    disk.mark("closed", 1)
    return disk.events, promised


def read_everything(path):
    with h5py.File(path) as file:
        file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)


def check(state, promised, folder):
    crash.put(state.files, folder)
    path = folder / "store.h5"
    allowed = promised[state.marks.get("done", 0) : state.marks.get("begun", 0) + 1]
    where = f"after event {state.after}: {state.how}"
    seen = None
    if path.exists():
        reader = HDF5Engine(path, "r")
        seen = crash.digest(reader)
        reader.close()
    writer = HDF5Engine(path, "a")
    found = crash.digest(writer)
    writer.close()
    assert found in allowed, where
    assert seen in (None, found), f"{where}: a reader saw another state"
    assert [file.name for file in folder.iterdir()] == ["store.h5"], where
    read_everything(path)


def test_sampled_crash_states_hold_what_was_promised(run, folder):
    events, promised = run
    count = 0
    for state in crash.states(events, seed=1, share=QUICK):
        check(state, promised, folder)
        count += 1
    assert count > 60


@pytest.mark.parametrize("name", ["store.h5", "store.h5-journal"])
def test_proof_notices_a_missing_barrier(run, folder, name):
    events, promised = run
    careless = [event for event in events if (event.kind, event.name) != ("sync", name)]
    with pytest.raises((AssertionError, LabError)):  # noqa: PT012 (any state may be the one)
        for state in crash.states(careless, share=0.2):
            check(state, promised, folder)


def test_crash_while_much_is_overwritten_in_one_transaction(folder, monkeypatch):
    """Pages that are too many for memory: the journal is added to more than once per commit."""
    monkeypatch.setattr(pages, "_SPILL", pages.PAGE)
    disk, promised = crash.RecordingDisk(), [{}]
    crash.put({}, folder)
    engine = HDF5Engine(folder / "store.h5", disk=disk)

    def big(seed):
        data = np.random.default_rng(seed).integers(0, 255, 1_300_000, dtype="u1")
        return Record("array", {"data": data}, {}, {})

    def fill(first):
        with engine.transaction():
            for number in range(3):
                engine.write((f"{first + number}",), big(first + number))

    def empty():
        with engine.transaction():
            for name in list(engine.children()):
                engine.delete((name,))

    for number, act in enumerate([lambda: fill(0), empty, lambda: fill(3), lambda: fill(3), empty]):
        disk.mark("begun", number + 1)
        act()
        disk.mark("done", number + 1)
        promised.append(crash.digest(engine))
    engine.close()
    journal = [event for event in disk.events if event.name == "store.h5-journal" and event.kind == "sync"]
    assert len(journal) > 1 + 2 * 5  # more than the barriers of commits that keep pages once
    for state in crash.states(disk.events, seed=4):
        check(state, promised, folder)


KILLED = """
import sys
import numpy as np
from datastore_lab.engines.hdf5 import HDF5Engine, pages
from datastore_lab.records import ArrayInfo, Record, Stat

engine = HDF5Engine(sys.argv[1])
first = len(list(engine.children(("items",)))) if "items" in engine.children() else 0
info = ArrayInfo("<i8", (0,), ("time",), 0, None)
stream = engine.append((f"stream {first}",), Stat("stream", {"time": info}, {}))
for number in range(first, first + 10_000):
    data = np.random.default_rng(number).integers(0, 9, 500 + number % 3000)
    with engine.transaction():
        engine.write(("items", str(number)), Record("array", {"data": data}, {"number": number}, {}))
        engine.write(("latest",), Record("array", {"data": data}, {"number": number}, {}))
    stream.extend({"time": np.full(3, number)})
    stream.flush()
    print(number, flush=True)
"""


def run_and_kill(path, acknowledgements, delay):
    """Start a writer, kill it a moment after so many items, and say which item was acknowledged last."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(acknowledgements):
        process.stdout.readline()
    time.sleep(delay)  # so that the signal falls anywhere into an operation
    process.kill()
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else None


def kill_again_and_again(path, times):
    chance = random.Random(times)
    for _ in range(times):
        last = run_and_kill(path, chance.randrange(3, 12), chance.random() / 50)
        engine = HDF5Engine(path)
        count = len(list(engine.children(("items",))))
        assert count >= (last or 0) + 1
        assert set(engine.children(("items",))) == {str(number) for number in range(count)}
        assert engine.stat(("latest",)).meta["number"] == count - 1
        assert list(engine.verify()) == []
        for number in range(count):
            expected = np.random.default_rng(number).integers(0, 9, 500 + number % 3000)
            assert np.array_equal(engine.read(("items", str(number)), "data"), expected)
        engine.close()
        read_everything(path)


def test_killed_writer_loses_nothing_acknowledged(folder):
    kill_again_and_again(folder / "killed.h5", 5)


FULL = """
import resource, sys
import numpy as np
from datastore_lab.engines.hdf5 import HDF5Engine, pages
from datastore_lab.errors import EngineError
from datastore_lab.records import Record

def record(size):
    return Record("array", {"data": np.ones(size), "more": np.zeros(10)}, {"note": "x" * 3000}, {})

engine = HDF5Engine(sys.argv[1])
engine.write(("old",), record(1000))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    for number in range(10_000):
        engine.write((str(number),), record(2_000_000 if number > 2 else 1000))
except EngineError as error:
    assert "File too large" in str(error), error
assert engine.read(("old",), "data").sum() == 1000
kept = len(list(engine.keys()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
engine.write(("after",), record(1000))
engine.close()
print(kept)
"""


@pytest.mark.parametrize("limit", [24_000, 33_000, 47_123, 100_000, 1_000_000, 17_000_000])
def test_full_disk_ends_in_an_error_and_not_in_a_crash(folder, limit):
    path = folder / f"full {limit}.h5"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engine = HDF5Engine(path)
    assert len(list(engine.keys())) == int(done.stdout) + 1
    assert list(engine.verify()) == []
    engine.close()
    read_everything(path)


def delete_one(engine, _streams):
    engine.delete(next(iter(engine.keys())))


def test_crash_while_a_file_is_compacted_or_replaced(folder, monkeypatch):
    """By hand, on its own when it is closed, and by opening it to start empty."""
    monkeypatch.setattr(space, "LEAST", 1)
    steps = crash.operations(12, seed=3)
    disk, streams, promised = crash.RecordingDisk(), {}, [{}]
    path = folder / "store.h5"
    crash.put({}, folder)
    engine = HDF5Engine(path, disk=disk, compact_above=0)
    acts = [*steps, HDF5Engine.compact, steps[0], delete_one, HDF5Engine.close, "replace", steps[1]]
    for number, act in enumerate(acts):
        disk.mark("begun", number + 1)
        if act == "replace":
            engine, streams = HDF5Engine(path, "w", disk=disk), {}
        elif act in (HDF5Engine.compact, HDF5Engine.close):
            streams.clear()
            act(engine)
        else:
            act(engine, streams)
        disk.mark("done", number + 1)
        promised.append(promised[-1] if act is HDF5Engine.close else crash.digest(engine))
    engine.close()
    assert sum(event.kind == "replace" for event in disk.events) == 4
    for state in crash.states(disk.events, share=0.1):
        check(state, promised, folder)
