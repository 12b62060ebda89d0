"""Runs: everything a device gives is in every file, or in the ledger of what is missing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from runs import Counter, Gated, Slow, check_account, expand, until

from datastore_lab import HostMonitor, SimulatedCamera, SimulatedDAQ, acquire, open_store
from datastore_lab.errors import (
    AlreadyExists,
    BadKey,
    DeviceFailed,
    EngineError,
    NotFound,
    NotStorable,
    StreamError,
)
from datastore_lab.records import Block, Stat
from datastore_lab.testing.devices import Faulty

SUFFIXES = ["h5", "zarr", "arrow", "parquet", "csv"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, "all"])
def test_every_sample_is_in_every_file(tmp_path, suffix):
    paths = [tmp_path / f"data/run.{each}" for each in (SUFFIXES if suffix == "all" else [suffix])]
    counter, other = Counter(5000, 37), Counter(300, 1, "other", width=1)
    with acquire(counter, other, to=paths, ring={"samples": 200}, metadata={"who": "me"}) as run:
        assert counter.done.wait(30)
        assert other.done.wait(30)
        run.mark("half way")
    assert run.state == "stopped"
    assert counter.stopped == 1
    stats = run.stats()
    for path in paths:
        with open_store(path, "r") as store:
            assert sorted(store) == ["counter", "marks", "other"]
            numbers, record = check_account(store)
            assert numbers == list(range(5000))
            assert np.array_equal(record.arrays["n"], np.repeat(np.arange(5000)[:, None], 4, axis=1))
            assert record.arrays["time"].astype("i8").tolist() == [1000 * n for n in range(5000)]
            assert check_account(store, "other")[0] == list(range(300))
            assert record.meta["run"]["metadata"] == {"who": "me"}
            assert record.meta["exit_status"] == "success"
            assert {"host", "versions", "time", "uid"} <= record.meta["run"].keys()
            marks = store.record("marks").arrays
            assert marks["text"].tolist() == ["half way"]
            assert abs(int(marks["time"].astype("i8")[0]) - time.time_ns()) < 60e9
            assert store.verify() == []
        writer = stats["counter"]["writers"][str(path)]
        assert writer == {"lag": 0, "lost": 0, "written": 5000, "bytes": 5000 * 40}


def test_real_devices_at_their_own_rates(tmp_path):
    devices = [SimulatedCamera((120, 160), rate=50), SimulatedDAQ(rate=10_000), HostMonitor(rate=20)]
    paths = [tmp_path / "run.h5", tmp_path / "run.arrow"]
    run = acquire(*devices, to=paths, duration=1.5)
    assert run.wait(30)
    assert run.elapsed == pytest.approx(1.5, abs=0.4)
    for path in paths:
        with open_store(path, "r") as store:
            for name, count in {"camera": 75, "daq": 15_000, "host": 29}.items():
                numbers, record = check_account(store, name)
                assert numbers == list(range(len(numbers)))
                assert len(numbers) == pytest.approx(count, rel=0.3)
                assert record.meta["lost"] == record.meta["device_lost"] == 0
    assert run.stats()["daq"]["rate"] == pytest.approx(10_000, rel=0.1)


def test_a_slow_writer_loses_alone_and_exactly_what_is_recorded(tmp_path):
    slow = Slow(0.02)
    path = tmp_path / "run.h5"
    counter = Counter(20_000, 50)
    with acquire(counter, to=[slow, path], ring={"samples": 500}, overflow="drop_oldest") as run:
        assert counter.done.wait(30)
        slow.gate.set()
    numbers = [n for block in slow.blocks for n in range(block.first, block.first + len(block.time))]
    name, stop = slow.documents[-1]
    assert name == "stop"
    ledger = stop["ledger"]["counter"]
    assert ledger["lost"] > 0
    assert sorted(numbers + expand(ledger["gaps"])) == list(range(20_000))
    assert run.stats()["counter"]["writers"][repr(slow)]["lost"] == ledger["lost"]
    with open_store(path, "r") as store:
        check_account(store)
    assert slow.closed == 1


@pytest.mark.parametrize("overflow", ["block", "grow"])
def test_a_slow_writer_gets_everything_where_it_is_asked_for(overflow):
    slow = Slow(0.01)
    counter = Counter(3_000, 50)
    with acquire(counter, to=slow, ring={"samples": 200}, overflow=overflow):
        assert counter.done.wait(30)
        slow.gate.set()
    assert sum(len(block.time) for block in slow.blocks) == 3_000


def grown(store, rows):
    """Wait until a store shows more than `rows` rows; returns how many."""
    length = lambda: store.stat("counter").arrays["sequence"].shape[0]
    until(lambda: length() > rows)
    return length()


def test_reading_while_it_runs(tmp_path):
    counter = Counter(2_000_000, 20, rate=1000.0)
    paths = [tmp_path / f"run.{suffix}" for suffix in SUFFIXES]
    with acquire(counter, to=paths, flush_interval=0.05, ring=1.0) as run:
        for label, store in run.stores.items():
            before = grown(store, 0)
            grown(store, before)
            part = store.engine.read(("counter",), "n", (slice(0, before), 0))
            assert part.tolist() == list(range(before)), label
        assert run.latest("counter", 5).data["n"].shape == (5, 4)
        with pytest.raises(NotFound, match="'counter'"):
            run.latest("zzz", 1)
        assert run.store.url == str(paths[0])
        assert list(run.devices) == ["counter"]
    assert sorted(run.store) == ["counter", "marks"]


def test_a_run_into_a_group_of_an_open_store(tmp_path):
    with open_store(tmp_path / "lab.h5") as store:
        store["notes"] = "before"
        for number in (1, 2):
            counter = Counter(100)
            with acquire(counter, to=store.group(f"runs/{number}")) as run:
                assert counter.done.wait(30)
            assert run.store.prefix == ("runs", str(number))
        assert store["notes"] == "before"
        assert store.record("runs/2/counter").arrays["sequence"].tolist() == list(range(100))
        assert store.tree("runs")["1/counter"].sizes["time"] == 100


def test_two_groups_of_one_store_have_figures_of_their_own():
    with open_store("memory://") as store:
        counter = Counter(100)
        with acquire(counter, to=[store.group("a"), store.group("b")]) as run:
            assert counter.done.wait(30)
        writers = run.stats()["counter"]["writers"]
        assert [each["written"] for each in writers.values()] == [100, 100]
        assert [each.prefix for each in run.stores.values()] == [("a",), ("b",)]


def test_a_pause_is_recorded_as_a_pause(tmp_path):
    device = Gated(100, 5)
    run = acquire(device, to=tmp_path / "run.h5")

    def give(count):
        target = run.stats()["counter"]["produced"] + 5 * count
        device.allowed.release(count)
        until(lambda: run.stats()["counter"]["produced"] == target)

    give(2)
    run.pause()
    run.pause()
    assert run.state == "paused"
    elapsed = run.elapsed
    give(3)
    assert run.elapsed == elapsed
    run.mark("in the pause")
    run.resume()
    assert run.state == "running"
    give(1)
    run.stop()
    with open_store(tmp_path / "run.h5", "r") as store:
        numbers, record = check_account(store)
        assert numbers == [*range(10), *range(25, 30)]
        assert record.meta["skipped"] == [[10, 24]]
        assert record.meta["device_lost"] == 0
        marks = store.record("marks").arrays
        assert marks["event"].tolist() == ["pause", "mark", "resume"]
        assert marks["text"].tolist() == ["", "in the pause", ""]
        assert (np.diff(marks["time"].astype("i8")) >= 0).all()
    assert run.stats()["counter"]["skipped"] == 15


def test_losses_of_the_device_are_in_the_ledger(tmp_path):
    counter = Counter(1000, 10)
    with acquire(Faulty(counter, drop={3: 7, 50: 1}), to=tmp_path / "run.arrow"):
        assert counter.done.wait(30)
    with open_store(tmp_path / "run.arrow", "r") as store:
        _numbers, record = check_account(store)
        assert record.meta["device_gaps"] == [[30, 36], [507, 507]]
        assert record.meta["device_lost"] == 8


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"raise_after": 7}, "cable was pulled"),
        ({"silent_after": 7}, "fell silent"),
        ({"garbage_after": 7}, "complex128"),
        ({"drop": {7: -3}}, "begins at sequence number"),
    ],
)
def test_a_device_that_fails_ends_the_run_with_everything_before_it_written(tmp_path, fault, why):
    paths = [tmp_path / f"run.{suffix}" for suffix in SUFFIXES]
    device = Faulty(Counter(10_000, 10, rate=1000.0), **fault)
    other = Counter(50, 10, "other")
    run = acquire(device, other, to=paths, silence=0.2, retries=0, stop_on_failure=True)
    with pytest.raises(DeviceFailed, match=why) as caught:
        run.wait(30)
    assert run.state == "failed"
    assert run.error is caught.value
    assert why in repr(run)
    with pytest.raises(DeviceFailed):
        run.stop()
    for path in paths:
        with open_store(path, "r") as store:
            assert check_account(store)[0] == list(range(70))
            meta = store.stat("counter").meta
            assert meta["exit_status"] == "fail"
            assert why in meta["reason"]
            assert store.stat("other").meta["exit_status"] == "fail"


def test_a_device_that_does_not_start_fails_the_run(tmp_path):
    device = Counter()
    device.start = lambda: 1 / 0
    run = acquire(device, to=tmp_path / "run.h5")
    with pytest.raises(DeviceFailed, match="ZeroDivisionError") as caught:
        run.wait(30)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("method", ["write", "flush", "consume_document", "close"])
def test_a_writer_that_fails_ends_the_run_and_the_others_have_everything(tmp_path, method):
    broken = Slow()
    plain = getattr(broken, method)

    def fail(*args):
        if method == "consume_document" and args[0] != "stop":
            return plain(*args)
        raise OSError("no space left on device")

    setattr(broken, method, fail)
    counter = Counter(500, 10)
    run = acquire(counter, to=[broken, tmp_path / "run.h5"], flush_interval=0.01)
    if method in {"consume_document", "close"}:
        assert counter.done.wait(30)
        with pytest.raises(StreamError, match="no space left"):
            run.stop()
    with pytest.raises(StreamError, match="no space left") as caught:
        run.wait(30)
    assert isinstance(caught.value.__cause__, OSError)
    assert run.state == "failed"
    with open_store(tmp_path / "run.h5", "r") as store:
        numbers, _record = check_account(store)
        assert len(numbers) == run.stats()["counter"]["produced"]


FULL = """
import resource, sys
from datastore_lab import SimulatedDAQ, acquire
from datastore_lab.errors import StreamError
run = acquire(SimulatedDAQ(channels=16, rate=200_000), to=sys.argv[1], flush_interval=0.05, start=False)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
run.start()
try:
    run.wait(30)
