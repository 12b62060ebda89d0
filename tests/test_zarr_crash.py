"""A folder store after every possible crash: what was acknowledged is there, and nothing by halves."""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.errors import EngineError
from datastore_lab.records import Record
from datastore_lab.testing.crash_tree import crash_states, record
from datastore_lab.testing.workload import Workload, snapshot

STEPS = 100


def reference(seed, steps):
    engine = MemoryEngine()
    work, states = Workload(engine, seed), [{}]
    for _ in range(steps):
        work.step()
        states.append(snapshot(engine))
    return states


def read_with_zarr(path, seen=None):
    """Read everything with zarr alone, unless files with the very same content were read before."""
    names = sorted(file for file in path.rglob("*") if file.is_file())
    content = tuple((str(file.relative_to(path)), file.read_bytes()) for file in names)
    if seen is not None and hash(content) in seen:
        return
    if seen is not None:
        seen.add(hash(content))
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    for _, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            member[...]


def judge(state, expected, seen):
    """Open a state, and check that it is one that the work went through, not too early and not too late."""
    path = state.folder / "s.zarr"
    where = f"after change {state.number} ({state.variant}), {state.least} to {state.most} steps"
    if state.least == 0 and not path.exists():
        return
    engine = ZarrEngine(path, "a")
    try:
        found = snapshot(engine)
        assert not list(engine.verify()), where
    finally:
        engine.close()
    assert found in expected[max(state.least - 1, 0) : state.most], where
    assert not path.with_name("s.zarr-journal").exists(), where
    read_with_zarr(path, seen)


def enumerate_crashes(tmp_path, share, seed=11):
    live = tmp_path / "live"
    live.mkdir()
    with record(live) as trace:
        engine = ZarrEngine(live / "s.zarr", "w")
        trace.acknowledge()  # the empty store is the first step
        work = Workload(engine, seed)
        for _ in range(STEPS):
            work.step()
            trace.acknowledge()
        final = snapshot(engine)
        engine.close()
    expected = reference(seed, STEPS)
    assert final == expected[-1]
    count, seen = 0, set()
    for state in crash_states(trace, tmp_path / "states", share=share, seed=seed):
        judge(state, expected, seen)
        shutil.rmtree(state.folder)
        count += 1
    return count, len(trace.changes)


@pytest.fixture
def scratch(tmp_path):
    """A folder in memory where there is one: thousands of small folders are made and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_a_sample_of_crash_points_leaves_a_whole_store(scratch):
    count, changes = enumerate_crashes(scratch, 0.02)
    assert changes > 1000
    assert count > 30


CHILD = """
import sys
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.testing.workload import Workload
engine = ZarrEngine(sys.argv[1], "w")
work = Workload(engine, int(sys.argv[2]))
print("0", flush=True)
for number in range(1, 10_000):
    work.step()
    print(number, flush=True)
"""


def kill_once(path, seed):
    choice = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        stop_at = choice.randrange(0, 60)
        acknowledged = next(int(line) for line in child.stdout if int(line) >= stop_at)
        time.sleep(choice.random() * 0.01)  # so that the kill falls anywhere inside a step
        child.send_signal(signal.SIGKILL)
        rest = [int(line) for line in child.stdout.read().split("\n") if line]
        acknowledged = max([acknowledged, *rest])
    states = reference(seed, acknowledged + 1)
    engine = ZarrEngine(path, "r")
    assert snapshot(engine) in states[acknowledged : acknowledged + 2]
    engine.close()
    engine = ZarrEngine(path, "a")
    assert snapshot(engine) in states[acknowledged : acknowledged + 2]
    assert not list(engine.verify())
    engine.close()
    read_with_zarr(path)


def test_a_killed_writer_loses_nothing(tmp_path):
    for seed in range(5):
        kill_once(tmp_path / f"{seed}.zarr", seed)


FULL = """
import resource, sys
import numpy as np
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.errors import EngineError
from datastore_lab.records import ArrayInfo, Record, Stat
engine = ZarrEngine(sys.argv[1], "a")
stream = engine.append(("s",), Stat("stream", {"x": ArrayInfo("<f8", (0,), ("t",), 0, None)}, {}))
stream.extend({"x": np.ones(10)})
stream.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
noise = np.random.default_rng(0).standard_normal(100_000)
for change in (
    lambda: engine.write(("kept",), Record("array", {"data": noise}, {}, {})),
    lambda: engine.write(("new",), Record("array", {"data": noise}, {}, {})),
    lambda: engine.update(("kept",), {"text": "x" * 100_000}),
):
    try:
        change()
    except EngineError as error:
        print(error, flush=True)
stream.extend({"x": noise})
try:
    stream.flush()
except EngineError as error:
    print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
stream.flush()
engine.write(("after",), Record("array", {"data": noise}, {}, {}))
engine.close()
"""


def test_a_full_disk_is_a_typed_error_and_changes_nothing(tmp_path):
    path = tmp_path / "s.zarr"
    engine = ZarrEngine(path, "w")
    engine.write(("kept",), Record("array", {"data": np.arange(5)}, {"a": 1}, {}))
    engine.close()
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("the disk refused") == 4
    engine = ZarrEngine(path, "r")
    assert list(engine.keys()) == [("after",), ("kept",), ("s",)]
    assert engine.read(("kept",), "data").tolist() == [0, 1, 2, 3, 4]
    assert engine.stat(("kept",)).meta == {"a": 1}
    assert engine.stat(("s",)).arrays["x"].shape == (100_010,)  # what did not fit was kept
    assert not list(engine.verify())


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_an_error_of_the_disk_at_any_change_is_all_or_nothing(tmp_path, at):
    from datastore_lab.folders import files

    path = tmp_path / "s.zarr"
    engine = ZarrEngine(path, "w")
    engine.write(("a",), Record("array", {"data": np.arange(5)}, {}, {}))
    engine.write(("b",), Record("array", {"data": np.arange(7)}, {}, {}))
    before = snapshot(engine)
    left = [at]

    def refuse(operation, where, detail):
        left[0] -= 1
        if left[0] == -1:
            raise OSError(5, "Input/output error", where)

    failed = False
    with files.observe(refuse):
        try:
            with engine.transaction():
                engine.move(("a",), ("c",))
                engine.write(("a",), Record("array", {"data": np.zeros(2)}, {}, {}))
                engine.delete(("b",))
        except EngineError:
            failed = True
    after = snapshot(engine)
    assert (after == before) or set(after) == {("a",), ("c",)}
    assert failed or set(after) == {("a",), ("c",)}
    engine.close()
    engine = ZarrEngine(path, "a")
    assert snapshot(engine) == after
    engine.close()
