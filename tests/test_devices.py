"""The devices that are always there: this computer, and instruments that need no hardware."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from datastore_lab.acquire import (
    Faults,
    HostMonitor,
    SimulatedCamera,
    SimulatedDAQ,
    SimulatedLaser,
    SimulatedPowerMeter,
)
from datastore_lab.errors import DeviceFailed
from datastore_lab.records import ArrayInfo, Block
from datastore_lab.registry import DEVICES
from datastore_lab.testing.devices import DeviceConformance, Faulty, check_description, check_device


class TestHostMonitor(DeviceConformance):
    @staticmethod
    def make():
        return HostMonitor(rate=20)


class TestCamera(DeviceConformance):
    @staticmethod
    def make():
        return SimulatedCamera((48, 64), rate=60)


class TestTriggeredCamera(DeviceConformance):
    @staticmethod
    def make():
        camera = SimulatedCamera((48, 64))
        camera.set_trigger_mode("software")
        return camera

    def provoke(self, device):
        device.trigger()


class TestDAQ(DeviceConformance):
    @staticmethod
    def make():
        return SimulatedDAQ(channels=3, rate=20_000)


class TestDAQWithItsOwnClock(DeviceConformance):
    @staticmethod
    def make():
        return SimulatedDAQ(channels=1, rate=70.0, drift=1e-4)


class TestLaser(DeviceConformance):
    @staticmethod
    def make():
        return SimulatedLaser(rate=100)


class TestPowerMeter(DeviceConformance):
    @staticmethod
    def make():
        return SimulatedPowerMeter(SimulatedLaser(), rate=100)


@pytest.mark.parametrize("make", [lambda: SimulatedDAQ(channels=1, rate=7.0), lambda: HostMonitor(rate=20)])
def test_a_sample_is_number_0_at_the_start(make):
    assert check_device(make(), seconds=0.3)[0].first == 0


def test_a_camera_on_software_trigger_keeps_the_protocol():
    camera = SimulatedCamera((24, 32))
    camera.set_trigger_mode("software")
    blocks = check_device(camera, seconds=0.1, provoke=camera.trigger)
    assert camera.describe().meta["rate"] is None
    assert [block.first for block in blocks] == list(range(len(blocks)))


NEEDS_NOTHING = [
    "host-monitor",
    "simulated-camera",
    "simulated-daq",
    "simulated-laser",
    "simulated-power-meter",
]


@pytest.mark.parametrize("name", NEEDS_NOTHING)
def test_the_registry_knows_the_device(name):
    device = DEVICES.load(name)()
    check_description(device)


def read_until(device, samples, limit=20.0):
    blocks, ends = [], time.monotonic() + limit
    while not blocks or blocks[-1].first + len(blocks[-1].time) < samples:
        assert time.monotonic() < ends
        block = device.read(0.1)
        if block is not None:
            blocks.append(block)
    return blocks


def test_the_host_monitor_gives_what_this_computer_does(tmp_path):
    monitor = HostMonitor(rate=20)
    monitor.start()
    stop = time.monotonic() + 0.5
    while time.monotonic() < stop:  # one core is busy, and says so
        sum(range(1000))
    blocks = read_until(monitor, 8)
    monitor.stop()
    data = {name: np.concatenate([block.data[name] for block in blocks]) for name in blocks[0].data}
    assert ((data["cpu"] >= 0) & (data["cpu"] <= 100)).all()
    assert data["cpu"].max() > 20
    assert (data["memory"] > 1e6).all()
    for name in ("disk_read", "disk_write", "network_received", "network_sent"):
        assert ((data[name] >= 0) | np.isnan(data[name])).all()


def test_a_late_reader_of_the_host_monitor_loses_nothing():
    monitor = HostMonitor(rate=100)
    monitor.start()
    first = read_until(monitor, 1)[-1]
    threading.Event().wait(0.1)
    late = read_until(monitor, 2)[-1]
    monitor.stop()
    assert late.first == 1
    assert late.time[0] - first.time[0] > 90_000_000


def test_daq_samples_are_exact_and_do_not_drift():
    daq = SimulatedDAQ(channels=4, rate=10_000, seed=3)
    began = time.monotonic()
    daq.start()
    blocks = read_until(daq, 5_000)
    passed = time.monotonic() - began
    daq.stop()
    count = sum(len(block.time) for block in blocks)
    assert [block.first for block in blocks[1:]] == np.cumsum([len(b.time) for b in blocks])[:-1].tolist()
    assert count <= passed * 10_000 + 10
    times = np.concatenate([block.time for block in blocks])
    assert (np.diff(times) == 100_000).all()
    volts = np.concatenate([block.data["adc"] for block in blocks])
    assert volts[:4000, 0].std() == pytest.approx(np.sqrt(0.5), abs=0.02)  # two whole periods of a sine
    assert 0.005 < volts[:, 3].std() < 0.02  # the fourth channel is noise alone
    again = SimulatedDAQ(channels=4, rate=10_000, seed=3)
    assert np.array_equal(again._volts(0, count), volts)


def test_daq_that_nobody_reads_loses_the_oldest_and_says_so():
    daq = SimulatedDAQ(channels=1, rate=1000)
    daq.start()
    daq._pace._monotonic -= 12.0  # as if twelve seconds had passed
    block = daq.read(0.1)
    assert 6_900 < block.first < 7_500
    assert daq.read(0.1).first == block.first + len(block.time)
    daq.stop()


def test_camera_frames_show_a_moving_spot_with_noise():
    camera = SimulatedCamera((480, 640), seed=1, noise=3.0)
    frames = np.empty((40, 480, 640), "u1")
    for number, frame in enumerate(frames):
        camera._draw(frame, number)
    bright = [np.unravel_index(frame.argmax(), frame.shape) for frame in frames]
    assert np.ptp([y for y, _ in bright]) > 100
    assert np.ptp([x for _, x in bright]) > 100
    assert frames[:, :20, :20].std() == pytest.approx(3.0, rel=0.25)
    assert (frames[0] != frames[1]).mean() > 0.5
    other = SimulatedCamera((480, 640), seed=1)
    again = np.empty((480, 640), "u1")
    other._draw(again, 17)
    assert np.array_equal(again, frames[17])
    other = SimulatedCamera((480, 640), seed=2)
    other._draw(again, 17)
    assert not np.array_equal(again, frames[17])


def test_camera_exposure_changes_the_brightness_up_to_saturation():
    camera = SimulatedCamera((64, 64))
    camera.set_trigger_mode("software")
    means = []
    for ms in (1.0, 10.0, 40.0, 1000.0):
        camera.set_exposure(ms)
        frame = camera.grab_frame()
        means.append(frame.mean())
    camera.stop()
    assert means == sorted(means)
    assert frame.max() == 255
    assert frame.min() > 200
    with pytest.raises(ValueError, match="positive"):
        camera.set_exposure(0)


def test_camera_gives_one_frame_per_trigger_with_its_time():
    camera = SimulatedCamera((24, 32))
    camera.set_trigger_mode("software")
    camera.start()
    assert camera.read(0.0) is None
    before = time.time_ns()
    camera.trigger()
    camera.trigger()
    block = camera.read(1.0)
    assert block.data["frame"].shape == (2, 24, 32)
    assert before <= block.time[0] <= block.time[1] <= time.time_ns()
    assert camera.read(0.0) is None
    with pytest.raises(DeviceFailed, match="stop it"):
        camera.set_trigger_mode("free")
    camera.stop()
    camera.set_trigger_mode("free")
    with pytest.raises(DeviceFailed, match="set_trigger_mode"):
        camera.trigger()
    with pytest.raises(ValueError, match="'free' and 'software'"):
        camera.set_trigger_mode("hardware")


def test_grabbing_from_a_free_camera_gives_frames_in_order():
    camera = SimulatedCamera((24, 32), rate=200)
    frames = [camera.grab_frame() for _ in range(3)]
    camera.stop()
    expected = np.empty((24, 32), "u1")
    for number, frame in enumerate(frames):
        camera._draw(expected, number)
        assert np.array_equal(frame, expected)


def test_a_camera_asked_at_the_very_moment_gives_a_frame(monkeypatch):
    camera = SimulatedCamera((4, 4), rate=29.97)
    now = 12345.678
    monkeypatch.setattr("datastore_lab.acquire.devices.pace.time.monotonic", lambda: now)
    camera.start()
    for number in range(200):
        now = 12345.678 + number / 29.97
        block = camera.read(0.0)
        assert (block.first, len(block.time)) == (number, 1)
    camera.stop()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 200), (33, 33)])
def test_a_camera_may_be_small(shape):
    camera = SimulatedCamera(shape, rate=1000)
    assert camera.grab_frame().shape == shape
    camera.stop()


def test_stop_wakes_a_reader():
    camera = SimulatedCamera((24, 32), rate=0.01)
    camera.start()
    assert camera.read(1.0).first == 0
    got = []
    reader = threading.Thread(target=lambda: got.append(camera.read(60.0)))
    reader.start()
    camera.stop()
    reader.join(10)
    assert got == [None]


def test_a_card_with_its_own_clock_drifts_as_it_was_told():
    daq = SimulatedDAQ(channels=1, rate=1000, drift=1e-3)
    daq.start()
    blocks = read_until(daq, 400)
    daq.stop()
    host = np.concatenate([block.time for block in blocks])
    own = np.concatenate([block.device_time for block in blocks])
    gained = (own[-1] - own[0]) / (host[-1] - host[0]) - 1
    assert gained == pytest.approx(1e-3, rel=0.01)


def test_a_laser_settles_and_says_when():
    laser = SimulatedLaser(800, settle=0.3)
    done = []
    status = laser.set(700)
    status.add_callback(lambda status: done.append(status.success))
    assert not status.done
    assert not laser.settled
    assert 700 < laser.wavelength <= 800
    laser.wait(timeout=5.0)
    assert (laser.wavelength, laser.settled, done) == (700.0, True, [True])
    laser.set_wavelength(750)
    with pytest.raises(DeviceFailed, match="not done within"):
        laser.wait(timeout=0.01)
    with pytest.raises(ValueError, match=r"650\.0 to 1100\.0 nm"):
        laser.set_wavelength(500)
    other = laser.set(760)
    laser.stop()
    with pytest.raises(DeviceFailed, match="stopped before it had settled"):
        other.wait(1.0)
    assert laser.settled
    assert 700 < laser.wavelength < 760


def test_a_laser_that_is_sent_elsewhere_fails_the_first_move():
    laser = SimulatedLaser(settle=0.2)
    first, second = laser.set(700), laser.set(900)
    with pytest.raises(DeviceFailed, match="before it had settled"):
        first.wait(1.0)
    second.wait(5.0)
    assert laser.wavelength == 900.0


def test_a_power_meter_sees_the_laser_and_repeats_itself():
    laser = SimulatedLaser(800, settle=0.0)
    meter = SimulatedPowerMeter(laser, seed=4, noise=0.01)
    at_800 = [meter.read_value() for _ in range(5)]
    laser.set_wavelength(1000)
    assert np.mean(at_800) == pytest.approx(100, rel=0.03)
    assert meter.read_value() < 10
    again = SimulatedPowerMeter(100.0, seed=4, noise=0.01)
    assert [again.read_value() for _ in range(5)] == at_800
    assert SimulatedPowerMeter(100.0, seed=5).read_value() != at_800[0]


def test_a_laser_is_recorded_as_it_settles():
    laser = SimulatedLaser(800, rate=200, settle=0.1)
    laser.start()
    laser.set_wavelength(700)
    blocks = read_until(laser, 40)
    laser.stop()
    seen = np.concatenate([block.data["wavelength"] for block in blocks])
    assert seen[0] > 750
    assert seen[-1] == pytest.approx(700, abs=0.1)


class TestFaults:
    """Faults come at the same samples, however these come in blocks."""

    def numbers(self, device, until):
        found = []
        ends = time.monotonic() + 20
        while not found or found[-1] < until:
            assert time.monotonic() < ends
            block = device.read(0.2)
            if block is not None:
                found += range(block.first, block.first + len(block.time))
        return [number for number in found if number <= until]

    def test_drops_are_jumps_and_repeat(self):
        runs = []
        for rate in (2000, 5000):
            daq = SimulatedDAQ(channels=1, rate=rate, faults=Faults(drop=0.1, seed=7))
            daq.start()
            runs.append(self.numbers(daq, 600))
            daq.stop()
        assert runs[0] == runs[1]
        assert 480 < len(runs[0]) < 590
        expected = np.flatnonzero(~Faults(drop=0.1, seed=7).hits("drop", 0, 601))
        assert runs[0] == expected.tolist()

    def test_what_is_not_dropped_is_what_it_was(self):
        daq = SimulatedDAQ(channels=2, rate=2000, seed=1, faults=Faults(drop=[3, 100]))
        daq.start()
        blocks = read_until(daq, 200)
        daq.stop()
        for block in blocks:
            assert np.array_equal(block.data["adc"], daq._volts(block.first, len(block.time)))

    def test_a_timeout_is_silence_and_loses_nothing(self):
        daq = SimulatedDAQ(channels=1, rate=1000, faults=Faults(timeout=[50], silence=0.4))
        daq.start()
        assert self.numbers(daq, 49) == list(range(50))
        began = time.monotonic()
        assert daq.read(0.1) is None
        assert 0.05 < time.monotonic() - began < 0.35
        assert self.numbers(daq, 100)[0] == 50
        assert time.monotonic() - began > 0.3
        daq.stop()

    def test_a_disconnect_lasts_until_the_next_start(self):
        daq = SimulatedDAQ(channels=1, rate=1000, faults=Faults(disconnect=[120]))
        for _ in range(2):
            daq.start()
            assert self.numbers(daq, 119) == list(range(120))
            for _ in range(2):
                with pytest.raises(DeviceFailed, match="disconnected at sample 120"):
                    daq.read(1.0)
            daq.stop()

    def test_garbage_is_found_by_whoever_looks(self):
        camera = SimulatedCamera((24, 32), rate=200, faults=Faults(garbage=[4]))
        with pytest.raises(AssertionError, match="has the shape"):
            check_device(camera, seconds=0.3)
        camera.start()
        blocks = [camera.read(1.0) for _ in range(30)]
        camera.stop()
        torn = [block for block in blocks if block and block.data["frame"].shape[1:] != (24, 32)]
        assert [block.first for block in torn] == [4]

    def test_grabbing_raises_and_goes_on(self):
        faults = Faults(garbage=[1], timeout=[3], drop=[5], disconnect=[6], silence=2.0)
        camera = SimulatedCamera((24, 32), rate=50, faults=faults)
        camera.set_trigger_mode("software")
        assert camera.grab_frame().shape == (24, 32)
        with pytest.raises(DeviceFailed, match="only a part"):
            camera.grab_frame()
        assert camera.grab_frame().shape == (24, 32)
        with pytest.raises(DeviceFailed, match=r"no frame within 1\.0"):
            camera.grab_frame()
        camera.stop()

    def test_readings_fail_and_go_on(self):
        meter = SimulatedPowerMeter(faults=Faults(garbage=[1], timeout=[3], disconnect=[5], silence=0.6))
        assert meter.read_value() > 0
        with pytest.raises(DeviceFailed, match="no number"):
            meter.read_value()
        assert meter.read_value() > 0
        with pytest.raises(DeviceFailed, match=r"within 0\.5 s"):
            meter.read_value()
        assert meter.read_value() > 0
        assert meter.read_value() > 0
        for _ in range(2):
            with pytest.raises(DeviceFailed, match="disconnected"):
                meter.read_value()

    def test_stop_ends_a_silence(self):
        daq = SimulatedDAQ(channels=1, rate=1000, faults=Faults(timeout=[0], silence=60.0))
        daq.start()
        got = []
        reader = threading.Thread(target=lambda: got.append(daq.read(60.0)))
        reader.start()
        time.sleep(0.1)
        daq.stop()
        reader.join(5)
        assert got == [None]

    def test_probabilities_are_those_given(self):
        hits = Faults(drop=0.2, seed=3).hits("drop", 0, 100_000)
        assert hits.mean() == pytest.approx(0.2, abs=0.01)
        assert not np.array_equal(hits, Faults(drop=0.2, seed=4).hits("drop", 0, 100_000))
        with pytest.raises(ValueError, match="between 0 and 1"):
            Faults(drop=2)


class TestTheSuiteFindsFaults:
    """A suite that accepts everything would prove nothing."""

    def daq(self):
        return SimulatedDAQ(channels=1, rate=1000)

    def test_wrong_type(self):
        with pytest.raises(AssertionError, match="complex128"):
            check_device(Faulty(self.daq(), garbage_after=1), seconds=0.3)

    def test_silence(self):
        with pytest.raises(AssertionError, match="gave nothing"):
            check_device(Faulty(self.daq(), silent_after=0), seconds=0.1, patience=0.3)

    def test_an_error_comes_through(self):
        with pytest.raises(OSError, match="cable"):
            check_device(Faulty(self.daq(), raise_after=2), seconds=0.5)

    def test_a_jump_is_no_fault_but_going_back_is(self):
        check_device(Faulty(self.daq(), drop={2: 5}), seconds=0.3)
        with pytest.raises(AssertionError, match="was due"):
            check_device(Faulty(self.daq(), drop={2: -5}), seconds=0.3)

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"kind": "array"}, "must be 'stream'"),
            ({"meta": {"rate": 1.0}}, "units"),
            ({"meta": {"rate": -1.0, "units": {}}}, "rate"),
            ({"meta": {"rate": None, "units": {"zzz": "V"}}}, "not there"),
            ({"arrays": {}}, "no array"),
            ({"arrays": {"time": ArrayInfo("<f8", (0,), ("time",), 0, None)}}, "own name"),
            ({"arrays": {"a": ArrayInfo("<f8", (3,), ("time",), 0, None)}}, "0 on axis 0"),
            ({"arrays": {"a": ArrayInfo("<f8", (0,), ("x",), 0, None)}}, "must be 'time'"),
        ],
    )
    def test_descriptions(self, change, why):
        device = self.daq()
        spec = device.describe()._replace(**change)
        device.describe = lambda: spec
        with pytest.raises(AssertionError, match=why):
            check_description(device)

    def test_reused_memory(self):
        class Reuses(SimulatedDAQ):
            memory = np.zeros((5000, 1))

            def read(self, timeout):
                block = super().read(timeout)
                if block is None:
                    return None
                rows = self.memory[: len(block.time)]
                rows[:] = block.data["adc"]
                return Block(block.first, block.time, {"adc": rows})

        with pytest.raises(AssertionError, match="reuses the memory"):
            check_device(Reuses(channels=1, rate=1000), seconds=0.3)
