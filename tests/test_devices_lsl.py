"""Streams of the Lab Streaming Layer, sent and received on this computer."""

from __future__ import annotations

import threading
import time
import uuid

import numpy as np
import pylsl
import pytest

from datastore_lab.acquire import from_lsl
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance


class Sender:
    """Sends counted samples at a rate until it is closed."""

    def __init__(self, form="float32", rate=200.0, channels=3, sample=None, unit="microvolts"):
        self.name = f"lab-{uuid.uuid4()}"
        info = pylsl.StreamInfo(self.name, "EEG", channels, rate, form, self.name)
        info.set_channel_labels([f"C{i}" for i in range(channels)])
        info.set_channel_units([unit] * channels)
        self._outlet = pylsl.StreamOutlet(info)
        self._sample = sample or (lambda number: [number] * channels)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, args=(rate or 50.0,))
        self._thread.start()

    def _send(self, rate):
        began, number = time.monotonic(), 0
        while not self._over.wait(max(0.0, began + number / rate - time.monotonic())):
            self._outlet.push_sample(self._sample(number))
            number += 1

    def close(self):
        self._over.set()
        self._thread.join()
        self._outlet = None


@pytest.fixture
def send():
    made = []

    def make(**options):
        made.append(Sender(**options))
        return made[-1]

    yield make
    for sender in made:
        sender.close()


class TestLSL(ConnectedDeviceConformance):
    @pytest.fixture(autouse=True)
    def sender(self, send):
        type(self).sent = send()

    @classmethod
    def make(cls):
        return from_lsl(cls.sent.name, name="eeg")

    @staticmethod
    def make_absent():
        return from_lsl("no-such-stream", name="eeg", timeout=0.5)

    def unplug(self, device):
        self.sent.close()


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


TYPES = {"float32": "<f4", "double64": "<f8", "int8": "|i1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}


@pytest.mark.parametrize(("form", "dtype"), TYPES.items())
def test_every_type_comes_as_it_was_sent(send, form, dtype):
    sender = send(form=form, sample=lambda number: [number % 100, 1, 2])
    device = from_lsl(sender.name, name="eeg")
    device.start()
    data = np.concatenate([block.data["data"] for block in collect(device, 60)])
    device.stop()
    assert data.dtype == np.dtype(dtype)
    assert (np.diff(data[:, 0].astype(int)) % 100 == 1).all()
    assert (data[:, 1:] == [1, 2]).all()


def test_markers_are_text_without_a_rate(send):
    sender = send(
        form="string", rate=0.0, channels=1, sample=lambda number: [f"stimulus {number} ü"], unit=""
    )
    device = from_lsl(sender.name, name="markers")
    spec = device.describe()
    assert (spec.meta["rate"], spec.arrays["data"].dtype, spec.meta["units"]) == (None, "T", {})
    device.start()
    data = np.concatenate([block.data["data"] for block in collect(device, 3)])
    device.stop()
    first = int(data[0, 0].split()[1])
    assert data[:3, 0].tolist() == [f"stimulus {first + i} ü" for i in range(3)]


def test_clocks_labels_and_units_are_kept(send):
    sender = send()
    device = from_lsl(sender.name, name="eeg")
    spec = device.describe()
    assert spec.meta["channels"] == ["C0", "C1", "C2"]
    assert spec.meta["units"] == {"data": "microvolts"}
    assert spec.meta["rate"] == 200.0
    device.start()
    blocks = collect(device, 100)
    now = time.time_ns()
    device.stop()
    host = np.concatenate([block.time for block in blocks])
    own = np.concatenate([block.device_time for block in blocks])
    assert 0 <= now - host[-1] < 2e9
    assert np.diff(own).mean() == pytest.approx(5e6, rel=0.2)
    assert np.abs((host - host[0]) - (own - own[0])).max() < 50e6


def test_two_streams_of_one_name_are_told_apart_by_their_source(send):
    sender = send()
    device = from_lsl(sender.name, name="eeg", source=sender.name)
    device.start()
    assert collect(device, 1)
    device.stop()
    with pytest.raises(DeviceFailed, match=r"no stream .* within 0.3 s; check that the sender runs"):
        from_lsl(sender.name, name="eeg", source="another", timeout=0.3).start()