except StreamError as error:
    print(run.state, type(error).__name__, "|", error)
else:
    print("not noticed")
"""


@pytest.mark.parametrize(
    ("suffix", "limit"),
    [("h5", 9_000_000), ("zarr", 400_000), ("arrow", 9_000_000), ("parquet", 9_000_000), ("csv", 9_000_000)],
)
def test_a_full_disk_ends_the_run_and_nothing_flushed_is_lost(tmp_path, suffix, limit):
    """No file may grow beyond the limit, and 27 MB come per second."""
    path = tmp_path / f"full.{suffix}"
    command = [sys.executable, "-c", FULL, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("failed StreamError"), done.stdout
    assert "full." in done.stdout
    with open_store(path) as store:
        arrays = store.record("daq").arrays
        count = len(arrays["sequence"])
        assert count > 1_000 or suffix == "zarr"
        assert np.array_equal(arrays["sequence"], np.arange(count))
        volts = SimulatedDAQ(channels=16, rate=200_000)._volts(0, count)
        assert np.array_equal(arrays["adc"], volts)
        assert [p for p in store.verify() if "checksum" in p.what] == []


KILLED = """
import sys, time
from datastore_lab import SimulatedCamera, SimulatedDAQ, acquire
devices = SimulatedCamera((60, 80), rate=100), SimulatedDAQ(rate=5000)
run = acquire(*devices, to=sys.argv[1:], flush_interval=0.02)
run.mark("alive")
while True:
    # what a reader of the files sees was flushed, and must be there after the kill
    flushed = [[store.stat(name).arrays["sequence"].shape[0] for name in ("camera", "daq")]
               for store in run.stores.values()]
    print(flushed, flush=True)
    time.sleep(0.01)
