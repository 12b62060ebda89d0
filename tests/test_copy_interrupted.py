"""Copies that are interrupted, killed or refused room, and go on; and the memory that they take."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from copies import EVERY, MEMORY, ONLY_APPENDED, assert_copied, fill, opened, stream
from engines import WHOLE

from datastore_lab import copy_store, open_store
from datastore_lab.errors import EngineError
from datastore_lab.store import Store
from datastore_lab.store.moving import copying
from datastore_lab.testing.conformance.suite import content
from datastore_lab.testing.equality import assert_same_array, assert_same_json


class Stop(Exception):
    pass


def interrupted(source: Store, target: Store, after: int, error: type[BaseException]) -> bool:
    """Copy until the progress has been told so many times; says whether the copy ended before."""
    calls = itertools.count()

    def stop(_progress: Any) -> None:
        if next(calls) == after:
            raise error

    try:
        copy_store(source, target, progress=stop)
    except error:
        return False
    return True


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.engine)
def test_an_interrupted_copy_shows_whole_items_only_and_goes_on(
    case, error, tmp_path, small_blocks, monkeypatch
):
    monkeypatch.setattr(copying, "_BATCH_ITEMS", 3)
    with opened(MEMORY, tmp_path) as source:
        fill(source)
        source["large"] = np.arange(300.0)
        expected = content(source.engine)
        for after in (3, 15, 20, 24, 30, 36, 45):
            with opened(case, tmp_path / f"target {after}") as target:
                ended = interrupted(source, target, after, error)
                for key, (stat, arrays) in content(target.engine).items():
                    assert_same_json(stat.meta, expected[key][0].meta)
                    for name, array in expected[key][1].items():
                        assert_same_array(arrays[name], array)
                there = len(target)
                report = copy_store(source, target)
                assert report.complete, report
                assert ended or report.kept == there
                assert_copied(source, target)
                assert "lab_copying" not in list(target.children())


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("case", ONLY_APPENDED, ids=lambda case: case.engine)
def test_an_interrupted_copy_into_files_for_appending_shows_whole_streams_only_and_goes_on(
    case, error, tmp_path, small_blocks
):
    lengths, turns = {"a": 80, "b": 5, "c": 120}, set()
    with opened(MEMORY, tmp_path) as source:
        for name, rows in lengths.items():
            stream(source, name, rows)
        for after in range(2, 30, 2):
            with opened(case, tmp_path / f"target {after}") as target:
                ended = interrupted(source, target, after, error)
                there = {key for (key,) in target.keys_below()}
                for key in there:
                    assert np.array_equal(target.record(key).arrays["time"], np.arange(lengths[key]))
                report = copy_store(source, target)
                assert report.complete, report
                assert ended or report.kept == len(there)
                turns.add(len(there))
                print(after, there)
                assert_copied(source, target)
                assert target.verify() == []
    assert {0, 1, 2} <= turns


def test_two_threads_that_copy_to_and_fro_do_not_wait_for_each_other(tmp_path):
    with open_store(tmp_path / "a.h5") as one, open_store(tmp_path / "b.h5") as other:
        for store, name in ((one, "one"), (other, "other")):
            with store.transaction():
                for number in range(200):
                    store[f"{name}/{number}"] = np.arange(100)
        threads = [
            threading.Thread(target=copy_store, args=pair, daemon=True)
            for pair in (
                (one.group("one"), other.group("copy")),
                (other.group("other"), one.group("copy")),
            )
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert len(one) == len(other) == 400


PROGRAM = """
import sys
from datastore_lab import copy_store, open_store
from datastore_lab.store.moving import blocks, copying
open_store(sys.argv[2]).close()  # what is slow to import is there before the clock starts
blocks.parts.__defaults__ = (4096,)
blocks.rows_within.__defaults__ = (4096, 1)
copying.BLOCK, copying._BATCH_ITEMS = 4096, 5
print("ready", flush=True)
copy_store(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_killed_copy_leaves_whole_items_only_and_goes_on(case, tmp_path, faults):
    with open_store(tmp_path / "source.h5") as source:
        fill(source)
        for number in range(40):
            source[f"many/{number}"] = np.random.default_rng(number).random(100 * number)
    runs, chance, longest = max(12, faults.times(60)), random.Random(7), 0.5
    resumed = 0
    for run in range(runs):
        folder = tmp_path / f"run {run}"
        folder.mkdir()
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "source.h5"), str(folder / case.name)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            started = time.monotonic()
            try:
                process.wait(chance.uniform(0, longest))
                longest = min(longest, 1.1 * (time.monotonic() - started))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.wait(60)
        with open_store(tmp_path / "source.h5", "r") as source, open_store(folder / case.name) as target:
            there = [key for key in target.keys_below() if key[0] != "lab_copying"]
            for key in there:
                found, expected = target.record(key), source.record(key)
                assert_same_json([found.kind, found.meta], [expected.kind, expected.meta])
                for name, array in expected.arrays.items():
                    assert_same_array(found.arrays[name], array)
            report = copy_store(source, target)
            assert report.complete, report
            assert report.kept == len(there)
            resumed += 0 < report.kept < len(source)
            assert_copied(source, target)
            assert target.verify() == []
        shutil.rmtree(folder)
    assert resumed
    faults.tried(f"copy into {case.engine}", "kill -9, then resumed", runs)


# -- places that fail, and memory --------------------------------------------------------------------------


def _small_disk(folder: Path, megabytes: int) -> bool:
    """Mount a small disk in memory, where that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    return (
        sys.platform == "linux" and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.engine)
def test_a_full_disk_ends_the_copy_with_whole_items_and_it_goes_on(case, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_BATCH_ITEMS", 2)
    disk = tmp_path / "disk"
    if not _small_disk(disk, 8):
        pytest.skip("no small disk can be mounted here")
    try:
        with opened(MEMORY, tmp_path) as source:
            for number in range(40):
                source[f"item {number}"] = np.random.default_rng(number).random(40_000)
            with open_store(disk / case.name) as target, pytest.raises(EngineError) as failed:
                copy_store(source, target)
            assert "copy again to go on" in failed.value.__notes__[0]
            with open_store(disk / case.name, "r") as target:
                there = [key for key in target.keys_below() if key[0] != "lab_copying"]
                assert 0 < len(there) < 40
                for key in there:
                    assert np.array_equal(target[key], source[key])
            subprocess.run(["mount", "-o", "remount,size=80m", str(disk)], check=True)
            report = copy_store(source, disk / case.name)
            assert report.complete
            assert report.kept == len(there)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


LARGE = """
import resource, sys
import numpy as np
from datastore_lab import copy_store, open_store
from datastore_lab.records import ArrayInfo, Stat
megabytes, source, *targets = sys.argv[1:]
rows = int(megabytes) * 125
with open_store(source, durability="process") as store:
    spec = Stat("array", {"data": ArrayInfo("<f8", (0, 1000), ("t", "x"), 0, None)}, {})
    appender = store.append("run", spec)
    for number in range(0, rows, 1000):
        appender.extend({"data": np.full((min(1000, rows - number), 1000), number, "<f8")})
        appender.flush()
    appender.close({})
for target in targets:
    assert copy_store(source, target).complete
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is asked of Linux")
def test_memory_does_not_grow_with_the_item(tmp_path):
    peaks = []
    for megabytes in (100, 600):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        places = [str(folder / name) for name in ("a.h5", "b.zarr", "c.h5")]
        command = [sys.executable, "-c", LARGE, str(megabytes), *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
        shutil.rmtree(folder)
    assert peaks[1] < peaks[0] + 150
