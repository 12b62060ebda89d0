"""What ends a run or marks it by itself, what is saved of the past, and runs as TOML describes them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from runs import Counter, Gated, Slow, check_account, expand, until

from datastore_lab import acquire, open_store
from datastore_lab.acquire import Alarm, RingReader, read_config
from datastore_lab.errors import AlreadyExists, RunAborted, StreamError
from datastore_lab.records import ArrayInfo, Block, Stat

# -- until ---------------------------------------------------------------------------------------------


def test_a_run_ends_with_exactly_as_many_samples_as_asked_for(tmp_path):
    path = tmp_path / "run.h5"
    run = acquire(Counter(10**6, 7), Counter(10**6, 3, "other"), to=path, until={"counter": 100, "other": 50})
    assert run.wait(30)
    assert run.state == "stopped"
    with open_store(path, "r") as store:
        assert check_account(store)[0] == list(range(100))
        assert check_account(store, "other")[0] == list(range(50))
        assert store.stat("counter").meta["run"]["parameters"]["until"] == {"counter": 100, "other": 50}


def test_a_run_ends_when_a_function_says_so():
    asked = []

    def enough(run):
        asked.append(run)
        return run.stats()["counter"]["produced"] >= 100

    run = acquire(Counter(10**6, 1), until=enough)
    assert run.wait(30)
    assert asked[0] is run
    run = acquire(Counter(), until=lambda run: 1 / 0)
    with pytest.raises(RunAborted, match="ZeroDivisionError"):
        run.wait(30)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [({"zzz": 1}, "'zzz', and there are 'counter'"), ({"counter": 0}, "at least 1")],
)
def test_a_goal_that_cannot_be_reached_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        acquire(Counter(), until=wrong)


# -- alarms --------------------------------------------------------------------------------------------


class Levels(Gated):
    """Gives the levels that it is told, one sample at a time, a second apart."""

    def __init__(self, levels):
        super().__init__(len(levels), 1)
        self.levels = levels

    def describe(self):
        arrays = {"level": ArrayInfo("<f8", (0, 2), ("time", "channel"), 0, None)}
        return Stat("stream", arrays, {"rate": None, "units": {"level": "V"}})

    def read(self, timeout):
        block = super().read(timeout)
        if block is None:
            return None
        rows = np.array([[0.0, self.levels[block.first]]])
        return Block(block.first, np.array([block.first * 10**9]), {"level": rows})


def marks_of(store):
    arrays = store.record("marks").arrays
    return list(zip(arrays["event"].tolist(), arrays["text"].tolist(), strict=True))


def test_an_alarm_marks_each_time_the_level_leaves_its_range(tmp_path):
    levels = [0, 3, 4, 1, float("nan"), 3.5, -9, 0]
    device = Levels(levels)
    alarm = Alarm("counter", "level", above=2, below=-5)
    with acquire(device, to=tmp_path / "run.h5", alarms=[alarm]):
        device.allowed.release(len(levels) + 1)
        assert device.done.wait(30)
    with open_store(tmp_path / "run.h5", "r") as store:
        assert marks_of(store) == [
            ("alarm", "counter.level is 3, above 2, at sample 1"),
            ("alarm", "counter.level is 3.5, above 2, at sample 5"),
        ]
        assert store.stat("marks").meta["run"]["parameters"]["alarms"][0]["above"] == 2
    assert Alarm("a", "b", below=1.5).beyond(Block(0, np.arange(3), {"b": np.array([2, 1, 3])})).tolist() == [
        False,
        True,
        False,
    ]


def test_noise_about_a_limit_makes_no_flood_of_marks():
    store = open_store("memory://")
    counter = Counter(10_000, 100, width=1)
    counter.describe = lambda: Stat(
        "stream", {"n": ArrayInfo("<i8", (0, 1), ("time", "channel"), 0, None)}, {"rate": None}
    )
    plain = counter.read

    def read(timeout):
        block = plain(timeout)
        return block and block._replace(data={"n": block.data["n"] % 2})

    counter.read = read
    with acquire(counter, to=store, alarms=[Alarm("counter", "n", above=0.5)]):  # samples are 1 us apart
        assert counter.done.wait(30)
    assert marks_of(store) == [("alarm", "counter.n is 1, above 0.5, at sample 1")]


def test_an_alarm_stops_the_run(tmp_path):
    device = Levels([0, 0, 7, 0])
    alarm = Alarm("counter", "level", above=2, action="stop")
    run = acquire(device, to=tmp_path / "run.h5", alarms=[alarm])
    device.allowed.release(3)
    assert run.wait(30)
    assert run.reason == "alarm: counter.level is 7, above 2, at sample 2"
    assert run.reason in run.status
    with open_store(tmp_path / "run.h5", "r") as store:
        meta = store.stat("counter").meta
        assert (meta["exit_status"], meta["reason"]) == ("success", run.reason)
        assert marks_of(store)[-1][0] == "alarm"


def test_an_alarm_pauses_the_run():
    device = Levels([0, 7, 0, 0])
    alarm = Alarm("counter", "level", above=2, action="pause")
    run = acquire(device, to=open_store("memory://"), alarms=[alarm])
    device.allowed.release(2)
    until(lambda: run.state == "paused")
    device.allowed.release(1)
    until(lambda: run.stats()["counter"]["skipped"] == 1)
    run.resume()
    device.allowed.release(2)
    assert device.done.wait(10)
    run.stop()
    assert [event for event, _ in marks_of(run.store)] == ["alarm", "pause", "resume"]


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: Alarm("daq", "adc"), ValueError, "needs a limit"),
        (lambda: Alarm("daq", "adc", above=1, action="shout"), ValueError, "'mark', 'pause', 'stop'"),
        (
            lambda: acquire(Counter(), alarms=[Alarm("daq", "n", above=1)]),
            ValueError,
            r"there are counter\.n",
        ),
        (lambda: acquire(Counter(), alarms=[Alarm("counter", "m", above=1)]), ValueError, r"counter\.m"),
        (lambda: acquire(Counter(), alarms=["daq > 1"]), TypeError, "class Alarm"),
    ],
)
def test_an_alarm_that_cannot_ring_is_refused(make, error, why):
    with pytest.raises(error, match=why):
        make()


# -- what was before -----------------------------------------------------------------------------------


class Live(Counter):
    """Samples whose times are those of the clock, 100 per second."""

    def read(self, timeout):
        block = super().read(timeout)
        if block is None:
            return None
        ago = (self.total - 1 - np.arange(block.first, block.first + len(block.time))) * 10_000_000
        return block._replace(time=self.now - ago)

    def start(self):
        super().start()
        self.now = time.time_ns()


@pytest.mark.parametrize("suffix", ["h5", "zarr", "arrow", "parquet", "csv"])
def test_the_last_seconds_are_saved_whatever_is_recorded(tmp_path, suffix):
    device, other = Live(1000, 10), Live(1000, 10, "other")
    path = tmp_path / f"last.{suffix}"
    with acquire(device, other, ring={"samples": 600}, metadata={"who": "me"}) as run:
        assert device.done.wait(30)
        assert other.done.wait(30)
        run.mark("it happened")
        assert run.save_last("4 s", to=path) == path
        with pytest.raises(AlreadyExists):
            run.save_last("4 s", to=path)
        everything = open_store("memory://")
        run.save_last(1e6, to=everything.group("all"))
        with pytest.raises(StreamError, match="nothing came"):
            run.save_last(1e-9, to=tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()
    with open_store(path, "r") as store:
        for name in ("counter", "other"):
            record = store.record(name)
            numbers = record.arrays["sequence"].tolist()
            assert numbers[-1] == 999
            assert numbers == list(range(numbers[0], 1000))
            assert 300 <= len(numbers) <= 401
            assert record.arrays["n"][:, 0].tolist() == numbers
            assert record.meta["written"] == len(numbers)
            assert record.meta["exit_status"] == "success"
            assert record.meta["saved_seconds"] == 4.0
            assert record.meta["run"]["metadata"] == {"who": "me"}
        assert marks_of(store) == [("mark", "it happened")]
    assert len(everything.record("all/counter").arrays["sequence"]) == 600


def test_what_is_saved_says_what_is_missing_in_it():
    device = Live(1000, 10)
    plain = device.read
    device.read = lambda timeout: time.sleep(0.005) or plain(timeout)
    with acquire(device, ring={"samples": 1000}) as run:
        stream = run._streams["counter"]
        until(lambda: stream.ring.produced > 300)
        run.pause()
        until(lambda: stream.ring.skipped and stream.ring.produced > 400)
        run.resume()
        assert device.done.wait(30)
        store = run.save_last(100, to=open_store("memory://"))
    meta = store.stat("counter").meta
    assert expand(meta["gaps"]) == expand(stream.ring.skipped)
    assert meta["lost"] + meta["written"] == 1000


# -- what is kept aside, and rings that others follow --------------------------------------------------


@pytest.mark.parametrize("overflow", ["spill", {"policy": "spill", "limit": "1 GB"}])
def test_a_slow_writer_has_everything_from_disk(tmp_path, overflow):
    if isinstance(overflow, dict):
        overflow = {**overflow, "folder": tmp_path, "limit": 10**9}
    slow = Slow(0.01)
    counter = Counter(3_000, 50)
    with acquire(counter, to=slow, ring={"samples": 200}, overflow=overflow):
        assert counter.done.wait(30)
        slow.gate.set()
    numbers = [n for block in slow.blocks for n in range(block.first, block.first + len(block.time))]
    assert numbers == list(range(3_000))
    assert list(tmp_path.iterdir()) == []


def test_a_full_spill_disk_ends_the_run_with_what_is_left_written(tmp_path):
    slow = Slow(0.02)
    counter = Counter(10**6, 50)
    overflow = {"policy": "spill", "folder": tmp_path, "limit": 30_000}
    run = acquire(counter, to=slow, ring={"samples": 200}, overflow=overflow)
    with pytest.raises(StreamError, match=r"could not be kept .* are lost: it may have 30000 bytes"):
        run.wait(60)
    slow.gate.set()
    name, stop = slow.documents[-1]
    ledger = stop["ledger"]["counter"]
    assert (name, stop["exit_status"]) == ("stop", "fail")
    assert "could not be kept" in stop["reason"]
    numbers = [n for block in slow.blocks for n in range(block.first, block.first + len(block.time))]
    assert ledger["lost"] > 0
    assert sorted(numbers + expand(ledger["gaps"])) == list(range(ledger["produced"]))


def test_another_process_may_follow_a_run(tmp_path):
    devices = Counter(300, 10), Counter(200, 10, "other")
    with acquire(*devices, ring={"samples": 500, "path": tmp_path / "ring"}):
        for device in devices:
            assert device.done.wait(30)
        for device in devices:
            with RingReader(tmp_path / f"ring.{device.name}") as reader:
                assert reader.latest(1000).data["n"][:, 0].tolist() == list(range(device.total))


@pytest.mark.parametrize(
    ("overflow", "why"),
    [
        ("forget", "'drop_oldest', 'block', 'grow', 'spill'"),
        ({"policy": "grow", "size": 1}, "no 'size'"),
        ({}, "None"),
    ],
)
def test_an_overflow_that_is_none_is_refused(overflow, why):
    with pytest.raises(ValueError, match=why):
        acquire(Counter(), overflow=overflow)


# -- TOML ----------------------------------------------------------------------------------------------

GUIDE = """
[storage]
# Output file
output_path = "{path}"
compression = "none"     # 9 for maximum compression
flush_interval_ms = 250

