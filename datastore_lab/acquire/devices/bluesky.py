"""Devices of ophyd, ophyd-async and whoever else speaks bluesky's protocols, known by their methods.

The protocols are described at https://blueskyproject.io/bluesky/main/hardware.html. Nothing of bluesky is
imported: what has the methods is a device.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datastore_lab import units
from datastore_lab.acquire.devices.caller import Caller
from datastore_lab.acquire.devices.layout import Fields, check_rate, describe_stream
from datastore_lab.acquire.devices.source import SourceDevice, poll
from datastore_lab.acquire.documents import nanoseconds, plain, spec_of
from datastore_lab.records import Stat

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed

_UNSTAGE = 1.0
"""Seconds that an end may take: stopping must return."""

_ADVICE = "check that the control system runs and that the device is connected"


def is_readable(obj: Any) -> bool:
    """Say whether something is ``Readable``: it has a name, ``describe`` and ``read``, and no ``start``."""
    return _has(obj, "describe", "read") and hasattr(obj, "name") and not _has(obj, "start")


def is_flyable(obj: Any) -> bool:
    """Say whether something is ``Flyable`` and its events can be collected."""
    return _has(obj, "kickoff", "complete", "collect", "describe_collect") and hasattr(obj, "name")


def from_bluesky(
    obj: Any,
    rate: float | str | None = None,
    *,
    name: str | None = None,
    fields: Fields | None = None,
    fly: bool | None = None,
    timeout: float | str = 10.0,
    loop: asyncio.AbstractEventLoop | None = None,
) -> SourceDevice:
    """Make a device of one of ophyd, ophyd-async or anything else with their methods.

    A ``Readable`` is staged at the start, triggered (if it has ``trigger``) and read once per period, and
    unstaged at the end. A ``Flyable`` is kicked off at the start, and its events are collected when it is
    complete; it is then `finished`. The time by the control system becomes the device time.

    Parameters
    ----------
    obj : Readable or Flyable
        Connected, if that takes more than calling its ``connect()``.
    rate : float or str, optional
        Readings per second; needed for a ``Readable``.
    name : str, optional
        Name of the stream; by default that of the object.
    fields : mapping of str to dtype or (dtype, shape), optional
        What some of its arrays hold where it describes them otherwise, see `describe_stream`.
    fly : bool, optional
        Whether to fly what is both; by default it is read.
    timeout : float or str, default 10
        Seconds that it may take to trigger, read or complete.
    loop : event loop, optional
        In which an asynchronous device was connected; by default that of bluesky if there is one, else one
        that all devices share.

    Returns
    -------
    SourceDevice

    Raises
    ------
    TypeError
        If it has the methods of neither.
    ValueError
        If a ``Readable`` has no rate.
    """
    seconds = units.parse_duration(timeout)
    own = name or str(getattr(obj, "name", ""))
    caller = Caller(obj, seconds, loop)
    if fly or (fly is None and not is_readable(obj) and is_flyable(obj)):
        flyer = _Flyer(obj, caller, check_rate(rate), fields or {})
        return SourceDevice(own, flyer.describe, flyer.connected, advice=_ADVICE)
    if not is_readable(obj):
        raise TypeError(
            f"{obj!r} is neither Readable nor Flyable: it lacks the methods of bluesky's protocols"
        )
    pace = check_rate(rate)
    if pace is None:
        raise ValueError(f"{own} does not read itself: give a rate, such as from_bluesky({own}, rate=10)")
    readable = _Readable(obj, caller, pace, fields or {})
    return SourceDevice(own, readable.describe, readable.connected, advice=_ADVICE)


class _Readable:
    def __init__(self, obj: Any, caller: Caller, rate: float, fields: Fields) -> None:
        self._obj, self._caller, self._rate, self._fields = obj, caller, rate, fields

    def describe(self) -> Stat:
        """Ask it as a run engine does: staged and triggered, as many say only then what they give."""
        with self._staged():
            self._trigger()
            keys = self._keys()
            values, _ = self._sample()
            if _has(self._obj, "set"):
                keys = {name: _real(key) for name, key in keys.items()}
            return _spec(keys, values, self._rate, self._configuration(), self._fields)

    def _keys(self) -> Mapping[str, Any]:
        keys: Mapping[str, Any] = self._caller.call(self._obj.describe)
        return keys

    @contextmanager
    def connected(self, feed: Feed) -> Iterator[None]:
        with self._staged():
            self._caller.stopped = feed.closed
            feed.run(self._run)
            yield

    @contextmanager
    def _staged(self) -> Iterator[None]:
        try:
            self._stage()
        except Exception as error:
            if type(error).__name__ != "NotConnectedError" or not _has(self._obj, "connect"):
                raise
            self._caller.call(self._obj.connect)
            self._stage()
        try:
            yield
        finally:
            self._caller.stopped = threading.Event()
            if _has(self._obj, "unstage"):
                self._caller.call(self._obj.unstage, timeout=_UNSTAGE)

    def _stage(self) -> None:
        if _has(self._obj, "stage"):
            self._caller.call(self._obj.stage)

    def _trigger(self) -> None:
        if _has(self._obj, "trigger"):
            self._caller.call(self._obj.trigger)

    def _run(self, feed: Feed) -> None:
        def take(number: int) -> None:
            self._trigger()
            values, stamp = self._sample()
            feed.put(values, number=number, device_time=stamp)

        poll(feed, take, self._rate)

    def _sample(self) -> tuple[dict[str, Any], int]:
        readings = self._caller.call(self._obj.read)
        values = {name: reading["value"] for name, reading in readings.items()}
        return values, nanoseconds(max(float(reading["timestamp"]) for reading in readings.values()))

    def _configuration(self) -> dict[str, Any]:
        if not _has(self._obj, "read_configuration"):
            return {}
        readings = self._caller.call(self._obj.read_configuration)
        return {name: reading["value"] for name, reading in readings.items()}


class _Flyer:
    def __init__(self, obj: Any, caller: Caller, rate: float | None, fields: Fields) -> None:
        self._obj, self._caller, self._rate, self._fields = obj, caller, rate, fields

    def describe(self) -> Stat:
        described = self._caller.call(self._obj.describe_collect)
        nested = all(
            isinstance(key, Mapping) and all(isinstance(part, Mapping) for part in key.values())
            for key in described.values()
        )
        streams = described if nested else {"": described}
        if len(streams) != 1:
            raise ValueError(f"it collects {sorted(streams)}, but a device gives one stream")
        (keys,) = streams.values()
        return _spec(keys, None, self._rate, {}, self._fields)

    @contextmanager
    def connected(self, feed: Feed) -> Iterator[None]:
        self._caller.stopped = feed.closed
        feed.run(self._run)
        yield

    def _run(self, feed: Feed) -> None:
        self._caller.call(self._obj.kickoff)
        self._caller.call(self._obj.complete)
        events: Iterable[Mapping[str, Any]] = self._caller.call(self._obj.collect)
        for event in events:
            stamp = max((float(time) for time in event["timestamps"].values()), default=event["time"])
            feed.put(event["data"], stamp=nanoseconds(event["time"]), device_time=nanoseconds(stamp))
        feed.end()


def _real(key: Mapping[str, Any]) -> Mapping[str, Any]:
    """Describe a position as a real number: soft axes call themselves integer where they stand on one."""
    vague = key["dtype"] == "integer" and "dtype_numpy" not in key
    return {**key, "dtype": "number"} if vague else key


def _spec(
    keys: Mapping[str, Any],
    sample: Mapping[str, Any] | None,
    rate: float | None,
    configuration: Mapping[str, Any],
    fields: Fields,
) -> Stat:
    spec = spec_of({"data_keys": keys}, sample)
    if spec is None:
        raise ValueError(f"its description leaves open what {sorted(keys)} hold; give its fields")
    meta = {**spec.meta, "rate": rate, "device_time": True}
    meta["source"] = {name: str(key.get("source", "")) for name, key in keys.items()}
    if configuration:
        meta["configuration"] = plain(configuration, "configuration")
    return Stat("stream", {**spec.arrays, **describe_stream(fields).arrays}, meta)


def _has(obj: Any, *methods: str) -> bool:
    return all(callable(getattr(obj, method, None)) for method in methods)
