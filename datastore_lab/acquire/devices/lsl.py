"""Streams of the Lab Streaming Layer (EEG, eye trackers, motion capture, markers) through pylsl."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from datastore_lab import dtypes, units
from datastore_lab.acquire.devices.extras import need
from datastore_lab.acquire.devices.layout import describe_stream
from datastore_lab.acquire.devices.source import SourceDevice
from datastore_lab.records import Block

if TYPE_CHECKING:
    from datastore_lab.acquire.devices.feed import Feed
    from datastore_lab.records import Stat

_TYPES = {1: "<f4", 2: "<f8", 3: dtypes.STRING, 4: "<i4", 5: "<i2", 6: "|i1", 7: "<i8"}
"""Type of the samples by LSL's number of the channel format."""

_MOST_CHANNELS = 100_000
_MOST_SAMPLES = 4096
_LOOK = 0.01
_CORRECT_EVERY = 5.0
"""Seconds between two estimates of how far the sender's clock is off; LSL measures about as often."""


def from_lsl(
    stream: str,
    *,
    name: str | None = None,
    source: str | None = None,
    timeout: float | str = 5.0,
) -> SourceDevice:
    """Make a device of a stream of the Lab Streaming Layer.

    The array ``data`` has the shape (n, channels) and the type of the stream. The device time is the sender's
    clock; the host's time follows from it by the offset that LSL measures.

    Parameters
    ----------
    stream : str
        Name of the stream on the network.
    name : str, optional
        Name of the stream here; by default the same.
    source : str, optional
        The ``source_id``, where several streams have one name.
    timeout : float or str, default 5
        Seconds to look for it.

    Returns
    -------
    SourceDevice

    Raises
    ------
    MissingExtra
        If pylsl is not installed.

    Examples
    --------
    >>> from_lsl("BioSemi", name="eeg")
    <device 'eeg', stopped>
    """
    lsl = need("pylsl", "lsl")
    own = name or stream
    network = _Network(lsl, stream, source, units.parse_duration(timeout))

    @contextmanager
    def connect(feed: Feed) -> Iterator[None]:
        with network.inlet() as inlet:
            inlet.open_stream(timeout=network.timeout)
            puller = _Puller(lsl, inlet, network.timeout, _TYPES[inlet.channel_format])
            feed.run(puller.run)
            yield

    return SourceDevice(
        own, network.describe, connect, advice="check that the sender runs and is in this network"
    )


class _Network:
    """Finds the stream."""

    def __init__(self, lsl: Any, stream: str, source: str | None, timeout: float) -> None:
        self._lsl, self._stream, self._source, self.timeout = lsl, stream, source, timeout

    @contextmanager
    def inlet(self) -> Iterator[Any]:
        """Connect; a sender that is gone is an error, and is not waited for."""
        inlet = self._lsl.StreamInlet(self._find(), max_buflen=60, recover=False)
        inlet.channel_format = inlet.info(timeout=self.timeout).channel_format()
        try:
            yield inlet
        finally:
            inlet.close_stream()

    def describe(self) -> Stat:
        with self.inlet() as inlet:
            info = inlet.info(timeout=self.timeout)
        count, rate = info.channel_count(), info.nominal_srate()
        if not 0 < count <= _MOST_CHANNELS:
            raise ValueError(f"it claims {count} channels; at most {_MOST_CHANNELS} are accepted")
        labels, measures = info.get_channel_labels() or [], info.get_channel_units() or []
        unit = {"data": str(measures[0])} if measures and len(set(measures)) == 1 and measures[0] else None
        return describe_stream(
            {"data": (_TYPES[info.channel_format()], (count,), ("channel",))},
            rate=rate or None,
            units=unit,
            device=f"LSL {info.type()} from {info.hostname()}",
            device_time=True,
            meta={"channels": [str(label) for label in labels]},
        )

    def _find(self) -> Any:
        property_, value = ("name", self._stream) if self._source is None else ("source_id", self._source)
        found = self._lsl.resolve_byprop(property_, value, timeout=self.timeout)
        fitting = [info for info in found if info.name() == self._stream]
        if not fitting:
            raise ConnectionError(f"no stream {self._stream!r} was found within {self.timeout:g} s")
        if len(fitting) > 1:
            sources = ", ".join(repr(info.source_id()) for info in fitting)
            raise ConnectionError(
                f"there are {len(fitting)} streams {self._stream!r}; give source, one of {sources}"
            )
        return fitting[0]


class _Puller:
    """Takes what has arrived, and translates the sender's clock into the host's."""

    def __init__(self, lsl: Any, inlet: Any, timeout: float, dtype: str) -> None:
        self._lsl, self._inlet, self._timeout = lsl, inlet, timeout
        self._dtype = dtypes.parse(dtype)
        self._offset, self._corrected = 0.0, -np.inf

    def run(self, feed: Feed) -> None:
        while not feed.closed.is_set():
            samples, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=_MOST_SAMPLES)
            if stamps:
                feed.put_block(self._block(feed.next, samples, stamps))
            else:
                feed.closed.wait(_LOOK)

    def _block(self, first: int, samples: Any, stamps: Any) -> Block:
        now = time.monotonic()
        if now - self._corrected > _CORRECT_EVERY:
            self._offset, self._corrected = self._inlet.time_correction(timeout=self._timeout), now
        sent = np.asarray(stamps, dtype=np.float64)
        ago = self._lsl.local_clock() - (sent + self._offset)
        host = time.time_ns() - (ago * 1e9).astype(np.int64)
        data = np.array(samples, dtype=self._dtype)
        return Block(first, host, {"data": data}, (sent * 1e9).astype(np.int64))