[ring_buffer]
size_mb = 5
overflow = "grow"
"""


def test_a_run_as_toml_describes_it(tmp_path):
    path, config = tmp_path / "experiment_data.h5", tmp_path / "run.toml"
    config.write_text(GUIDE.format(path=path).replace('compression = "none"     #', "#"))
    counter = Counter(1000)
    with acquire(counter, config=config) as run:
        assert counter.done.wait(30)
        assert run._streams["counter"].ring.nbytes == pytest.approx(5e6, rel=1e-4)
    with open_store(path, "r") as store:
        assert check_account(store)[0] == list(range(1000))
        parameters = store.stat("counter").meta["run"]["parameters"]
    assert parameters["ring"] == {"nbytes": 5_000_000}
    assert parameters["flush_interval"] == 0.25
    assert parameters["overflow"] == {"policy": "grow"}


def test_each_writer_is_told_what_it_knows(tmp_path):
    import h5py

    storage = {
        "format": "both",
        "output_path": str(tmp_path / "run"),
        "compression": "gzip",
        "chunk_size": 500,
    }
    counter = Counter(1000)
    with acquire(counter, config={"storage": {**storage, "compression_level": 2}}):
        assert counter.done.wait(30)
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["counter/n"].chunks == (500, 4)
        assert (file["counter/n"].compression, file["counter/n"].compression_opts) == ("gzip", 2)
    for suffix in ("h5", "arrow"):
        with open_store(tmp_path / f"run.{suffix}", "r") as store:
            assert check_account(store)[0] == list(range(1000))


def test_a_compression_that_nobody_can_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"compression='gzip' is not known to what writes .*run\.csv"):
        acquire(
            Counter(), config={"storage": {"output_path": str(tmp_path / "run.csv"), "compression": "gzip"}}
        )
    assert list(tmp_path.iterdir()) == []
    config = {"storage": {"output_path": str(tmp_path / "run.csv"), "compression": "none"}}
    acquire(Counter(), config=config).stop()


def test_what_is_given_to_acquire_takes_precedence(tmp_path):
    said = {
        "storage": {"output_path": str(tmp_path / "no.h5")},
        "ring_buffer": {"size_mb": 5, "overflow": "grow"},
    }
    store = open_store("memory://")
    run = acquire(Counter(), to=store, ring={"samples": 30}, overflow="drop_oldest", config=said)
    run.stop()
    assert run._streams["counter"].ring.samples == 30
    assert run._plan.overflow == {"policy": "drop_oldest"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "files"),
    [
        ({"output_path": "a/run.zarr"}, ["a/run.zarr"]),
        ({"output_path": "a/run", "format": "HDF5"}, ["a/run.h5"]),
        ({"output_path": "a/run.v2", "format": "csv"}, ["a/run.v2.csv"]),
        ({"output_path": "run.hdf5", "format": "hdf5"}, ["run.hdf5"]),
        ({"output_path": "run.h5", "format": "both"}, ["run.h5", "run.arrow"]),
        ({"output_path": "run", "format": "parquet"}, ["run.parquet"]),
        ({}, []),
    ],
)
def test_files_by_format_and_path(storage, files):
    assert read_config({"storage": storage}).to == files


def test_the_keys_of_the_guide_in_bytes_and_seconds():
    found = read_config(
        {
            "storage": {
                "format": "hdf5",
                "output_path": "experiment_data.h5",
                "compression": "gzip",
                "compression_level": 5,
                "chunk_size": 1024,
                "flush_interval_ms": 1000,
            },
            "ring_buffer": {"size_mb": 0.5},
        }
    )
    assert found.to == ["experiment_data.h5"]
    assert found.ring == {"nbytes": 500_000}
    assert found.flush_interval == 1.0
    assert found.options == {"compression": "gzip", "compression_level": 5, "chunk_size": 1024}


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"storag": {}}, "the file has no key 'storag'; did you mean 'storage'"),
        ({"storage": {"ouput_path": "x"}}, "did you mean 'output_path'"),
        ({"storage": {"flush_intervall_ms": 1}}, "did you mean 'flush_interval_ms'"),
        ({"ring_buffer": {"sizemb": 1}}, "did you mean 'size_mb'"),
        ({"ring_buffer": {"zzzzzz": 1}}, "there are size_mb, size"),
        ({"ring_buffer": {"size_mb": 1, "nbytes": 5}}, "'nbytes' twice"),
        ({"ring_buffer": {"size_mb": -1}}, "'size_mb' in .* no number above 0"),
        ({"ring_buffer": {"overflow": "discard"}}, "'overflow' in .*'drop_oldest'"),
        ({"storage": {"flush_interval": "1 s", "flush_interval_ms": 5}}, "'flush_interval' twice"),
        ({"storage": {"compression": "rar"}}, "'rar' is none of 'none', 'gzip'"),
        ({"storage": {"compression_level": "high"}}, "no whole number"),
        ({"storage": {"chunk_size": 1.5}}, "no whole number above 0"),
        ({"storage": {"format": "hdf5"}}, "no output_path"),
        ({"storage": {"format": "csv", "output_path": "run.h5"}}, "of another"),
        ({"storage": {"output_path": 5}}, "is no text"),
        ({"storage": 5}, "must be a table"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(table, why):
    with pytest.raises(ValueError, match=why):
        read_config(table)


def test_a_file_that_is_no_toml(tmp_path):
    (tmp_path / "run.toml").write_text("[storage\n")
    with pytest.raises(ValueError, match=r"run\.toml' is not valid TOML"):
        read_config(tmp_path / "run.toml")
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none.toml")


def test_what_makes_a_device_is_taken_as_one():
    store = open_store("memory://")
    with acquire("simulated-daq", to=store, until={"daq": 10}) as run:
        assert run.wait(30)
    assert check_account(store, "daq")[0] == list(range(10))
    with pytest.raises(TypeError, match="int is no device"):
        acquire(5)
