"""Recordings as devices."""

from __future__ import annotations

import time

import numpy as np
import pytest

from datastore_lab import acquire, open_store
from datastore_lab.acquire import Faults, FileReplay, SimulatedDAQ
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import ArrayInfo, Record, Stat
from datastore_lab.testing.devices import DeviceConformance


@pytest.fixture(scope="module", params=["h5", "zarr", "arrow"])
def recording(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / f"run.{request.param}"
    acquire(SimulatedDAQ(2, rate=1000, faults=Faults(drop=[50, 51, 200])), to=path, duration=0.6).wait()
    return path


STORE = open_store("memory://")


class TestFileReplay(DeviceConformance):
    @staticmethod
    def make():
        if "daq" not in STORE:
            acquire(SimulatedDAQ(rate=500), to=STORE, duration=3.0).wait()
        return FileReplay(STORE, "daq")


class TestPlainArrayReplay(DeviceConformance):
    @staticmethod
    def make():
        if "plain" not in STORE:
            STORE["plain"] = np.arange(10_000.0).reshape(-1, 2)
        return FileReplay(STORE, "plain", rate=200)


def play(device, limit=20.0):
    blocks, ends = [], time.monotonic() + limit
    device.start()
    while not device.finished:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    device.stop()
    return blocks


def joined(blocks, name):
    return np.concatenate([block.data[name] for block in blocks])


def test_everything_comes_again_with_its_gaps_and_its_times(recording):
    replay = FileReplay(recording, "daq", speed=5)
    began = time.monotonic()
    blocks = play(replay)
    with open_store(recording, "r") as store:
        stored = store.record("daq").arrays
    taken = time.monotonic() - began
    span = int(stored["time"].view("i8")[-1] - stored["time"].view("i8")[0]) / 1e9
    assert span / 5 < taken < span / 5 + 2.0
    assert np.array_equal(joined(blocks, "adc"), stored["adc"])
    numbers = [block.first + i for block in blocks for i in range(len(block.time))]
    assert numbers == stored["sequence"].tolist()
    assert {50, 51, 200}.isdisjoint(numbers)
    own = np.concatenate([block.device_time for block in blocks])
    assert np.array_equal(own, stored["time"].view("i8"))
    host = np.concatenate([block.time for block in blocks])
    assert (np.diff(host) >= 0).all()
    assert (host[-1] - host[0]) / 1e9 == pytest.approx(span / 5, rel=1e-3)
    spec = replay.describe()
    assert spec.meta["rate"] == 5000.0
    assert spec.meta["units"] == {"adc": "V"}


def test_another_rate_plays_evenly(recording):
    blocks = play(FileReplay(recording, "daq", rate="10 kHz", name="again"))
    host = np.concatenate([block.time for block in blocks])
    assert np.diff(host).max() == pytest.approx(1e5, abs=2)


def test_a_replay_of_a_replay_is_the_recording(recording, tmp_path):
    copy = tmp_path / "copy.h5"
    replay = FileReplay(recording, "daq", speed=2)
    run = acquire(replay, to=copy, silence=0.3)
    assert run.wait(timeout=20)  # it ends with the recording, and that is no silence
    assert run.state == "stopped"
    with open_store(recording, "r") as one, open_store(copy, "r") as two:
        first, second = one.record("daq").arrays, two.record("daq").arrays
    assert np.array_equal(first["adc"], second["adc"])
    assert np.array_equal(first["sequence"], second["sequence"])
    assert np.array_equal(first["time"].view("i8"), second["device_time"])


def test_it_begins_anew_at_each_start(recording):
    replay = FileReplay(recording, "daq", speed=100)
    first, second = play(replay), play(replay)
    assert np.array_equal(joined(first, "adc"), joined(second, "adc"))


def test_more_than_one_piece_is_read_piece_by_piece():
    times = (np.arange(150_000) * 10_000).astype("M8[ns]")
    store = open_store("memory://")
    info = {
        "time": ArrayInfo("<M8[ns]", (0,), ("time",), 0, None),
        "x": ArrayInfo("<i4", (0,), ("time",), 0, None),
    }
    appender = store.append("long", Stat("stream", info, {"rate": None, "units": {}}))
    appender.extend({"time": times, "x": np.arange(150_000, dtype="i4")})
    appender.close({})
    blocks = play(FileReplay(store, "long", speed=10))
    assert np.array_equal(joined(blocks, "x"), np.arange(150_000))
    assert np.array_equal(np.concatenate([block.device_time for block in blocks]), times.view("i8"))


def one(**arrays):
    store = open_store("memory://")
    store.write("data", Record("stream", arrays, {}, {}))
    return store


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: FileReplay("no/such/file.h5", "daq"), "file.h5"),
        (lambda: FileReplay(one(x=np.arange(3)), "dat"), "dat"),
        (lambda: FileReplay(one(x=np.arange(3)), "data"), "it has no times; give a rate"),
        (lambda: FileReplay(one(x=np.arange(3), y=np.arange(4)), "data", rate=1), "lengths"),
        (lambda: FileReplay(one(x=np.float64(3)), "data", rate=1), "lengths"),
        (lambda: FileReplay(one(x=np.arange(0)), "data", rate=1), "lengths"),
        (lambda: FileReplay(one(time=np.arange(3.0), x=np.arange(3)), "data"), "its times are <f8"),
    ],
)
def test_what_can_not_be_played_says_why(make, why):
    device = make()
    with pytest.raises(DeviceFailed, match=why) as caught:
        device.start()
    assert caught.value.key == device.name
    device.stop()


@pytest.mark.parametrize("options", [{"speed": 0}, {"speed": -1}, {"speed": 2, "rate": 10}, {"rate": 0}])
def test_a_rate_or_a_speed_is_positive(options):
    with pytest.raises(ValueError, match="rate"):
        FileReplay(STORE, "daq", **options)
