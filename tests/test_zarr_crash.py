"""Folder stores after crashes and on disks that refuse: beside what is tried on all engines."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from datastore_lab.engines.parquet import ParquetFolderEngine
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.errors import EngineError
from datastore_lab.folders import files
from datastore_lab.records import Record
from datastore_lab.testing.crash_tree import crash_states, record
from datastore_lab.testing.workload import Workload, snapshot

STEPS = 100


@pytest.fixture
def scratch(tmp_path):
    """A folder in memory where there is one: thousands of small folders are made and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def read_with_zarr(path):
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    for _, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            member[...]


def read_with_arrow(path):
    for file in path.rglob("*.parquet"):
        pq.read_metadata(file)


BOTH = pytest.mark.parametrize(
    ("engine", "elsewhere"),
    [(ZarrEngine, read_with_zarr), (ParquetFolderEngine, read_with_arrow)],
    ids=["zarr", "parquet-folder"],
)


@BOTH
def test_what_crash_points_leave_is_read_by_other_programs(scratch, engine, elsewhere):
    """What is in it is compared elsewhere, at every crash point; here a few are opened by others."""
    (scratch / "live").mkdir()
    with record(scratch / "live") as trace:
        live = engine(scratch / "live" / "s", "w")
        trace.acknowledge()  # the empty store is the first step
        work = Workload(live, 11)
        for _ in range(STEPS):
            work.step()
            trace.acknowledge()
        live.close()
    count = 0
    for state in crash_states(trace, scratch / "states", share=0.02, seed=11):
        if (state.folder / "s").exists():
            engine(state.folder / "s", "a").close()
            elsewhere(state.folder / "s")
            count += 1
        shutil.rmtree(state.folder)
    assert count > 30


@BOTH
def test_a_crash_while_what_was_just_begun_is_moved(scratch, engine, elsewhere):
    """What lies in a new folder leaves it before that is put in place: all of it happens, or nothing."""
    (scratch / "live").mkdir()
    with record(scratch / "live") as trace:
        live = engine(scratch / "live" / "s", "w")
        trace.acknowledge()
        seen = [snapshot(live)]
        live.write(("old",), Record("array", {"data": np.arange(3)}, {}, {}))
        trace.acknowledge()
        seen.append(snapshot(live))
        with live.transaction():
            for name in ("a", "b"):
                live.write(("g", "h", name), Record("array", {"data": np.arange(5)}, {}, {}))
            live.move(("g", "h", "a"), ("a",))
            live.move(("old",), ("g", "old"))
            live.move(("g", "h"), ("k",))
        trace.acknowledge()
        seen.append(snapshot(live))
        live.close()
    found = []
    for state in crash_states(trace, scratch / "states", share=1.0, seed=11):
        if (state.folder / "s").exists():
            with contextlib.closing(engine(state.folder / "s", "a")) as again:
                found.append(seen.index(snapshot(again)))
            assert state.least - 1 <= found[-1] <= max(state.most - 1, 0)
            elsewhere(state.folder / "s")
        shutil.rmtree(state.folder)
    assert set(found) == {0, 1, 2}


@BOTH
def test_a_file_keeps_a_name_until_the_one_in_the_tree_is_durable(tmp_path, engine, elsewhere):
    """A power cut may keep the end of one name without the beginning of the other."""
    live = engine(tmp_path / "s", "w")
    for name in "ab":
        live.write((name,), Record("array", {"data": np.arange(5)}, {"new": False}, {}))
    events = []

    def look(operation, path, detail):
        names = Path(path).stat().st_nlink if operation == "rename" and Path(path).is_file() else 0
        events.append((operation, Path(path), detail and names and Path(detail), names))

    with files.observe(look), live.transaction():
        for name in "ab":
            live.update((name,), {"new": True})
    journal = tmp_path / "s-journal"
    put = [event for event in events if event[2] and tmp_path / "s" in event[2].parents]
    assert [names for *_, names in put] == [2, 2]
    order = [event[:2] for event in events]
    emptied = min(
        at for at, (what, path) in enumerate(order) if what == "unlink" and path.parent.name == "stage"
    )
    ended = order.index(("unlink", journal / "log"))
    assert all(("sync", event[2].parent) in order[:ended] for event in put)
    assert ended < len(order) - 1 - order[::-1].index(("sync", journal)) < emptied
    live.close()
    elsewhere(tmp_path / "s")


FULL = """
import resource, sys
import numpy as np
from datastore_lab.engines.zarr import ZarrEngine
from datastore_lab.errors import EngineError
from datastore_lab.folders import files
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
