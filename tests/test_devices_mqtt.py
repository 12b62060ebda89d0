"""Sensors over MQTT, with a broker on this computer."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from datastore_lab.acquire import from_mqtt
from datastore_lab.errors import DeviceFailed
from datastore_lab.testing.devices import ConnectedDeviceConformance


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Broker:
    """A broker, and a sensor that publishes on it."""

    def __init__(self):
        self.port = free_port()
        script = Path(__file__).parent / "broker.py"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script, str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout.readline() == b"ready\n"
        self._sensor = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._sensor.connect("127.0.0.1", self.port)
        self._sensor.loop_start()

    def publish(self, topic, payload, retain=False):
        self._sensor.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def close(self):
        self._sensor.disconnect()
        self._sensor.loop_stop()
        self.kill()


@pytest.fixture(scope="module")
def broker():
    made = Broker()
    yield made
    made.close()


class TestMQTT(ConnectedDeviceConformance):
    @pytest.fixture(autouse=True)
    def server(self, broker):
        type(self).broker = broker

    @classmethod
    def make(cls):
        return from_mqtt("127.0.0.1", "lab/temperature", port=cls.broker.port, name="air", units="°C")

    @staticmethod
    def make_absent():
        return from_mqtt("127.0.0.1", "lab/temperature", port=free_port(), name="air", timeout=2)

    def provoke(self, device):
        self.broker.publish("lab/temperature", "21.5")

    def test_a_device_that_is_unplugged_says_so(self):
        mine = Broker()
        shared, type(self).broker = self.broker, mine
        try:
            super().test_a_device_that_is_unplugged_says_so()
        finally:
            type(self).broker = shared
            mine.close()

    def unplug(self, device):
        self.broker.kill()


def collect(device, samples, limit=5.0):
    blocks, ends = [], time.monotonic() + limit
    while sum(len(block.time) for block in blocks) < samples:
        assert time.monotonic() < ends
        block = device.read(0.2)
        if block is not None:
            blocks.append(block)
    return blocks


def joined(blocks, name):
    return np.concatenate([block.data[name] for block in blocks])


def test_objects_numbers_lists_and_text_are_read(broker):
    cases = [
        (
            {"t": "float64", "state": str},
            json.dumps({"t": 1.5, "state": "on", "more": 1}),
            {"t": 1.5, "state": "on"},
        ),
        (None, "2.5", {"value": 2.5}),
        ({"spectrum": ("float64", (3,))}, "[1, 2.5, 3]", {"spectrum": [1, 2.5, 3]}),
        ({"spectrum": ("int64", (3,))}, "1,2,3", {"spectrum": [1, 2, 3]}),
        ({"state": str}, "door open", {"state": "door open"}),
    ]
    for number, (fields, payload, expected) in enumerate(cases):
        device = from_mqtt("127.0.0.1", f"case/{number}", port=broker.port, fields=fields)
        device.start()
        broker.publish(f"case/{number}", payload)
        (block,) = collect(device, 1)
        device.stop()
        for name, value in expected.items():
            assert np.array_equal(block.data[name][0], value)


def test_several_topics_make_samples_of_the_newest_values(broker):
    topics = {"in": "air/inside", "out": "air/outside"}
    device = from_mqtt("127.0.0.1", topics, port=broker.port, name="air")
    device.start()
    for topic, value in [("inside", 20), ("inside", 21), ("outside", 5), ("inside", 22)]:
        broker.publish(f"air/{topic}", str(value))
    blocks = collect(device, 2)
    device.stop()
    assert joined(blocks, "in").tolist() == [21, 22]
    assert joined(blocks, "out").tolist() == [5, 5]


def test_a_retained_message_is_the_first_sample(broker):
    broker.publish("kept/value", "7", retain=True)
    device = from_mqtt("127.0.0.1", "kept/value", port=broker.port)
    device.start()
    assert joined(collect(device, 1), "value").tolist() == [7.0]
    device.stop()


def test_what_a_broker_sends_of_other_topics_is_no_sample(broker):
    broker.publish("kept/other", "7", retain=True)
    device = from_mqtt("127.0.0.1", "kept/mine", port=broker.port)
    device.start()
    broker.publish("kept/mine", "1.5")
    (block,) = collect(device, 1)
    device.stop()
    assert (block.first, block.data["value"].tolist()) == (0, [1.5])


GARBAGE = ["", "no number", "{}", '{"value": "x"}', '{"value"', "[1, 2]", "[" * 20_000, "9" * 3000, "eval(1)"]


@pytest.mark.parametrize("payload", GARBAGE)
def test_garbage_fails_the_device_or_counts_as_lost(broker, payload):
    for garbage in ("fail", "skip"):
        most = 2000 if payload[0:1] == "9" else "30 kB"
        device = from_mqtt("127.0.0.1", "junk", port=broker.port, name="junk", garbage=garbage, most=most)
        device.start()
        broker.publish("junk", payload)
        broker.publish("junk", "1.5")
        if garbage == "fail":
            with pytest.raises(DeviceFailed, match=r"on 'junk' is not what was expected.*; check its fields"):
                collect(device, 1)
        else:
            (block,) = collect(device, 1)
            assert (block.first, block.data["value"].tolist()) == (1, [1.5])
        device.stop()


def test_a_broker_that_accepts_and_says_nothing_is_an_error_in_time():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        device = from_mqtt("127.0.0.1", "x", port=listener.getsockname()[1], name="mute", timeout=0.5)
        began = time.monotonic()
        with pytest.raises(DeviceFailed, match=r"did not answer within 0.5 s; check the broker"):
            device.start()
        assert time.monotonic() - began < 3.0


def test_a_broker_that_talks_nonsense_is_an_error():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def talk():
            link, _ = listener.accept()
            with link:
                link.recv(1000)
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)

        thread = threading.Thread(target=talk)
        thread.start()
        device = from_mqtt("127.0.0.1", "x", port=listener.getsockname()[1], name="web", timeout=1.0)
        with pytest.raises(DeviceFailed, match="'web' can't be started"):
            device.start()
        thread.join()


@pytest.mark.parametrize(("options", "why"), [({"garbage": "eat"}, "'fail', 'skip'"), ({"rate": -1}, "rate")])
def test_options_that_can_not_be_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        from_mqtt("127.0.0.1", "x", **options)
    with pytest.raises(ValueError, match="wildcards"):
        from_mqtt("127.0.0.1", "lab/#")
