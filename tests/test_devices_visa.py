"""Instruments through PyVISA: simulated by pyvisa-sim, and over a socket of this computer."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time

import numpy as np
import pytest

from datastore_lab.acquire import from_visa
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance, DeviceConformance

SIMULATED = """
spec: "1.1"
devices:
  dmm:
    eom:
      TCPIP INSTR: {q: "\\n", r: "\\n"}
    error: ERROR
    dialogues:
      - {q: "*IDN?", r: "LAB,DMM,1,0"}
      - {q: "MEAS:VOLT?", r: "+1.25E+00"}
      - {q: "CURVE?", r: "1.0,2.0,3.5"}
    properties:
      range:
        default: 1
        getter: {q: "RANGE?", r: "{}"}
        setter: {q: "RANGE {}", r: "OK"}
        specs: {min: 1, max: 100, type: int}
resources:
  TCPIP::localhost::inst0::INSTR: {device: dmm}
"""


@pytest.fixture(scope="session")
def simulation(tmp_path_factory):
    path = tmp_path_factory.mktemp("visa") / "instruments.yaml"
    path.write_text(SIMULATED)
    return f"{path}@sim"


class TestSimulated(DeviceConformance):
    @pytest.fixture(autouse=True)
    def backend(self, simulation):
        type(self).simulation = simulation

    @classmethod
    def make(cls):
        return from_visa(
            "TCPIP::localhost::inst0::INSTR",
            {"voltage": "MEAS:VOLT?", "curve": "CURVE?", "name": "*IDN?"},
            rate=50,
            name="dmm",
            units={"voltage": "V"},
            fields={"curve": ("float64", (3,)), "name": str},
            backend=cls.simulation,
        )


class Instrument(socketserver.ThreadingTCPServer):
    """Answers lines over a socket, as instruments on port 5025 do."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Session)
        self.answers = {
            b"MEAS:VOLT?": b"1.5\n",
            b"BIG?": b"1" * 5000 + b"\n",
            b"EVIL?": b"__import__('os')\n",
        }
        self.heard, self.sessions = [], []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"TCPIP::127.0.0.1::{self.server_address[1]}::SOCKET"

    def unplug(self):
        self.shutdown()
        self.server_close()
        while self.sessions:
            with contextlib.suppress(OSError):  # closed already
                self.sessions.pop().shutdown(socket.SHUT_RDWR)


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.sessions.append(self.request)
        for line in self.rfile:
            self.server.heard.append(line.strip())
            answer = self.server.answers.get(line.strip())
            if answer is not None:
                self.wfile.write(answer)


@pytest.fixture
def instrument():
    server = Instrument()
    yield server
    server.unplug()


class TestSocket(ConnectedDeviceConformance):
    @pytest.fixture(autouse=True)
    def server(self, instrument):
        type(self).instrument = instrument

    @classmethod
    def make(cls):
        return from_visa(cls.instrument.address, "MEAS:VOLT?", 50, name="dmm", backend="@py", timeout=0.5)

    @staticmethod
    def make_absent():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return from_visa(
            f"TCPIP::127.0.0.1::{port}::SOCKET", "X?", 10, name="dmm", backend="@py", timeout=0.5
        )

    def unplug(self, device):
        self.instrument.unplug()


def collect(device, samples, limit=10.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def test_answers_are_read_as_described(simulation):
    TestSimulated.simulation = simulation
    device = TestSimulated.make()
    device.start()
    block = collect(device, 1)[0]
    device.stop()
    assert block.data["voltage"][0] == 1.25
    assert np.array_equal(block.data["curve"][0], [1.0, 2.0, 3.5])
    assert block.data["name"][0] == "LAB,DMM,1,0"
    assert device.describe().meta["queries"]["voltage"] == "MEAS:VOLT?"


def test_the_setup_is_sent_at_every_start(instrument):
    device = from_visa(instrument.address, "MEAS:VOLT?", 100, backend="@py", setup=["*RST", "CONF:VOLT"])
    for _ in range(2):
        device.start()
        collect(device, 1)
        device.stop()
    assert instrument.heard.count(b"*RST") == 2
    assert instrument.heard[:2] == [b"*RST", b"CONF:VOLT"]


@pytest.mark.parametrize(
    ("query", "options", "why"),
    [
        ("SILENT?", {"timeout": 0.2}, "Timeout"),
        ("EVIL?", {}, "__import__.* is no number; check the query"),
        ("BIG?", {"most": "1 kB"}, "more than 1000 bytes; ask for less"),
        ("MEAS:VOLT?", {"fields": {"value": "int64"}}, "1.5 is not int64"),
        ("MEAS:VOLT?", {"fields": {"value": ("float64", (2,))}}, "holds 1 values, not 2"),
    ],
)
def test_a_wrong_answer_is_an_error(instrument, query, options, why):
    device = from_visa(instrument.address, query, 20, name="dmm", backend="@py", **options)
    began = time.monotonic()
    with pytest.raises(DeviceFailed, match=why) as caught:
        device.start()
    assert caught.value.key == "dmm"
    assert time.monotonic() - began < 3.0
    device.stop()
    assert time.monotonic() - began < 4.0


def test_an_instrument_that_falls_silent_is_an_error(instrument):
    device = from_visa(instrument.address, "MEAS:VOLT?", 50, name="dmm", backend="@py", timeout=0.3)
    device.start()
    collect(device, 2)
    instrument.answers.clear()
    with pytest.raises(DeviceFailed, match="Timeout"):
        collect(device, 100)
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < 1.5
