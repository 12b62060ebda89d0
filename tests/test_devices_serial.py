"""Instruments on serial lines, over pseudo-terminals."""

from __future__ import annotations

import os
import threading
import time
import tty

import numpy as np
import pytest

from datastore_lab.acquire import from_function, from_serial
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance


class Instrument:
    """The far end of a serial line: sends lines by itself, or answers questions."""

    def __init__(self, answers=None, lines=None):
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.heard = []
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._answer if answers else self._send, args=(answers or lines,)
        )
        self._thread.start()

    def write(self, data):
        os.write(self._master, data)

    def unplug(self):
        self._over.set()
        self._thread.join()
        for end in ("_master", "_slave"):
            if getattr(self, end) is not None:
                os.close(getattr(self, end))
                setattr(self, end, None)

    def _send(self, lines):
        number = 0
        while not self._over.wait(0.01):
            if lines is not None:
                self.write(lines(number))
                number += 1

    def _answer(self, answers):
        os.set_blocking(self._master, False)
        while not self._over.wait(0.001):
            try:
                question = os.read(self._master, 100).strip()
            except BlockingIOError:
                continue
            self.heard.append(question)
            if question in answers:
                self.write(answers[question])


@pytest.fixture
def plug():
    made = []

    def make(**options):
        made.append(Instrument(**options))
        return made[-1]

    yield make
    for instrument in made:
        instrument.unplug()


class Suite(ConnectedDeviceConformance):
    @pytest.fixture(autouse=True)
    def instrument(self, plug):
        type(self).line = self.line_end(plug)

    @staticmethod
    def make_absent():
        return from_serial("/dev/no-such-port", name="probe")

    def unplug(self, device):
        self.line.unplug()


class TestLines(Suite):
    @staticmethod
    def line_end(plug):
        return plug(lines=lambda n: b"%d, %.2f\r\n" % (n, n / 4))

    @classmethod
    def make(cls):
        return from_serial(
            cls.line.port, name="probe", fields={"count": "int64", "volt": "float64"}, units="V"
        )


class TestQuestions(Suite):
    @staticmethod
    def line_end(plug):
        return plug(answers={b"T?": b"21.5\n"})

    @classmethod
    def make(cls):
        return from_serial(cls.line.port, 50, query="T?", name="probe", units="°C")


def thermometer(port):
    import serial

    def readings():
        with serial.Serial(port, 9600, timeout=1) as line:
            while True:
                line.write(b"T?\n")
                yield float(line.readline())

    return from_function(readings, rate=50, name="probe", units="°C")


class TestDriverOfTenLines(Suite):
    @staticmethod
    def line_end(plug):
        return plug(answers={b"T?": b"21.5\n"})

    @classmethod
    def make(cls):
        return thermometer(cls.line.port)

    @staticmethod
    def make_absent():
        return thermometer("/dev/no-such-port")


def collect(device, samples, limit=4.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def joined(blocks, name):
    return np.concatenate([block.data[name] for block in blocks])


def test_a_line_that_had_begun_before_is_left_out(plug):
    line = plug()
    device = from_serial(line.port, name="probe")
    device.start()
    line.write(b"45\n1.5\n")
    line.write(b"2.")
    line.write(b"5\n3.5\n")
    assert joined(collect(device, 3), "value").tolist() == [1.5, 2.5, 3.5]
    device.stop()


def test_several_arrays_share_a_line(plug):
    line = plug()
    fields = {"name": str, "trace": ("float64", (3,)), "on": "bool"}
    device = from_serial(line.port, name="probe", fields=fields, separator=" ")
    device.start()
    line.write(b"\nA 1 2\t 3.5 1\nB 4 5 6 0\n")
    blocks = collect(device, 2)
    device.stop()
    assert joined(blocks, "name").tolist() == ["A", "B"]
    assert joined(blocks, "trace").tolist() == [[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]]
    assert joined(blocks, "on").tolist() == [True, False]


GARBAGE = [b"1.5.5", b"1,2", b"1_0", b"\xff\xfe", b"__import__('os').system('true')", b"9" * 5000, b"0x10"]


@pytest.mark.parametrize("line", GARBAGE)
def test_garbage_fails_the_device_or_counts_as_lost(plug, line):
    for garbage in ("fail", "skip"):
        instrument = plug()
        device = from_serial(instrument.port, name="probe", garbage=garbage)
        device.start()
        instrument.write(b"\n1.5\n")
        assert joined(collect(device, 1), "value").tolist() == [1.5]
        for start in range(0, len(line), 1000):
            instrument.write(line[start : start + 1000])
            time.sleep(0.002)
        instrument.write(b"\n2.5\n")
        if garbage == "fail":
            with pytest.raises(DeviceFailed, match=r"what was not expected.*; check baud rate"):
                collect(device, 1)
        else:
            (block,) = collect(device, 1)
            assert (block.first, block.data["value"].tolist()) == (2, [2.5])
        device.stop()


def test_a_line_that_never_ends_takes_no_memory(plug):
    instrument = plug()
    device = from_serial(instrument.port, name="probe", garbage="skip", most=100)
    device.start()
    instrument.write(b"\n")
    for _ in range(200):
        instrument.write(b"7" * 1000)
    instrument.write(b"\n1.5\n")
    (block,) = collect(device, 1)
    device.stop()
    assert (block.first, block.data["value"].tolist()) == (1, [1.5])


def test_an_answer_that_does_not_come_is_an_error(plug):
    instrument = plug(answers={b"T?": b"1\n"})
    device = from_serial(instrument.port, 10, query="X?", name="probe", timeout=0.3)
    device.start()
    with pytest.raises(DeviceFailed, match=r"TimeoutError: no answer to b'X.*within 0.3 s; check the port"):
        collect(device, 1)
    device.stop()


def test_answers_are_not_mixed_up_with_what_came_before(plug):
    instrument = plug(answers={b"T?": b"1.0\n"})
    device = from_serial(instrument.port, 100, query="T?", name="probe")
    device.start()
    collect(device, 1)
    instrument.write(b"99.0")
    values = joined(collect(device, 20), "value")
    device.stop()
    assert set(values[1:].tolist()) == {1.0}


@pytest.mark.parametrize(
    ("options", "why"),
    [({"query": "T?"}, "needs a rate"), ({"garbage": "eat"}, "'fail', 'skip'"), ({"rate": -1}, "rate")],
)
def test_options_that_can_not_be_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        from_serial("/dev/ttyS0", **options)
