"""Devices made of functions, generators and names, and the registry that finds other people's."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from datastore_lab.acquire import SimulatedDAQ, as_device, describe_stream, devices, from_function
from datastore_lab.acquire.devices import Pace
from datastore_lab.errors import DeviceFailed, MissingExtra, NotFound
from datastore_lab.records import Block
from datastore_lab.registry import DEVICES, Registry
from datastore_lab.testing.devices import DeviceConformance, check_device


def trace():
    return {"trace": np.arange(5.0), "state": "on", "count": 3}


def counting():
    yield from itertools.count()


class TestFunction(DeviceConformance):
    @staticmethod
    def make():
        return from_function(lambda: 21.5, rate=100, name="thermometer", units="°C")


class TestFunctionOfSeveral(DeviceConformance):
    @staticmethod
    def make():
        return from_function(trace, rate=200, units={"trace": "V"})


class TestGenerator(DeviceConformance):
    @staticmethod
    def make():
        return from_function(counting, rate=100)


class TestIterator(DeviceConformance):
    @staticmethod
    def make():
        return from_function(paced(counting()), name="iterator")


# fmt: off
class Counter:
    name = "counter"
    def __init__(self): self.pace, self.next = Pace(100), 0
    def describe(self): return describe_stream({"count": "int64"}, rate=100)
    def start(self): self.next = 0; self.pace.start()
    def stop(self): self.pace.stop()
    def read(self, timeout):
        if not self.pace.wait(self.next, timeout): return None
        self.next += 1
        return Block(self.next - 1, self.pace.times(self.next - 1, 1), {"count": np.array([self.next - 1])})
# fmt: on


class TestTenLines(DeviceConformance):
    """A driver with the four methods, and nothing else."""

    @staticmethod
    def make():
        return Counter()

    def test_it_is_short(self):
        assert len(inspect.getsource(Counter).splitlines()) <= 10


def paced(values, seconds=0.01):
    for value in values:
        time.sleep(seconds)
        yield value


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def test_each_kind_of_value_is_kept():
    device = from_function(trace, rate=500)
    device.start()
    block = collect(device, 1)[0]
    device.stop()
    assert block.data["trace"].shape[1:] == (5,)
    assert block.data["state"].dtype == np.dtypes.StringDType()
    assert block.data["state"][0] == "on"
    assert block.data["count"].dtype == np.int64


def test_a_slow_function_loses_samples_and_says_so():
    device = from_function(lambda: time.sleep(0.05) or 1.0, rate=100)
    device.start()
    blocks = collect(device, 5)
    device.stop()
    numbers = [block.first + i for block in blocks for i in range(len(block.time))]
    assert (np.diff(numbers) >= 4).all()


def test_a_function_that_hangs_holds_up_neither_reading_nor_stopping():
    release = threading.Event()
    calls = []

    def hang():
        calls.append(1)
        release.wait(30)
        return 1.0

    device = from_function(hang, rate=10, name="hanging", fields={"value": "float64"})
    device.start()
    began = time.monotonic()
    assert device.read(0.1) is None
    assert time.monotonic() - began < 0.5
    device.stop()
    assert time.monotonic() - began < 2.0
    with pytest.raises(DeviceFailed, match="still hangs"):
        device.start()
    release.set()
    time.sleep(0.1)
    device.start()
    device.stop()


def test_an_error_in_a_function_comes_after_what_it_gave_before():
    values = iter([1.0, 2.0])

    def read():
        try:
            return next(values)
        except StopIteration:
            raise OSError("the probe fell off") from None

    device = from_function(read, rate=1000, name="probe", fields={"value": "float64"})
    device.start()
    time.sleep(0.1)
    assert [value for block in collect(device, 2) for value in block.data["value"]] == [1.0, 2.0]
    with pytest.raises(DeviceFailed, match="'probe' failed: OSError: the probe fell off") as caught:
        device.read(1.0)
    assert isinstance(caught.value.__cause__, OSError)
    device.stop()
    assert device.read(0.0) is None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1.0, "two"], "float"),
        ([1, 1.5], "int64"),
        ([1.0, [1.0, 2.0]], "shape"),
        ([{"a": 1}, {"b": 1}], "described"),
        ([np.zeros(3), np.zeros(4)], "shape"),
        ([1.0, None], "float"),
    ],
)
def test_what_was_not_described_is_refused(values, why):
    device = from_function(iter(values), name="changing")
    device.start()
    assert len(collect(device, 1)) == 1
    with pytest.raises(DeviceFailed, match="'changing' gave"):
        collect(device, 1)
    device.stop()


def test_a_generator_begins_anew_and_an_iterator_goes_on():
    for source, second in ((counting, 0), (paced(counting()), None)):
        device = from_function(source, name="counting")
        seen = []
        for _ in range(2):
            device.start()
            seen.append([value for block in collect(device, 3) for value in block.data["value"]])
            device.stop()
        assert seen[0][:3] == [0, 1, 2]
        assert seen[1][0] == second if second is not None else seen[1][0] > seen[0][-1]


def test_an_iterator_loses_nothing_between_two_starts():
    device = from_function(paced(counting()), name="counting")
    seen = []
    for _ in range(4):
        device.start()
        seen += [value for block in collect(device, 2) for value in block.data["value"]]
        time.sleep(0.015)
        while (block := device.read(0.0)) is not None:
            seen += block.data["value"].tolist()
        device._feed.closed.set()  # nothing can arrive between the last look and the stop
        device.stop()
    assert seen == list(range(len(seen)))


def test_a_generator_is_closed_in_its_own_thread():
    closed = []

    def source():
        try:
            while True:
                time.sleep(0.005)
                yield 1.0
        finally:
            closed.append(threading.current_thread().name)

    device = from_function(source)
    device.start()
    collect(device, 2)
    device.stop()
    assert closed == ["device source"]


def test_a_generator_at_its_end_is_finished():
    for rate in (None, 500):
        device = from_function(three, rate)
        device.start()
        assert sum(len(block.time) for block in collect(device, 3)) == 3
        assert device.read(0.5) is None
        assert device.finished
        device.stop()


def three():
    yield from (1.0, 2.0, 3.0)


def test_what_nobody_reads_is_bounded_and_counted():
    device = from_function(itertools.repeat(np.zeros(250_000)), rate=2000, name="big")
    device.start()
    time.sleep(0.5)
    block = device.read(1.0)
    device.stop()
    assert block.first > 10  # the oldest of some hundred were lost: at most 64 MB are kept
    assert len(block.time) <= 4


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: from_function(print), ValueError, "needs a rate"),
        (lambda: from_function(print, rate=0), ValueError, "positive"),
        (lambda: from_function(print, rate="10 m"), ValueError, "10 m"),
        (lambda: from_function(5, rate=1), TypeError, "int"),
        (lambda: from_function(print, rate=1, fields={"a": "f8"}, units={"b": "V"}), ValueError, "'b'"),
        (lambda: as_device(5), TypeError, "int is no device"),
        (lambda: as_device(SimulatedDAQ), TypeError, r"SimulatedDAQ\(\.\.\.\)"),
        (lambda: as_device(SimulatedDAQ(), rate=5), ValueError, "already"),
        (lambda: as_device("no-such"), NotFound, "among the devices"),
    ],
)
def test_what_can_not_be_a_device_is_refused(make, error, why):
    with pytest.raises(error, match=why):
        make()


def test_a_function_that_yields_nothing_can_not_be_described():
    with pytest.raises(DeviceFailed, match="'nothing' can't describe itself: ValueError: it yields nothing"):
        from_function(iter([]), name="nothing").describe()


def test_as_device_finds_out_what_it_was_given():
    daq = SimulatedDAQ()
    assert as_device(daq) is daq
    assert as_device("simulated-laser").name == "laser"
    assert as_device(counting).name == "counting"
    assert as_device(counting()).describe().meta["rate"] is None
    assert as_device(lambda: 1, rate=3, name="one").describe().meta["rate"] == 3.0


def test_text_of_the_rate_is_understood():
    spec = from_function(lambda: 1.0, rate="1 kHz", name="x").describe()
    assert spec.meta["rate"] == 1000.0


def install(folder, body, points):
    (folder / "lab_camera.py").write_text(body)
    info = folder / "lab_camera-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-camera\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[datastore_lab.devices]\n{points}\n")


def test_a_driver_of_another_distribution_is_found_and_a_broken_one_breaks_nothing(tmp_path, monkeypatch):
    body = (
        "from datastore_lab.acquire import from_function\n"
        "def make():\n    return from_function(lambda: 1.0, rate=100, name='vendor')\n"
    )
    points = "vendor = lab_camera:make\nbroken = lab_camera:no_such_name\nworse = no_such_module:make"
    install(tmp_path, body, points)
    monkeypatch.syspath_prepend(tmp_path)
    devices = Registry(DEVICES.group, DEVICES._builtin)
    assert {"vendor", "broken", "worse", "simulated-camera"} <= set(devices.names())
    for name in ("broken", "worse"):
        with pytest.warns(RuntimeWarning, match=f"plugin '{name}' of datastore_lab.devices can't be loaded"):
            assert devices.find(name) is None
    assert check_device(devices.load("vendor")(), seconds=0.2)
    assert devices.load("simulated-daq") is SimulatedDAQ


@pytest.mark.parametrize(
    ("module", "extra", "make"),
    [
        ("serial", "serial", lambda devices: devices.from_serial("/dev/ttyS0")),
        ("paho.mqtt.client", "mqtt", lambda devices: devices.from_mqtt("localhost", "x")),
        ("pylsl", "lsl", lambda devices: devices.from_lsl("EEG")),
        ("caproto.threading.client", "epics", lambda devices: devices.from_epics("LAB:X")),
        ("pypylon.pylon", "basler", lambda devices: devices.BaslerCamera()),
        ("pyvisa", "visa", lambda devices: devices.from_visa("GPIB::1::INSTR", "X?", 1)),
    ],
)
def test_a_missing_library_is_named_with_the_line_that_installs_it(module, extra, make, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"'{module}': pip install 'datastore-lab\[{extra}\]'"):
        make(devices)


def test_a_device_that_still_runs_at_the_end_of_a_process_is_stopped():
    code = (
        "from datastore_lab.acquire import from_function\n"
        "def source():\n    try:\n        while True:\n            yield 1.0\n"
        "    finally:\n        print('closed', flush=True)\n"
        "device = from_function(source, rate=100)\ndevice.start()\ndevice.read(5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "closed"


def test_adapters_load_no_library_before_they_are_made():
    names = ("pyvisa", "serial", "paho", "pylsl", "caproto", "pypylon", "ophyd", "ophyd_async", "bluesky")
    code = (
        "import sys, datastore_lab.acquire as acquire; [getattr(acquire, name) for name in acquire.__all__];"
        f"print([name for name in {names} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