"""


def kill(tmp_path, lines):
    paths = [tmp_path / f"run.{suffix}" for suffix in SUFFIXES]
    command = [sys.executable, "-c", KILLED, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        acknowledged = []
        for line in child.stdout:
            if line.endswith("]\n"):
                acknowledged = eval(line)
            lines -= acknowledged[0][0] > 0
            if lines < 0:
                break
        for path, (frames, _samples) in zip(paths, acknowledged, strict=True):
            with open_store(path, "r") as store:  # another process reads while it goes on
                assert len(store.record("camera").arrays["frame"]) >= frames
        os.kill(child.pid, signal.SIGKILL)
    for path, (frames, samples) in zip(paths, acknowledged, strict=True):
        with open_store(path) as store:
            for name, least in {"camera": frames, "daq": samples}.items():
                arrays = store.record(name).arrays
                assert len(arrays["sequence"]) >= least
                assert np.array_equal(arrays["sequence"], np.arange(len(arrays["sequence"])))
                assert len({len(rows) for rows in arrays.values()}) == 1
            assert "exit_status" not in store.stat("daq").meta
            camera, drawn = SimulatedCamera((60, 80), rate=100), np.empty((60, 80), "u1")
            frames = store.record("camera").arrays["frame"]
            for number in (0, len(frames) // 2, len(frames) - 1):
                camera._draw(drawn, number)
                assert np.array_equal(frames[number], drawn)
            assert [p for p in store.verify() if "checksum" in p.what] == []


def test_kill_9_in_the_middle_leaves_everything_flushed(tmp_path):
    kill(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_at_many_moments(tmp_path, faults):
    times = faults.times(40)
    for moment in range(0, 40, 40 // times):
        place = tmp_path / str(moment)
        place.mkdir()
        kill(place, moment)
    faults.tried("a run into all formats", "kill -9 of the recording process", times)


INTERRUPTED = """
import sys, time
from datastore_lab import SimulatedDAQ, acquire
run = acquire(SimulatedDAQ(rate=1000), to=sys.argv[2:])
print("waiting", flush=True)
try:
    if sys.argv[1] == "wait":
        run.wait()
    else:
        with run:
            time.sleep(60)
