"""Cameras of Basler, emulated by pypylon."""

from __future__ import annotations

import os

os.environ["PYLON_CAMEMU"] = "2"  # before pypylon is loaded

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from datastore_lab.acquire import BaslerCamera
from datastore_lab.acquire.devices.basler import _Numbers
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance, DeviceConformance


class TestFree(ConnectedDeviceConformance):
    @staticmethod
    def make():
        return BaslerCamera("0815-0000", rate=50, shape=(48, 64))

    @staticmethod
    def make_absent():
        return BaslerCamera("no-such")

    def unplug(self, device):
        device._camera.Close()


class TestTriggered(DeviceConformance):
    @staticmethod
    def make():
        camera = BaslerCamera("0815-0001", shape=(48, 64))
        camera.set_trigger_mode("software")
        return camera

    def provoke(self, device):
        if device._camera is not None:  # a run starts it in a thread of its own
            device.trigger()
            time.sleep(0.02)


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


@pytest.mark.parametrize(
    ("form", "dtype", "shape"),
    [("Mono8", "|u1", (48, 64)), ("Mono12", "<u2", (48, 64)), ("RGB8Packed", "|u1", (48, 64, 3))],
)
def test_frames_have_the_type_of_the_pixel_format(form, dtype, shape):
    camera = BaslerCamera(rate=100, shape=(48, 64), pixel_format=form)
    spec = camera.describe()
    assert (spec.arrays["frame"].dtype, spec.arrays["frame"].shape[1:]) == (dtype, shape)
    assert spec.meta["pixel_format"] == form
    camera.start()
    blocks = collect(camera, 5)
    camera.stop()
    frames = np.concatenate([block.data["frame"] for block in blocks])
    assert frames.max() > 100
    assert (frames[0] != frames[1]).any()
    assert blocks[0].first == 0


def test_one_frame_per_trigger():
    camera = TestTriggered.make()
    camera.set_exposure(2.0)
    assert camera.describe().meta["exposure_ms"] == 2.0
    assert camera.describe().meta["rate"] is None
    frames = [camera.grab_frame() for _ in range(3)]
    assert camera.read(0.2) is None
    camera.set_exposure(5.0)
    with pytest.raises(DeviceFailed, match="stop it"):
        camera.set_trigger_mode("free")
    camera.stop()
    assert [frame.shape for frame in frames] == [(48, 64)] * 3
    with pytest.raises(DeviceFailed, match="does not run; start it"):
        camera.trigger()
    camera.set_trigger_mode("free")
    with pytest.raises(DeviceFailed, match="set_trigger_mode"):
        camera.trigger()


def test_grabbing_from_a_free_camera_gives_frames_in_order():
    camera = BaslerCamera(rate=50, shape=(48, 64))
    frames = [camera.grab_frame() for _ in range(4)]
    camera.stop()
    assert (
        np.diff([int(frame[0, 0]) for frame in frames]) % 256 == 1
    ).all()  # the test image moves on by one


def test_a_frame_that_was_not_transferred_whole_is_a_gap():
    camera = BaslerCamera(rate=50, shape=(48, 64))
    camera.start()
    before = collect(camera, 2)
    camera._camera.ForceFailedBufferCount.Value = 2
    camera._camera.ForceFailedBuffer.Execute()
    after = collect(camera, 6)
    camera.stop()
    blocks = before + after
    numbers = [block.first + i for block in blocks for i in range(len(block.time))]
    assert np.diff(numbers).max() == 3
    assert len(set(numbers)) == len(numbers)


def test_numbers_of_cameras_may_begin_anywhere_wrap_and_be_missing():
    numbers = _Numbers()
    seen = [65533, 65534, 65535, 1, 2, 5]
    assert [numbers.of(SimpleNamespace(BlockID=own)) for own in seen] == [0, 1, 2, 3, 4, 7]
    numbers = _Numbers()
    unknown = [SimpleNamespace(BlockID=2**64 - 1, ImageNumber=own) for own in (1, 2, 4)]
    assert [numbers.of(result) for result in unknown] == [0, 1, 3]


def test_signals_of_the_program_stay_its_own(tmp_path):
    """Waiting is not left to pylon: its timers end by SIGALRM, which would reach whatever waits for that."""
    code = (
        "import time; from datastore_lab.acquire import BaslerCamera; camera = BaslerCamera(shape=(48, 64));"
        "camera.set_trigger_mode('software'); camera.grab_frame(); time.sleep(0.5); camera.stop()"
    )
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-o",
        trace,
        "-e",
        "trace=timer_settime",
        "-e",
        "signal=SIGALRM",
        sys.executable,
        "-c",
        code,
    ]
    subprocess.run(command, check=True, timeout=100)
    assert "--- SIGALRM" not in trace.read_text()


@pytest.mark.parametrize(
    ("options", "why"),
    [({"shape": (48, 10**6)}, "Width = 1000000"), ({"pixel_format": "Mono7"}, "PixelFormat = Mono7")],
)
def test_settings_that_the_camera_refuses_are_named(options, why):
    camera = BaslerCamera(**options)
    with pytest.raises(DeviceFailed, match=f"does not take {why}.*; choose another value"):
        camera.start()


def test_settings_that_can_not_be_are_refused():
    camera = BaslerCamera()
    with pytest.raises(ValueError, match="positive"):
        camera.set_exposure(0)
    with pytest.raises(ValueError, match="'free' and 'software'"):
        camera.set_trigger_mode("hardware")
    with pytest.raises(ValueError, match="rate"):
        BaslerCamera(rate=0)
