"""A Parquet folder after every possible crash: what was acknowledged is there, and nothing by halves."""

import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datastore_lab.engines.memory import MemoryEngine
from datastore_lab.engines.parquet import ParquetFolderEngine
from datastore_lab.testing.crash_tree import crash_states, record
from datastore_lab.testing.workload import Workload, snapshot

STEPS = 200


def reference(seed, steps):
    engine = MemoryEngine()
    work, states = Workload(engine, seed), [{}]
    for _ in range(steps):
        work.step()
        states.append(snapshot(engine))
    return states


def judge(state, expected):
    """Open a state, and check that it is one that the work went through, not too early and not too late."""
    path = state.folder / "s.parquets"
    where = f"after change {state.number} ({state.variant}), {state.least} to {state.most} steps"
    if state.least == 0 and not path.exists():
        return
    engine = ParquetFolderEngine(path, "a")
    try:
        found = snapshot(engine)
        assert not list(engine.verify()), where
    finally:
        engine.close()
    assert found in expected[max(state.least - 1, 0) : state.most], where
    assert not path.with_name("s.parquets-journal").exists(), where
    for file in path.rglob("*.parquet"):
        pq.read_metadata(file)


def enumerate_crashes(scratch, share, seed=11):
    live = scratch / "live"
    live.mkdir()
    with record(live) as trace:
        engine = ParquetFolderEngine(live / "s.parquets", "w")
        trace.acknowledge()  # the empty store is the first step
        work = Workload(engine, seed)
        for _ in range(STEPS):
            work.step()
            trace.acknowledge()
        final = snapshot(engine)
        engine.close()
    expected = reference(seed, STEPS)
    assert final == expected[-1]
    count = 0
    for state in crash_states(trace, scratch / "states", share=share, seed=seed):
        judge(state, expected)
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
    count, changes = enumerate_crashes(scratch, 0.01)
    assert changes > 1000
    assert count > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_crash_point_leaves_a_whole_store(scratch, faults):
    count, changes = enumerate_crashes(scratch, faults.share)
    assert count > changes * faults.share
    faults.tried("Parquet folder", f"crash states of {changes:,} changes of the disk", count)
