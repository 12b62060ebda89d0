"""Devices of ophyd and ophyd-async as devices of a run."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import ophyd.sim
import pytest
from ophyd_async import sim as async_sim
from ophyd_async.core import SignalR, StandardReadable, soft_signal_r_and_setter

from datastore_lab.acquire import as_device, from_bluesky
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance, DeviceConformance


class TestOphyd(DeviceConformance):
    @staticmethod
    def make():
        return as_device(ophyd.sim.hw().det, rate=50)


class TestOphydImage(DeviceConformance):
    @staticmethod
    def make():
        return as_device(ophyd.sim.hw().direct_img, rate=20)


class TestOphydMotor(DeviceConformance):
    @staticmethod
    def make():
        return as_device(ophyd.sim.SynAxis(name="motor"), rate=50)


class TestFlyer(DeviceConformance):
    @staticmethod
    def make():
        hw = ophyd.sim.hw()
        flyer = ophyd.sim.MockFlyer("flyer", hw.det, hw.motor, 1, 5, 20)
        return from_bluesky(flyer, fields={"motor": "float64", "motor_setpoint": "float64"})


class TestOphydAsync(DeviceConformance):
    @staticmethod
    def make():
        return as_device(async_sim.SimMotor(name="motor", instant=True), rate=50)


class Broken(ophyd.sim.SynAxis):
    """An axis whose controller goes away."""

    gone = False

    def read(self):
        if self.gone:
            raise ConnectionResetError("the controller closed the connection")
        return super().read()


class TestUnplugged(ConnectedDeviceConformance):
    @staticmethod
    def make():
        TestUnplugged.axis = Broken(name="axis")
        return as_device(TestUnplugged.axis, rate=100)

    @staticmethod
    def make_absent():
        axis = Broken(name="axis")
        axis.gone = True
        return as_device(axis, rate=100)

    def unplug(self, device):
        self.axis.gone = True


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def test_a_detector_is_triggered_and_follows_its_motor():
    hw = ophyd.sim.hw()
    device = as_device(hw.det, rate=200)
    spec = device.describe()
    assert spec.arrays["det"].dtype == "<f8"
    assert spec.meta["device_time"] is True
    device.start()
    collect(device, 3)
    hw.motor.set(50).wait()
    time.sleep(0.05)
    far = collect(device, 20)[-1].data["det"][-1]
    hw.motor.set(0).wait()
    time.sleep(0.05)
    blocks = collect(device, 20)
    device.stop()
    assert far == pytest.approx(0, abs=1e-6)
    assert blocks[-1].data["det"][-1] == pytest.approx(1)
    late = blocks[-1].time - blocks[-1].device_time
    assert (np.abs(late) < 1e9).all()


def test_units_and_configuration_are_kept():
    motor = async_sim.SimMotor(name="motor", instant=True)
    spec = as_device(motor, rate=10).describe()
    assert spec.meta["units"] == {"motor": "mm"}
    assert (
        spec.meta["configuration"]["motor-velocity"] == 0.0 or "motor-velocity" in spec.meta["configuration"]
    )
    assert spec.meta["source"] == {"motor": "soft://motor-user_readback"} or spec.meta["source"]["motor"]


def test_a_flyer_gives_its_events_once():
    device = TestFlyer.make()
    device.start()
    blocks = collect(device, 20)
    assert device.read(0.2) is None
    assert device.finished
    device.stop()
    motor = np.concatenate([block.data["motor"] for block in blocks])
    assert np.allclose(motor, np.linspace(1, 5, 20))
    assert all(block.device_time is not None for block in blocks)


class Staged(StandardReadable):
    """Notes what is done to it; its reading may take long."""

    def __init__(self, name):
        with self.add_children_as_readables():
            self.value: SignalR[float]
            self.value, self.put = soft_signal_r_and_setter(float, 1.5)
        self.calls = []
        self.delay = 0.0
        super().__init__(name=name)

    def stage(self):
        self.calls.append("stage")
        return super().stage()

    def unstage(self):
        self.calls.append("unstage")
        return super().unstage()

    async def trigger(self):
        self.calls.append("trigger")
        await asyncio.sleep(self.delay)


def test_an_asynchronous_device_is_staged_triggered_and_unstaged():
    thing = Staged("thing")
    device = as_device(thing, rate=100)
    device.start()
    block = collect(device, 3)[0]
    device.stop()
    assert block.data["thing-value"][0] == 1.5
    assert thing.calls[0] == "stage"
    assert thing.calls[-1] == "unstage"
    assert thing.calls.count("trigger") >= 3


def test_one_that_takes_too_long_fails_and_stops_at_once():
    thing = Staged("slow")
    device = from_bluesky(thing, rate=100, timeout=0.3)
    device.describe()
    thing.delay = 60.0
    device.start()
    with pytest.raises(DeviceFailed, match=r"trigger\(\) took more than 0.3 s; check the instrument"):
        collect(device, 1)
    device.stop()
    thing.delay = 0.0
    device = from_bluesky(thing, rate=100, timeout=30)
    device.describe()
    thing.delay = 60.0
    device.start()
    assert device.read(0.1) is None
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < 1.5
    assert thing.calls[-1] == "unstage"


def test_a_status_that_fails_fails_the_device():
    class Jammed(ophyd.sim.SynAxis):
        jammed = False

        def trigger(self):
            status = ophyd.sim.DeviceStatus(self)
            status.set_exception(OSError("the shutter is jammed")) if self.jammed else status.set_finished()
            return status

    shutter = Jammed(name="shutter")
    device = as_device(shutter, rate=100)
    device.describe()
    shutter.jammed = True
    device.start()
    with pytest.raises(DeviceFailed, match="'shutter' failed: OSError: the shutter is jammed"):
        collect(device, 1)
    device.stop()


def test_a_device_that_lives_in_another_loop_is_read_there():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        seen = []

        class Where(Staged):
            async def read(self):
                seen.append(asyncio.get_running_loop())
                return await super().read()

        thing = Where("thing")
        device = from_bluesky(thing, rate=100, loop=loop)
        device.start()
        collect(device, 2)
        device.stop()
        assert set(seen) == {loop}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def test_readable_things_need_a_rate():
    with pytest.raises(ValueError, match="give a rate"):
        as_device(ophyd.sim.hw().det)
    with pytest.raises(TypeError, match="neither Readable nor Flyable"):
        from_bluesky(object(), rate=1)
