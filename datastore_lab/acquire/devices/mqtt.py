"""Sensors that publish over MQTT, through paho-mqtt: a sample per message."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import units as of
from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import VALUE, Fields, check_rate, describe_stream
from datastore_lab.acquire.devices.snapshot import Snapshot
from datastore_lab.acquire.devices.source import SourceDevice
from datastore_lab.acquire.devices.texts import MOST_BYTES, parse_answer
from datastore_lab.errors import DeviceFailed

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat

_GARBAGE = ("fail", "skip")


def from_mqtt(
    host: str,
    topics: str | Mapping[str, str],
    rate: float | str | None = None,
    *,
    port: int = 1883,
    name: str = "mqtt",
    fields: Fields | None = None,
    units: Mapping[str, str] | str | None = None,
    username: str | None = None,
    password: str | None = None,
    tls: bool = False,
    timeout: float | str = 5.0,
    garbage: str = "fail",
    most: int | str = MOST_BYTES,
) -> SourceDevice:
    """Make a device of the messages of a broker.

    The messages of one topic are numbers, text or JSON; a JSON object holds one value per field. Of several
    topics, each an array, a sample holds the newest values, whenever one changes.

    Parameters
    ----------
    host : str
        Name or address of the broker.
    topics : str or mapping of str to str
        One topic, or topics by the names of their arrays; without wildcards.
    rate : float or str, optional
        Messages per second, if they come regularly; it is only stated.
    port : int, default 1883
    name : str, default "mqtt"
        Name of the stream.
    fields : mapping of str to dtype or (dtype, shape), optional
        What a message holds: one float64 per topic by default.
    units : mapping of str to str, or str, optional
        Units by array, or one for all of them.
    username, password : str, optional
    tls : bool, default False
        Encrypt, and verify the broker by the certificates of the system.
    timeout : float or str, default 5
        Seconds that connecting may take.
    garbage : {"fail", "skip"}
        What a message that can't be read does: it fails the device, or counts as a lost sample.
    most : int or str, default 1 MB
        Longest message in bytes; a longer one is garbage (MQTT itself allows 256 MB).

    Returns
    -------
    SourceDevice

    Raises
    ------
    MissingExtra
        If paho-mqtt is not installed.

    Examples
    --------
    >>> air = from_mqtt("broker.lab", {"in": "air/inside", "out": "air/outside"}, name="air", units="°C")
    >>> list(air.describe().arrays)
    ['in', 'out']
    """
    client = need("paho.mqtt.client", "mqtt")
    if garbage not in _GARBAGE:
        raise ValueError(f"garbage is one of {', '.join(map(repr, _GARBAGE))}, not {garbage!r}")
    arrays = {} if isinstance(topics, str) else dict(topics)
    asked = [topics] if isinstance(topics, str) else list(topics.values())
    if any("#" in topic or "+" in topic for topic in asked):
        raise ValueError(f"{asked} has wildcards, and a stream has known arrays: name the topics one by one")
    described = fields or dict.fromkeys(arrays or [VALUE], "float64")
    what = f"mqtt://{host}:{port}/{' '.join(asked)}"
    spec = describe_stream(described, rate=check_rate(rate), units=units, device=what)
    reader = _Reader(name, spec, arrays, garbage == "skip", of.parse_size(most))
    seconds = of.parse_duration(timeout)

    @contextmanager
    def connect(feed: Feed) -> Iterator[None]:
        link = client.Client(client.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        link.connect_timeout = seconds
        if username is not None:
            link.username_pw_set(username, password)
        if tls:
            link.tls_set()
        session = _Session(feed, link, asked, reader)
        try:
            link.connect(host, port, keepalive=max(5, round(seconds)))
            link.loop_start()
            session.wait(seconds)
            yield
        finally:
            session.over = True
            link.disconnect()
            link.loop_stop()

    return SourceDevice(name, spec, connect, advice="check the broker's address, its port and its log")


class _Session:
    """One connection: what paho calls back, in its own thread."""

    def __init__(self, feed: Feed, link: Any, topics: list[str], reader: _Reader) -> None:
        self._feed, self._topics, self._reader = feed, topics, reader
        self._snapshot = Snapshot(feed, reader.topics) if reader.topics else None
        self._ready = threading.Event()
        self._refused: str | None = None
        self.over = False
        link.on_connect, link.on_subscribe = self._connected, self._subscribed
        link.on_disconnect, link.on_message = self._disconnected, self._message

    def wait(self, timeout: float) -> None:
        """Wait until the topics are subscribed to."""
        if not self._ready.wait(timeout):
            raise TimeoutError(f"the broker did not answer within {timeout:g} s")
        if self._refused:
            raise ConnectionError(f"the broker refused: {self._refused}")

    def _connected(self, link: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refuse(str(reason))
        else:
            link.subscribe([(topic, 1) for topic in self._topics])

    def _subscribed(self, _link: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._refuse(refused[0]) if refused else self._ready.set()

    def _refuse(self, why: str) -> None:
        self._refused = why
        self._ready.set()

    def _disconnected(self, _link: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._ready.is_set():
            self._refuse(str(reason))
        if not self.over:
            self._feed.fail(ConnectionError(f"the connection to the broker is lost: {reason}"))

    def _message(self, _link: Any, _data: Any, message: Any) -> None:
        if message.topic not in self._topics:
            return  # some brokers send what is retained on other topics too
        try:
            self._reader.put(self._feed, self._snapshot, message.topic, message.payload)
        except Exception as error:  # this is paho's thread: the one who reads is told
            self._feed.fail(error)


class _Reader:
    """Turns messages into samples, and knows what to do with those that are none."""

    def __init__(self, name: str, spec: Stat, arrays: Mapping[str, str], skips: bool, most: int) -> None:
        self._name, self._spec, self._skips, self._most = name, spec, skips, most
        self.topics = arrays
        self._by_topic = {topic: array for array, topic in arrays.items()}

    def put(self, feed: Feed, snapshot: Snapshot | None, topic: str, payload: bytes) -> None:
        try:
            if snapshot is None:
                feed.put(self._values(payload))
            else:
                array = self._by_topic[topic]
                snapshot.update(array, self._value(payload, array))
        except (ValueError, RecursionError, DeviceFailed) as error:
            if not self._skips:
                raise DeviceFailed(
                    f"the device {self._name!r} failed: a message on {topic!r} is not what was expected: "
                    f"{str(error)[:300]}; check its fields, or give garbage='skip'",
                    key=self._name,
                ) from error
            feed.lose()

    def _values(self, payload: bytes) -> Any:
        if payload[:1] == b"{":
            values = json.loads(self._text(payload))
            return {name: values[name] for name in self._spec.arrays if name in values}
        (name, *others) = self._spec.arrays
        if others:
            raise ValueError("it is no JSON object, and several fields were described")
        return {name: self._value(payload, name)}

    def _value(self, payload: bytes, name: str) -> Any:
        text = self._text(payload)
        return json.loads(text) if payload[:1] == b"[" else parse_answer(text, self._spec.arrays[name])

    def _text(self, payload: bytes) -> str:
        if len(payload) > self._most:
            raise ValueError(f"it has {len(payload)} bytes, and may have {self._most}")
        return payload.decode("utf-8")
