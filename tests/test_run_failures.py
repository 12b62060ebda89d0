"""Devices that fail are tried again and end nobody else; clocks; and what runs say of themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from runs import Counter, check_account, until

from datastore_lab import SimulatedDAQ, acquire, open_store
from datastore_lab.acquire.clock import ClockFit
from datastore_lab.acquire.origin import git_state
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import ArrayInfo, Block, Stat

SUFFIXES = ["h5", "zarr", "arrow", "parquet", "csv"]


class Breaking(Counter):
    """Fails after so many samples, each time that it is started, as often as it is told."""

    def __init__(self, total=100, step=10, name="counter", after=30, times=1, goes_on=False):
        super().__init__(total, step, name)
        self.after, self.times, self.goes_on = after, times, goes_on
        self.starts = 0
        self.begun = 0

    def start(self):
        self.starts += 1
        if not self.goes_on:
            super().start()
        self.begun = self.first

    def read(self, timeout):
        if self.first - self.begun >= self.after and self.starts <= self.times:
            if self.goes_on:
                self.first += 5  # its counter ran on while it was away
            raise OSError("the cable was pulled")
        return super().read(timeout)


def marks_of(store):
    arrays = store.record("marks").arrays
    return list(zip(arrays["event"].tolist(), arrays["text"].tolist(), strict=True))


def test_a_device_that_comes_back_goes_on_with_its_numbers(tmp_path):
    device = Breaking(times=2)
    with acquire(device, to=tmp_path / "run.h5", retry_delay=0.01) as run:
        assert device.done.wait(30)
    assert (run.state, device.starts, device.stopped) == ("stopped", 3, 3)
    with open_store(tmp_path / "run.h5", "r") as store:
        numbers, record = check_account(store)
        assert numbers == list(range(30 + 30 + 100))
        assert record.arrays["n"][:, 0].tolist() == [*range(30), *range(30), *range(100)]
        assert [outage["after"] for outage in record.meta["outages"]] == [30, 60]
        for outage in record.meta["outages"]:
            assert 0.01 <= outage["seconds"] < 10
            assert "cable was pulled" in outage["reason"]
        events = marks_of(store)
    assert [event for event, _ in events] == ["failure", "recovery"] * 2
    assert "started again (2 of 3)" in events[2][1]
    assert "'counter' is back after" in events[3][1]
    assert run.stats()["counter"]["outages"] == 2


def test_the_samples_of_an_outage_are_lost_where_the_device_counted_on(tmp_path):
    device = Breaking(goes_on=True)
    with acquire(device, to=tmp_path / "run.h5", retry_delay=0):
        assert device.done.wait(30)
    with open_store(tmp_path / "run.h5", "r") as store:
        numbers, record = check_account(store)
        assert numbers == [*range(30), *range(35, 100)]
        assert record.meta["device_gaps"] == [[30, 34]]
        assert record.arrays["n"][:, 0].tolist() == numbers


def test_a_device_that_is_given_up_does_not_end_the_others(tmp_path):
    paths = [tmp_path / f"run.{suffix}" for suffix in SUFFIXES]
    broken, other = Breaking(times=10**6, name="broken"), Counter(500, 10)
    run = acquire(broken, other, to=paths, retries=2, retry_delay=0.01)
    until(lambda: run.failures)
    assert run.state == "running"
    assert "cable was pulled" in run.status
    run.mark("still there")
    assert other.done.wait(30)
    with pytest.raises(DeviceFailed, match="cable was pulled") as caught:
        run.stop()
    assert run.failures == {"broken": caught.value}
    assert (run.state, broken.starts) == ("failed", 3)
    for path in paths:
        with open_store(path, "r") as store:
            assert check_account(store)[0] == list(range(500))
            assert check_account(store, "broken")[0] == list(range(90))
            meta = store.stat("broken").meta
            assert meta["exit_status"] == "fail"
            assert "cable was pulled" in meta["failure"]
            assert "failure" not in store.stat("counter").meta
            events = marks_of(store)
        assert [event for event, _ in events] == [
            "failure",
            "recovery",
            "failure",
            "recovery",
            "failure",
            "mark",
        ]
        assert "given up, the others go on" in events[4][1]


@pytest.mark.parametrize("alone", [True, False])
def test_a_device_that_is_given_up_ends_the_run_if_it_is_alone_or_that_was_asked_for(alone):
    others = [] if alone else [Counter(10**9, 10)]
    run = acquire(
        Breaking(times=10**6, name="b"), *others, retries=1, retry_delay=0, stop_on_failure=not alone
    )
    with pytest.raises(DeviceFailed, match="cable was pulled"):
        run.wait(30)
    assert run.state == "failed"


def test_stopping_while_a_device_is_away_is_no_failure():
    device = Breaking(times=10**6)
    store = open_store("memory://")
    run = acquire(device, to=store, retry_delay=60)
    until(lambda: run.stats()["counter"]["outages"] == 1)
    began = time.monotonic()
    run.stop()
    assert time.monotonic() - began < 10
    assert run.state == "stopped"
    [outage] = store.stat("counter").meta["outages"]
    assert outage["seconds"] is None
    assert check_account(store)[0] == list(range(30))


def test_the_last_devices_to_fail_together_end_the_run():
    devices = [Breaking(times=10**6, name=name) for name in "abc"]
    run = acquire(*devices, retries=0)
    with pytest.raises(DeviceFailed):
        run.wait(30)
    assert run.state == "failed"


# -- clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drift_ppm", "offset"), [(50.0, 10**15), (-200.0, -(10**9)), (0.0, 0)])
def test_offset_and_drift_of_a_clock_under_jitter(drift_ppm, offset):
    """Blocks arrive 0 to 20 ms late; the estimate is far better than that."""
    random, fit = np.random.default_rng(0), ClockFit("device_time")
    start = 1_700_000_000 * 10**9
    for step in range(6000):  # ten minutes
        device = step * 10**8
        true = start + round(device * (1 + drift_ppm * 1e-6))
        fit.add(device + offset, true + round(random.exponential(3e6)) % 20_000_000)
    found = fit.result()
    assert found["drift_ppm"] == pytest.approx(drift_ppm, abs=2)
    assert abs(found["reference"] + found["offset"] - start) < 2_000_000
    assert found["jitter"] < 0.002
    assert found["points"] >= 600
    json.dumps(found)


def test_too_little_says_no_drift():
    fit = ClockFit("sequence")
    assert fit.result() is None
    fit.add(0, 10**9)
    assert fit.result() == {
        "source": "sequence",
        "reference": 0,
        "offset": 10**9,
        "drift_ppm": None,
        "jitter": None,
        "points": 1,
    }


class OwnClock(Counter):
    """A device whose own clock began at a million and runs fast by a tenth."""

    def describe(self):
        return super().describe()._replace(meta={"rate": 100.0, "units": {}, "device_time": True})

    def read(self, timeout):
        threading.Event().wait(0.02)
        block = super().read(timeout)
        if block is None:
            return None
        device = 10**6 + np.full(len(block.time), round((time.time_ns() - self.began) * 1.1))
        return block._replace(device_time=device)

    def start(self):
        super().start()
        self.began = time.time_ns()


def test_each_stream_says_how_its_clock_runs(tmp_path):
    daq, own = SimulatedDAQ(rate=1000), OwnClock(10**6, 1)
    run = acquire(daq, own, to=tmp_path / "run.h5", duration=4)
    assert run.wait(60)
    with open_store(tmp_path / "run.h5", "r") as store:
        clock = store.stat("counter").meta["clock"]
        assert clock["source"] == "device_time"
        assert clock["drift_ppm"] == pytest.approx(-90909, rel=0.1)
        assert abs(clock["reference"] + clock["offset"] - own.began) < 0.3e9
        clock = store.stat("daq").meta["clock"]
        assert clock["source"] == "sequence"
        assert abs(clock["drift_ppm"]) < 20_000  # it keeps to the host's clock
    assert run.stats()["daq"]["clock"] == clock


# -- what a run says of itself -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_says_where_a_run_comes_from_and_how_it_ended(tmp_path, suffix):
    counter = Counter(100)
    with acquire(counter, to=tmp_path / f"run.{suffix}", metadata={"sample": "Cu"}, silence="3 s") as run:
        assert counter.done.wait(30)
        run.mark("here")
    with open_store(tmp_path / f"run.{suffix}", "r") as store:
        meta = store.stat("counter").meta
        assert {"uid", "time", "host", "platform", "versions", "program", "git"} <= meta["run"].keys()
        assert meta["run"]["metadata"] == {"sample": "Cu"}
        assert meta["run"]["parameters"]["silence"] == 3.0
        assert meta["run"]["parameters"]["overflow"] == {"policy": "block", "timeout": 10.0}
        assert meta["run"]["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert meta["exit_status"] == "success"
        assert {"produced", "written", "lost", "gaps", "device_gaps", "skipped", "outages"} <= meta.keys()
        assert marks_of(store) == [("mark", "here")]


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_state_of_the_source_code(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-b", "trunk")
    assert git_state(tmp_path) == {"commit": None, "branch": "trunk", "changed": 0}
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "one")
    found = git_state(tmp_path)
    assert (len(found["commit"]), found["branch"], found["changed"]) == (40, "trunk", 0)
    (tmp_path / "a.py").write_text("a = 2\n")
    (tmp_path / "notes.txt").write_text("not followed")
    assert git_state(tmp_path) == {**found, "changed": 1}
    git(tmp_path, "checkout", "--detach")
    assert git_state(tmp_path)["branch"] is None


def test_without_git_nothing_is_said_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None
    monkeypatch.undo()
    assert git_state(tmp_path / "gone") is None


# -- documents -----------------------------------------------------------------------------------------


class Mixed(Counter):
    """An image, a number, text and a flag."""

    def describe(self):
        arrays = {
            "image": ArrayInfo("<u2", (0, 2, 3), ("time", "y", "x"), 0, None),
            "value": ArrayInfo("<f8", (0,), ("time",), 0, None),
            "flag": ArrayInfo("|b1", (0,), ("time",), 0, None),
        }
        return Stat("stream", arrays, {"rate": None, "units": {"value": "V"}})

    def read(self, timeout):
        block = super().read(timeout)
        if block is None:
            return None
        number = block.data["n"][:, 0]
        image = np.broadcast_to(number[:, None, None], (len(number), 2, 3)).astype("u2")
        data = {"image": image, "value": number / 2, "flag": number % 2 == 0}
        return Block(block.first, number * 10**9, data)


def test_documents_are_those_of_the_event_model():
    from event_model import DocumentNames, schema_validators, unpack_event_page

    documents = []
    device, other = Mixed(25, 10, "mixed"), Breaking(name="other", after=20)
    with acquire(
        device,
        other,
        to=lambda name, doc: documents.append((name, doc)),
        metadata={"who": "me"},
        retry_delay=0,
    ) as run:
        run.mark("one")
        assert device.done.wait(30)
        assert other.done.wait(30)
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
        json.dumps(doc)
    names = [name for name, _ in documents]
    assert names[:4] == ["start", "descriptor", "descriptor", "descriptor"]
    assert names[-1] == "stop"
    start, stop = documents[0][1], documents[-1][1]
    described = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    assert sorted(described.values()) == ["marks", "mixed", "other"]
    events = {name: [] for name in described.values()}
    for name, doc in documents:
        if name == "event_page":
            events[described[doc["descriptor"]]] += list(unpack_event_page(doc))
    assert stop["num_events"] == {name: len(each) for name, each in events.items()}
    assert {doc["run_start"] for name, doc in documents if name in {"descriptor", "stop"}} == {start["uid"]}
    for each in events.values():
        assert [event["seq_num"] for event in each] == list(range(1, len(each) + 1))
        for event in each:
            schema_validators[DocumentNames.event].validate(event)
    assert [event["data"]["value"] for event in events["mixed"]] == [n / 2 for n in range(25)]
    assert [event["time"] for event in events["mixed"]] == [float(n) for n in range(25)]
    assert events["mixed"][3]["data"]["image"] == [[3] * 3] * 2
    assert "one" in [event["data"]["text"] for event in events["marks"]]


def test_documents_of_a_run_that_failed_are_those_of_the_event_model():
    from event_model import DocumentNames, schema_validators

    documents = []
    run = acquire(Breaking(times=9), to=lambda name, doc: documents.append((name, doc)), retries=0)
    with pytest.raises(DeviceFailed):
        run.wait(30)
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    assert documents[-1][1]["exit_status"] == "fail"
    assert "cable was pulled" in documents[-1][1]["reason"]