except KeyboardInterrupt:
    print(run.state)
"""


@pytest.mark.parametrize("where", ["wait", "with"])
def test_an_interrupt_stops_the_run_with_everything_written(tmp_path, where):
    paths = [tmp_path / f"run.{suffix}" for suffix in SUFFIXES]
    command = [sys.executable, "-c", INTERRUPTED, where, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "waiting\n"
        until(lambda: (tmp_path / "run.daq.arrow").stat().st_size > 20_000)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (out, child.returncode) == ("stopped\n", 0), err
    for path in paths:
        with open_store(path, "r") as store:
            assert store.stat("daq").meta["exit_status"] == "success"
            check_account(store, "daq")


def test_leaving_python_ends_the_run(tmp_path):
    program = (
        "import sys; from datastore_lab import SimulatedDAQ, acquire\n"
        "run = acquire(SimulatedDAQ(), to=sys.argv[1]); run.wait(0.3)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "run.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_store(tmp_path / "run.h5", "r") as store:
        assert store.stat("daq").meta["exit_status"] == "success"


def test_an_error_in_the_with_block_stops_the_run_and_goes_on_its_way():
    with open_store("memory://") as store:
        with pytest.raises(ZeroDivisionError), acquire(Counter(), to=store) as run:
            raise ZeroDivisionError
        assert run.state == "stopped"


def test_a_start_that_failed_may_be_tried_again(tmp_path):
    path, counter = tmp_path / "run.h5", Counter(20)
    with open_store(path) as store:
        store["counter"] = "taken"
    run = acquire(counter, to=path, start=False)
    with pytest.raises(AlreadyExists):
        run.start()
    path.unlink()
    run.start()
    assert counter.done.wait(30)
    run.stop()
    with open_store(path, "r") as store:
        assert check_account(store)[0] == list(range(20))
        assert store.stat("counter").meta["exit_status"] == "success"


def test_a_mark_that_was_accepted_is_in_the_file():
    for _ in range(20):
        with open_store("memory://") as store:
            run, accepted = acquire(Counter(10), to=store, duration=0.01), 0
            with contextlib.suppress(StreamError):
                while accepted < 1_000_000:
                    run.mark("again")
                    accepted += 1
            assert run.wait(20)
            assert 0 < accepted < 1_000_000
            assert store.stat("marks").arrays["text"].shape == (accepted,)


def test_a_device_or_a_writer_may_stop_its_own_run():
    class Stopping(Counter):
        def read(self, timeout):
            if self.first == 50:
                run.stop()
            return super().read(timeout)

    with open_store("memory://") as store:
        run = acquire(Stopping(50), to=store, start=False)
        run.start()
        assert run.wait(10)
        assert check_account(store)[0] == list(range(50))
    slow = Slow()
    slow.flush = lambda: run.stop()
    run = acquire(Counter(), to=slow, flush_interval=0.01, start=False)
    run.start()
    assert run.wait(10)
    assert run.state == "stopped"


def test_a_writer_that_waits_for_its_own_run_is_an_error():
    slow = Slow()
    slow.flush = lambda: run.wait()
    run = acquire(Counter(), to=slow, flush_interval=0.01, start=False)
    run.start()
    with pytest.raises(StreamError, match="can't wait"):
        run.wait(10)


def test_a_thread_that_cannot_be_started_ends_the_run(monkeypatch):
    began = threading.Thread.start

    def start(thread):
        if thread.name in refused:
            raise RuntimeError("can't start new thread")
        began(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with open_store("memory://") as store:
        refused = {"run counter"}
        run = acquire(Counter(), to=store)
        with pytest.raises(StreamError, match="new thread"):
            run.wait(20)
        assert store.stat("counter").meta["exit_status"] == "fail"
        refused = {"run"}
        run = acquire(Counter(), to=store.group("second"), start=False)
        with pytest.raises(RuntimeError, match="new thread"):
            run.start()
        assert run.state == "ready"
        run.stop()


def test_a_run_of_centuries_can_be_stopped():
    run = acquire(Counter(10), duration=1e10)
    run.stop()
    assert run.state == "stopped"


def test_what_stopping_a_broken_device_says_does_not_hide_why_it_broke():
    device = Faulty(Counter(10_000), raise_after=3)
    device.stop = lambda: 1 / 0
    with pytest.raises(DeviceFailed, match="cable was pulled") as caught:
        acquire(device).wait(20)
    assert "ZeroDivisionError" in str(caught.value.__cause__.__notes__)


def test_blocks_without_samples_are_silence():
    device = Counter(0, rate=1000.0)
    device.read = lambda timeout: Block(0, np.empty(0, "i8"), {"n": np.empty((0, 4), "i8")})
    with pytest.raises(DeviceFailed, match="fell silent"):
        acquire(device, silence=0.1).wait(20)


def test_the_time_that_a_writer_takes_is_not_the_devices_silence():
    class Bursts(Counter):
        def read(self, timeout):
            self.turn = not getattr(self, "turn", False)
            return super().read(timeout) if self.turn else None

    slow = Slow(0.4)
    device = Bursts(60, 10, rate=1000.0)
    run = acquire(device, to=slow, ring={"samples": 10}, silence=0.2)
    until(lambda: run.stats()["counter"]["writers"][repr(slow)]["written"] >= 40 or run.error)
    assert run.error is None
    slow.gate.set()
    run._halt()


def test_the_rate_of_a_silent_device_goes_down():
    device = Counter(3000, 1)
    with acquire(device) as run:
        device.total = 2**60
        until(lambda: run.stats()["counter"]["rate"] > 0)
        device.total = 0
        measured = run.stats()["counter"]["rate"]
        until(lambda: run.stats()["counter"]["rate"] < measured / 4)


def test_states():
    counter = Counter(10)
    run = acquire(counter, start=False)
    assert (run.state, run.elapsed, run.error, run.store) == ("ready", 0.0, None, None)
    assert run.latest("counter", 3) is None
    assert not run.wait(0)
    with pytest.raises(StreamError, match="ready"):
        run.mark("too early")
    assert "ready" in repr(run)
    run.start()
    run.start()
    assert run.state == "running"
    assert counter.done.wait(30)
    assert run.latest("counter", 3).data["n"][:, 0].tolist() == [7, 8, 9]
    run.pause()
    run.start()
    assert run.state == "running"
    run.stop()
    run.stop()
    assert run.wait()
    run.pause()
    assert run.state == "stopped"
    for change in (run.start, lambda: run.mark("too late")):
        with pytest.raises(StreamError, match="stopped"):
            change()
    never = acquire(Counter(), start=False)
    never.stop()
    assert (never.state, never.store) == ("stopped", None)


def test_a_run_stops_by_itself_after_its_duration_without_the_pauses():
    run = acquire(SimulatedDAQ(rate=1000), to=open_store("memory://"), duration="600 ms")
    run.pause()
    assert not run.wait(0.8)
    run.resume()
    assert run.wait(20)
    assert run.elapsed == pytest.approx(0.6, abs=0.3)


def test_runs_never_overwrite(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"run.{suffix}"
        with acquire(Counter(20), to=path):
            pass
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        with pytest.raises(AlreadyExists, match="run_name"):
            acquire(Counter(20), to=[tmp_path / f"second-{suffix}.h5", path])
        after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert after == before


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: acquire(), ValueError, "at least one device"),
        (lambda: acquire(Counter(), Counter()), ValueError, "two devices are named 'counter'"),
        (lambda: acquire(Counter(name="marks")), ValueError, "another name"),
        (lambda: acquire(Counter(), overflow="forget"), ValueError, "'drop_oldest', 'block', 'grow'"),
        (lambda: acquire(Counter(), to="run.xyz"), EngineError, r"run\.xyz.*\.h5"),
        (lambda: acquire(Counter(), to=3), TypeError, "path, a Store or a writer"),
        (lambda: acquire(Counter(), metadata={"a": object()}), TypeError, r"metadata\['a'\]"),
        (lambda: acquire(Counter(rate=1e9), ring=1e6), ValueError, "GB are free"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(make, error, why):
    with pytest.raises(error, match=why):
        make()


def describing(spec, name="counter"):
    device = Counter(name=name)
    device.describe = spec if callable(spec) else lambda: spec
    return device


@pytest.mark.parametrize(
    ("spec", "name", "error", "why"),
    [
        (lambda: 1 / 0, "laser", DeviceFailed, "'laser' can't describe itself.*ZeroDivisionError"),
        ({"x": 1}, "laser", DeviceFailed, "'laser' describes itself wrongly.*dict"),
        (Stat("stream", {}, {"rate": "10 Hz"}), "laser", DeviceFailed, "'laser'.*'10 Hz'"),
        (Stat("stream", {}, {"rate": float("nan")}), "laser", DeviceFailed, "'laser'.*nan"),
        (Stat("stream", {}, {"rate": -1}), "laser", DeviceFailed, "'laser'.*-1"),
        (Stat("stream", {}, {"units": "V"}), "laser", DeviceFailed, "'laser'.*'V'"),
        (Stat("stream", {}, {"x": object()}), "laser", NotStorable, "'laser'.*object"),
        (Stat("stream", {}, {}), "", BadKey, "empty part"),
    ],
)
def test_a_device_that_describes_itself_wrongly_leaves_no_file(spec, name, error, why, tmp_path):
    with pytest.raises(error, match=why):
        acquire(describing(spec, name), to=tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="file' can't be made"):
        acquire(Counter(), to=tmp_path / "file" / "run.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
