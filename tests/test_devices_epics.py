"""Process variables of EPICS, from a server on this computer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from caproto.threading.client import Context

from datastore_lab.acquire import from_epics
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance


class Server:
    """A server in a process of its own, on a port of its own."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.environment = {
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": str(port),
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }
        script = Path(__file__).parent / "ioc.py"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def environment(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


class TestMonitored(ConnectedDeviceConformance):
    patience = 15.0

    @staticmethod
    def make():
        return from_epics("LAB:count", name="count")

    @staticmethod
    def make_absent():
        return from_epics("LAB:absent", name="count", timeout=0.7)

    def test_a_device_that_is_unplugged_says_so(self, monkeypatch):
        mine = Server()
        for name, value in mine.environment.items():
            monkeypatch.setenv(name, value)
        type(self).mine = mine
        super().test_a_device_that_is_unplugged_says_so()

    def unplug(self, device):
        self.mine.kill()


class TestSampled(TestMonitored):
    @staticmethod
    def make():
        return from_epics({"temperature": "LAB:temperature", "count": "LAB:count"}, rate=50, name="vessel")


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def joined(blocks, name):
    return np.concatenate([block.data[name] for block in blocks])


def test_every_change_is_a_sample_with_its_time_stamp():
    device = from_epics("LAB:count", name="count")
    device.start()
    blocks = collect(device, 20)
    device.stop()
    assert (np.diff(joined(blocks, "value")) == 1).all()
    late = np.concatenate([block.time - block.device_time for block in blocks])[1:]
    assert (np.abs(late) < 1e9).all()


def test_types_units_and_enumerations_are_those_of_the_variables():
    variables = {name: f"LAB:{name}" for name in ("temperature", "spectrum", "count", "state", "label")}
    device = from_epics(variables, rate=20, name="lab")
    spec = device.describe()
    assert {name: (info.dtype, info.shape[1:]) for name, info in spec.arrays.items()} == {
        "temperature": ("<f8", ()),
        "spectrum": ("<f8", (3,)),
        "count": ("<i4", ()),
        "state": ("<u2", ()),
        "label": ("T", ()),
    }
    assert spec.meta["units"] == {"temperature": "C"}
    assert spec.meta["enumerations"] == {"state": ["off", "on"]}
    device.start()
    block = collect(device, 2)[0]
    device.stop()
    assert block.data["spectrum"][0].tolist() == [1.0, 2.0, 3.0]
    assert block.data["label"][0] == "Cu-Zn"
    assert block.data["state"][0] == 0


def test_what_another_client_writes_is_seen():
    device = from_epics("LAB:temperature", name="temperature")
    device.start()
    first = joined(collect(device, 1), "value")[0]
    context = Context()
    (variable,) = context.get_pvs("LAB:temperature")
    variable.wait_for_connection(timeout=5)
    variable.write(first + 5)
    variable.circuit_manager.user_callback_executor.shutdown()
    context.disconnect()
    assert joined(collect(device, 1), "value")[0] == first + 5
    device.stop()


def test_a_shorter_array_than_described_is_an_error():
    device = from_epics("LAB:spectrum", name="spectrum")
    device.start()
    collect(device, 1)
    context = Context()
    (variable,) = context.get_pvs("LAB:spectrum")
    variable.wait_for_connection(timeout=5)
    variable.write([1.0, 2.0])
    with pytest.raises(DeviceFailed, match=r"'spectrum' gave something .*shape is \(2,\)"):
        collect(device, 1)
    variable.write([1.0, 2.0, 3.0])
    context.disconnect()
    device.stop()
